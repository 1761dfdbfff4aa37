"""What is in the run's folder counts only if it was made for the same."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.analysis.commands.running import Ran, assert_refused, cli
from tests.analysis.reproduction.layouts import write_co3d
from vggtkit.scenes import DrawnScene, draw_scenes
from vggtkit.scenes.co3d_split import read_co3d_test

pytestmark = pytest.mark.slow

PROFILED = ("--num-scenes", 1, "--views", 4, "--probes", 1, "--seed", 5, "--rounding", "nearest")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_co3d(folder, {"apple": {"a": "test", "b": "train"}}, views=3)
    return folder


@pytest.fixture(scope="module")
def profiled(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a profile of one rendered room, seed 5."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert cli("profile", "--model", model_folder, *PROFILED, "--run", run).code == 0
    return run


def reproduce(data: Path, model_folder: Path, run: Path, *options: object) -> Ran:
    tests = ("--on", f"co3d-test:{data}", "--frames", 2, "--least-frames", 2, "--calibration", "synthetic")
    return cli("reproduce", *tests, "--model", model_folder, "--num-scenes", 1, "--run", run, *options)


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        (("--seed", 1), "seed is 5, but 1 is needed"),
        (("--seed", 5, "--num-scenes", 2), "scene fingerprint is "),
        (("--seed", 5, "--dtype", "bf16"), "dtype is torch.float32, but torch.bfloat16 is needed"),
    ],
    ids=["seed", "scenes", "dtype"],
)
def test_a_profile_of_another_purpose_is_refused(
    profiled: Path, data: Path, model_folder: Path, options: tuple[object, ...], differs: str
) -> None:
    """Before the first scene is measured."""
    ran = reproduce(data, model_folder, profiled, *options)
    assert_refused(ran, differs, "profile.h5 is of another purpose")
    assert not (profiled / "reproduction.json.parts").exists()


def test_the_profile_that_would_be_made_is_taken(profiled: Path, data: Path, model_folder: Path) -> None:
    """It then comes as far as the baseline, which is not the published one."""
    ran = reproduce(data, model_folder, profiled, "--seed", 5)
    assert ran.code == 2
    assert "GATE NOT CHECKED" in ran.err.splitlines()[-1]


def scene(data: Path) -> DrawnScene:
    return draw_scenes(read_co3d_test(data), 2)[0]


def test_a_scene_is_told_by_what_it_shows(data: Path, tmp_path: Path) -> None:
    """Not by names: another picture, or another camera, under the same name is another scene."""
    known = scene(data)
    first, second = known.frames
    renamed = tmp_path / "other.png"
    renamed.write_bytes(first.image.read_bytes())
    assert dataclasses.replace(known, frames=(dataclasses.replace(first, image=renamed), second)).digest() == (
        known.digest()
    )
    pixels = np.asarray(Image.open(first.image)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(renamed)
    assert first.extrinsics is not None
    moved = dataclasses.replace(first, extrinsics=first.extrinsics + np.eye(4)[3] * 1e-3)
    others = [
        dataclasses.replace(known, frames=frames)
        for frames in (
            (dataclasses.replace(first, image=renamed), second),
            (moved, second),
            (second, first),
        )
    ]
    assert len({known.digest(), *(other.digest() for other in others)}) == 4
