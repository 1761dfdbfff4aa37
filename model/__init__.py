"""VGGT in our own code, with the parameter names of the published checkpoint."""

from model.config import HEADS, PRESETS, VGGTConfig, check_heads
from model.custom import is_factory, load_custom, load_inputs
from model.loading import architecture, load_vggt, local_weights, model_fingerprint, skeleton
from model.precision import LARGE, computing_in, gradient_dtype, pick_dtype
from model.vggt import VGGT

__all__ = [
    "HEADS",
    "LARGE",
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
