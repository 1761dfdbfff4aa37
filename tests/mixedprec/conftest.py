"""The outputs of a small VGGT, and profiles to plan from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sensitivity import OUTPUTS, Profile
from vggtkit.model.config import VGGTConfig
from vggtkit.model.loading import model_fingerprint
from vggtkit.model.vggt import VGGT
from vggtkit.quant import UNIFORM_SCHEMES, candidates, find_layers, get_format, quantize_layer

CANDIDATES = candidates()


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
def planning_model(small_config: VGGTConfig) -> VGGT:
    """A model whose weights nobody changes."""
    torch.manual_seed(4)
    return VGGT(small_config).eval()


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
    return Profile(Path("profile.h5"), facts, layers, UNIFORM_SCHEMES, CANDIDATES, sizes, {}, damage, uniform, {})


@pytest.fixture(scope="session")
def signed_profile(planning_profile: Profile) -> Profile:
    """The same with what layers do to outputs along four vectors in three scenes, which agree on half of it."""
    generator = np.random.default_rng(1)
    shape = planning_profile.size_bytes.shape
    changes = {}
    for name, damage in planning_profile.damage.items():
        agreed = generator.choice([-1, 1], (shape[0], 1, 1, 1)) * generator.standard_normal(4)
        change = np.sqrt(damage)[:, :, None, None] * (agreed + generator.standard_normal((*shape, 3, 4)))
        changes[name] = change.astype(np.float32)
    damage = {name: np.square(values, dtype=np.float64).mean((2, 3)) for name, values in changes.items()}
    return replace(planning_profile, changes=changes, damage=damage)
