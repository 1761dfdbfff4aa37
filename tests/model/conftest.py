"""A VGGT that runs in milliseconds and has every part."""

import pytest
import torch

from model.config import VGGTConfig
from model.vggt import VGGT

SMALL = VGGTConfig(
    img_size=28,
    patch_size=14,
    embed_dim=32,
    num_heads=2,
    vit_depth=1,
    vit_num_heads=2,
    aggregator_depth=2,
    num_register_tokens=2,
    camera_trunk_depth=1,
    camera_num_heads=2,
    dpt_features=16,
    dpt_out_channels=(8, 16, 24, 24),
    dpt_layer_idx=(0, 0, 1, 1),
    track_features=16,
    track_hidden_size=32,
    track_corr_levels=2,
    track_corr_radius=2,
    track_iters=2,
    track_depth=1,
    track_num_heads=2,
    track_virtual_tracks=4,
)


@pytest.fixture(scope="session")
def small_config() -> VGGTConfig:
    return SMALL


@pytest.fixture
def small_model() -> VGGT:
    """Every parameter random, biases, norms and tokens included, so that no term is hidden by a zero."""
    torch.manual_seed(0)
    model = VGGT(SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            centre = parameter.mean().round()  # norms stay around 1
            parameter.copy_(centre + 0.05 * torch.randn(parameter.shape))
    return model
