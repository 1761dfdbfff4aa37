"""A VGGT small enough to quantise, save and run in a fraction of a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.config import VGGTConfig
from model.loading import model_fingerprint
from model.vggt import VGGT
from quant import CANDIDATES, UNIFORM_SCHEMES, find_layers, get_format, quantize_layer
from sensitivity import OUTPUTS, Profile

SMALL = VGGTConfig(
    img_size=28,
    patch_size=14,
    embed_dim=64,
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
    track_hidden_size=48,
    track_corr_levels=2,
    track_corr_radius=2,
    track_iters=2,
    track_depth=1,
    track_num_heads=2,
    track_virtual_tracks=4,
)


@pytest.fixture(scope="session")
def small_config() -> VGGTConfig:
    """Sizes that leave ragged groups everywhere."""
    return SMALL


@pytest.fixture
def small_model() -> VGGT:
    """Every parameter random, biases, norms and tokens included."""
    torch.manual_seed(0)
    model = VGGT(SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            centre = parameter.mean().round()  # norms stay around 1
            parameter.copy_(centre + 0.05 * torch.randn(parameter.shape))
    return model


@pytest.fixture
def run() -> Callable[[VGGT], dict[str, Tensor]]:
    """All outputs on two fixed images with three query points, the lists of iterations flattened."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, 28, 28, generator=generator)
    points = 28 * torch.rand(3, 2, generator=generator)

    def outputs(model: VGGT) -> dict[str, Tensor]:
        with torch.no_grad():
            found = model(images, points)
        single = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        for name, value in found.items():
            if isinstance(value, list):
                single |= {f"{name}.{i}": entry for i, entry in enumerate(value)}
        return single

    return outputs


@pytest.fixture(scope="session")
def planning_model() -> VGGT:
    """A model whose weights nobody changes."""
    torch.manual_seed(4)
    return VGGT(SMALL).eval()


@pytest.fixture(scope="session")
def planning_profile(planning_model: VGGT) -> Profile:
    """True sizes, made-up damages: they differ by orders of magnitude between layers and fall with the bits."""
    generator = np.random.default_rng(0)
    layers = tuple(find_layers(planning_model))
    modules = [planning_model.get_submodule(layer.name) for layer in layers]
    sizes = np.array([[quantize_layer(module, key).nbytes for key in CANDIDATES] for module in modules])
    step = np.array([4.0 ** -get_format(key).bits for key in CANDIDATES])
    damage = {
        name: 10 ** generator.uniform(-3, 1, (len(layers), 1)) * step * generator.uniform(0.5, 1.5, sizes.shape)
        for name in OUTPUTS
    }
    facts = {
        "model": "small",
        "model_fingerprint": model_fingerprint(planning_model),
        "scene_fingerprint": "0" * 16,
        "parameters": sum(parameter.numel() for parameter in planning_model.parameters()),
        "weights": "trained",
        "seed": 0,
    }
    uniform = {name: values.sum(0)[: len(UNIFORM_SCHEMES)] for name, values in damage.items()}
    return Profile(Path("profile.h5"), facts, layers, UNIFORM_SCHEMES, CANDIDATES, sizes, {}, damage, uniform)
