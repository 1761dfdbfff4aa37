"""VGGT in our own code, with the parameter names of the published checkpoint."""

from vggtkit.model.config import HEADS, PRESETS, VGGTConfig, check_heads
from vggtkit.model.factory import is_factory, load_custom, load_inputs
from vggtkit.model.loading import architecture, load_vggt, local_weights, model_fingerprint, skeleton
from vggtkit.model.precision import computing_in, gradient_dtype, pick_dtype
from vggtkit.model.vggt import VGGT

__all__ = [
    "HEADS",
    "PRESETS",
    "VGGT",
    "VGGTConfig",
    "architecture",
    "check_heads",
    "computing_in",
    "gradient_dtype",
    "is_factory",
    "load_custom",
    "load_inputs",
    "load_vggt",
    "local_weights",
    "model_fingerprint",
    "pick_dtype",
    "skeleton",
]
