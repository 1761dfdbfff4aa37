"""Figures on a recording: those of the scenes, as JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.recording import report


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A wall that is 1 m away, seen by a camera that moves to the right."""
    for name in ("images", "depth"):
        (tmp_path / name).mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    poses = np.eye(4)[None].repeat(4, 0)
    poses[:, 0, 3] = 0.5 * np.arange(4)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"images/{index}.png")
        Image.fromarray(np.full((32, 32), 1000, dtype=np.uint16)).save(tmp_path / f"depth/{index}.png")
    np.savetxt(tmp_path / "poses.txt", poses.reshape(4, 16))
    (tmp_path / "K.txt").write_text("29 29 15.5 15.5")
    return tmp_path


def test_a_network_that_looks_at_nothing_is_right_about_a_wall(recording: Path, model_folder: Path) -> None:
    """That is the world it believes in: depth 1, cameras in a row that look ahead."""
    found = json.loads(json.dumps(report(f"rgbd:{recording}", 1, 2, str(model_folder))))
    assert found["scenes"] == [f"{recording.name}[2:4]"]
    assert found["pixels"] == [32, 32]
    blind = {key: each["mean"] for key, each in found["without_looking"].items()}
    assert blind["auc30"] == pytest.approx(1)
    assert blind["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert found["figures"].keys() == blind.keys() == found["both_halves"]["figures"].keys()
    assert [found[key]["auc30"]["scenes"] for key in ("figures", "without_looking")] == [1, 1]
    assert [each["auc30"]["scenes"] for each in found["both_halves"].values()] == [2, 2]
    assert found["figures"]["abs_rel"]["mean"] > 0.001
