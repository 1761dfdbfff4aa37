"""VGGT in our own code, with the parameter names of the published checkpoint."""

from model.config import PRESETS, VGGTConfig
from model.loading import load_vggt, model_fingerprint, skeleton
from model.precision import computing_in, gradient_dtype, pick_dtype
from model.vggt import VGGT

__all__ = [
    "PRESETS",
    "VGGT",
    "VGGTConfig",
    "computing_in",
    "gradient_dtype",
    "load_vggt",
    "model_fingerprint",
    "pick_dtype",
    "skeleton",
]
