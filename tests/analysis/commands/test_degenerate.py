"""Pictures, layers and outputs that have nothing in them: said, never NaN in a table, never divided by zero."""

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from tests.analysis.commands.running import Ran, cli
from tests.random_vggt import random_vggt
from vggtkit.model import VGGTConfig

LAST = r"(camera_head\.pose_branch\.fc2|(depth|point)_head\.scratch\.output_conv2\.2)"
LAYER = "aggregator.frame_blocks.0.mlp.fc1"
COMMANDS = (
    ("plan", "--budget", "60%"), ("evaluate", "--repeats", 0), ("pareto", "--measure", 0), ("inspect", LAYER),
)  # fmt: skip
ALL = VGGTConfig().heads
CASES = {
    "grey pictures": ("", lambda number: 120 + number, 2, ALL),
    "one view, and a layer of zeros": (rf"{re.escape(LAYER)}\.weight", None, 1, ("depth", "track")),
    "a dead layer": (r"frame_blocks\.0\.mlp\.fc2", None, 2, ("camera",)),
    "constant outputs": (rf"{LAST}\.weight", None, 2, ("camera", "depth")),
    "outputs of zeros": (rf"{LAST}\.", None, 2, ("camera", "point")),
}


pytestmark = pytest.mark.usefixtures("few_formats", "with_charts")


def with_zeros(config: VGGTConfig, pattern: str, into: Path) -> Path:
    """A network with zeros in the parameters of these names."""
    state = random_vggt(config).state_dict()
    for name in (name for name in state if pattern and re.search(pattern, name)):
        state[name].zero_()
    into.mkdir()
    save_file(state, into / "model.safetensors")
    (into / "config.json").write_text(config.to_json())
    return into


def flat_pictures(shade: Callable[[int], int], folder: Path) -> Path:
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.full((48, 64, 3), shade(number), np.uint8)).save(folder / f"{number}.png")
    return folder


def checked(*command: object) -> Ran:
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        ran = cli(*command, "--debug")  # which lets warnings through
    assert not [str(each.message) for each in raised if issubclass(each.category, RuntimeWarning)]
    assert not re.search(r"\bnan\b", ran.out + ran.err, re.IGNORECASE), ran.out
    return ran


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_nan(case: str, tiniest_config: VGGTConfig, tmp_path: Path) -> None:
    pattern, shade, views, heads = CASES[case]
    model, run = with_zeros(replace(tiniest_config, heads=heads), pattern, tmp_path / "model"), tmp_path / "run"
    images = ("--images", flat_pictures(shade, tmp_path / "grey")) if shade else ()
    asked = ("--model", model, "--num-scenes", 1, "--probes", 1, "--views", views, *images)
    assert checked("profile", *asked, "--run", run).code == 0
    last = (("inspect", "camera_head.pose_branch.fc2"),) if "camera" in heads else ()
    for command in (*COMMANDS, *last):
        ran = checked(*command, "--run", run)
        assert ran.code == 0, ran.err
    for path in run.glob("*.txt"):
        assert not re.search(r"\bnan\b", path.read_text(), re.IGNORECASE), path
    for path in run.glob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda constant, path=path: pytest.fail(f"{path}: {constant}"))
    with h5py.File(run / "profile.h5") as file:
        for output, values in file["scores/output"].items():
            assert np.isfinite(values[:]).all(), output


@pytest.mark.slow
def test_an_audit_of_outputs_without_damage_has_numbers(tiniest_config: VGGTConfig, tmp_path: Path) -> None:
    config = replace(tiniest_config, heads=("camera", "track"))
    model, run = with_zeros(config, CASES["constant outputs"][0], tmp_path / "model"), tmp_path / "run"
    assert cli("profile", "--model", model, "--num-scenes", 1, "--probes", 1, "--views", 1, "--run", run).code == 0
    ran = checked("audit", "--run", run)
    assert ran.code == 0, ran.err
