"""VGGT in our own code, with the parameter names of the published checkpoint."""

from model.config import PRESETS, VGGTConfig
from model.loading import load_vggt, model_fingerprint, skeleton
from model.vggt import VGGT

__all__ = ["PRESETS", "VGGT", "VGGTConfig", "load_vggt", "model_fingerprint", "skeleton"]
