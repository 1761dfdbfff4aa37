"""VGGT in our own code, with the parameter names of the published checkpoint."""

from model.config import PRESETS, VGGTConfig
from model.custom import is_factory, load_custom, load_inputs
from model.loading import load_vggt, model_fingerprint, skeleton
from model.precision import LARGE, computing_in, gradient_dtype, pick_dtype
from model.vggt import VGGT

__all__ = [
    "LARGE",
    "PRESETS",
    "VGGT",
    "VGGTConfig",
    "computing_in",
    "gradient_dtype",
    "is_factory",
    "load_custom",
    "load_inputs",
    "load_vggt",
    "model_fingerprint",
    "pick_dtype",
    "skeleton",
]
