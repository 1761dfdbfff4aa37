"""Fixtures that several packages' tests share."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.made_once import made_once
from tests.random_vggt import random_vggt
from vggtkit.core.program import on_command_line
from vggtkit.model.config import VGGTConfig
from vggtkit.model.vggt import VGGT


def pytest_collection_finish() -> None:
    """What is there by now stays: Python need not look through all modules and tests for garbage again and again.

    After that its share of new objects is always high, so it would look after every 700 of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope="session", autouse=True)
def state_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of the user between commands lies in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def spoken_in_options() -> Iterator[None]:
    """Messages name settings as the command line does."""
    with on_command_line():
        yield


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The reference numbers and real pictures beside the repository; absent in most clones."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared, which is not part of the project")
    return folder


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
    """A VGGT that runs in milliseconds, with sizes that leave ragged groups everywhere."""
    return SMALL


@pytest.fixture
def small_model() -> VGGT:
    """Every parameter random, biases, norms and tokens included, so that no term is hidden by a zero."""
    return random_vggt(SMALL, spread=0.05)


torch.set_num_threads(1)  # the networks here are tiny, and threads that wait for a busy core are far slower than one
os.environ.setdefault("OMP_NUM_THREADS", "1")  # and so in the commands that tests start

TINIEST = VGGTConfig(
    img_size=32,
    patch_size=8,
    embed_dim=32,
    num_heads=2,
    vit_depth=1,
    vit_num_heads=2,
    aggregator_depth=1,
    camera_trunk_depth=1,
    camera_num_heads=2,
    dpt_features=8,
    dpt_out_channels=(8, 8, 8, 8),
    dpt_layer_idx=(0, 0, 0, 0),
    track_features=8,
    track_hidden_size=16,
    track_corr_levels=2,
    track_corr_radius=1,
    track_iters=1,
    track_depth=1,
    track_num_heads=2,
    track_virtual_tracks=2,
)


@pytest.fixture(scope="session")
def tiniest_config() -> VGGTConfig:
    """All parts of a VGGT in their smallest sizes; a pass takes some milliseconds."""
    return TINIEST


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``--model`` takes it: the tiniest VGGT, every parameter random."""
    return made_once(tmp_path_factory, "model", _write_tiniest)[0]


def _write_tiniest(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    model = VGGT(TINIEST)
    state = {
        name: value.mean().round() + 0.1 * torch.randn(value.shape, generator=generator)  # norms stay around 1
        for name, value in model.state_dict().items()
    }
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(TINIEST.to_json())


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small photographs, no two alike."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for number in range(8):
        coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 48)).save(folder / f"{number}.png")
    return folder
