"""VGGT in our own code, with the parameter names of the published checkpoint."""

from model.config import HEADS, PRESETS, VGGTConfig, check_heads
from model.loading import architecture, load_vggt, local_weights, model_fingerprint, skeleton
from model.vggt import VGGT

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
    "skeleton",
]
