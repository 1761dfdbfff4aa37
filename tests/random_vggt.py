"""A VGGT without training in which no term is hidden by a zero."""

import torch

from vggtkit.model import VGGT, VGGTConfig


def random_vggt(config: VGGTConfig, spread: float = 0.1) -> VGGT:
    """Every parameter random, biases, norms and tokens included; norms stay around 1."""
    torch.manual_seed(0)
    model = VGGT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.mean().round() + spread * torch.randn(parameter.shape))
    return model
