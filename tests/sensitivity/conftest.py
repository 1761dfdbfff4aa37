"""A small VGGT whose every parameter matters, scenes for it, and a profile of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sensitivity import Profile, open_profile, profile
from tests.made_once import made_once
from tests.random_vggt import random_vggt
from vggtkit.model import VGGT, VGGTConfig
from vggtkit.model.loading import model_fingerprint
from vggtkit.scenes import Scene

SMALL = VGGTConfig(
    img_size=32,
    patch_size=8,
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
FACTS = {"model": "small", "weights": "trained", "scene_fingerprint": "0" * 16, "seed": 0}
MakeScene = Callable[..., Scene]


def build_model() -> VGGT:
    return random_vggt(SMALL)


def build_scene(seed: int = 0, frames: int = 2, size: tuple[int, int] = (32, 32), points: int = 3) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(frames, 3, *size, generator=generator)
    return Scene(f"scene-{seed}", images, 28 * torch.rand(points, 2, generator=generator))


@pytest.fixture
def small_model() -> VGGT:
    return build_model()


@pytest.fixture
def make_scene() -> MakeScene:
    return build_scene


@pytest.fixture(scope="session")
def small_profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """Two scenes under all seven schemes; read it only."""
    folder, _ = made_once(tmp_path_factory, "small-profile", _make_profile)
    return open_profile(folder)


def _make_profile(folder: Path) -> None:
    model = build_model()
    facts = FACTS | {
        "model_fingerprint": model_fingerprint(model),
        "config": model.config.to_json(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    scenes = [build_scene(seed) for seed in (0, 1)]
    profile(model, scenes, folder / "profile.h5", facts=facts, probes=1, activation_bytes=2_000_000)
