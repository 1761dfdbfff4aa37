"""VGGT in our own code, with the parameter names of the published checkpoint.

| module | holds |
|---|---|
| `config` | sizes and heads, their limits, the presets |
| `layers` | attention, MLP, LayerScale, rotary positions |
| `folding` | factors per channel moved between norms and the layers behind; the twin with outliers |
| `aggregator` | the trunk: backbone, then frame and global attention in alternation |
| `camera_head`, `dpt_head`, `track_head` | what is predicted from the trunk's tokens |
| `vggt` | the network |
| `outputs` | what a head predicts, by name |
| `geometry` | pose encodings to matrices, depth to points |
| `precision` | the type that the trunk computes in |
| `loading` | a source to a network with weights, or to its architecture alone |
| `sources` | what a source can be; where its config and weights are |
| `hub` | files of Hugging Face repositories |
| `checkpoint_formats` | a file, or several with an index, to tensors by name |
| `torch_files` | what ``torch.save`` wrote, read without running its code |
| `state_dicts` | the state dict in a trainer's checkpoint, its names without prefixes |
| `stored_sizes` | the sizes that shapes tell, held against the config |
"""

from vggtkit.model.config import HEADS, PRESETS, VGGTConfig, check_heads
from vggtkit.model.loading import (
    architecture,
    load_vggt,
    local_weights,
    model_fingerprint,
    resolve_source,
    skeleton,
    stored_weights,
)
from vggtkit.model.precision import pick_dtype
from vggtkit.model.vggt import VGGT

__all__ = [
    "HEADS",
    "PRESETS",
    "VGGT",
    "VGGTConfig",
    "architecture",
    "check_heads",
    "load_vggt",
    "local_weights",
    "model_fingerprint",
    "pick_dtype",
    "resolve_source",
    "skeleton",
    "stored_weights",
]
