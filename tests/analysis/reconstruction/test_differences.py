"""Differences are 0 where there are none, and those that were put in."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from analysis.reconstruction.differences import differences, write_differences
from analysis.reconstruction.joining import moved
from analysis.reconstruction.views import Views
from tests.analysis.reconstruction.known import HEIGHT, WIDTH
from vggtkit.metrics.points import Similarity

SHOWN = np.ones((5, HEIGHT, WIDTH), dtype=np.bool_)
SHOWN[:, 0] = False


def test_a_reconstruction_does_not_differ_from_itself(views: Views) -> None:
    numbers = differences(views, views, SHOWN).numbers
    ones = {name: numbers.pop(name) for name in ("depth_delta125", "scale")}
    assert list(ones.values()) == pytest.approx([1, 1])
    assert list(numbers.values()) == pytest.approx([0] * len(numbers), abs=1e-5)


def test_another_frame_and_unit_are_no_difference_of_points_and_cameras(views: Views) -> None:
    change = Similarity(2.0, Rotation.from_rotvec([0.3, 0.2, -0.5]).as_matrix(), np.array([1.0, 2.0, 3.0]))
    numbers = differences(moved(views, change), views, SHOWN).numbers
    assert numbers["scale"] == pytest.approx(0.5, rel=1e-6)
    assert numbers["points_mean"] == pytest.approx(0, abs=1e-5)
    assert numbers["rotation_deg_max"] == pytest.approx(0, abs=1e-4)
    assert numbers["depth_abs_rel"] == pytest.approx(1.0, rel=1e-5)
    assert numbers["depth_abs_rel_scaled"] == pytest.approx(0, abs=1e-5)


def test_what_was_put_in_comes_out(views: Views) -> None:
    turn = Rotation.from_rotvec([0, np.radians(4), 0]).as_matrix()
    extrinsics = views.extrinsics.copy()
    extrinsics[0] = turn @ extrinsics[0]
    intrinsics = views.intrinsics.copy()
    intrinsics[:, 0, 0] *= 1.1
    numbers = differences(Views(1.02 * views.depth, views.confidence, extrinsics, intrinsics), views, SHOWN).numbers
    assert numbers["rotation_deg_max"] == pytest.approx(4, rel=1e-6)
    assert numbers["rotation_deg_mean"] == pytest.approx(4 * 4 / 10, rel=1e-6)  # 4 of the 10 pairs have the first
    assert numbers["focal_rel_mean"] == pytest.approx(0.05, rel=1e-6)
    assert numbers["depth_abs_rel"] == pytest.approx(0.02, rel=1e-4)


def test_pixels_beside_the_pictures_do_not_count_and_are_grey(views: Views, tmp_path: Path) -> None:
    depth = np.where(SHOWN, views.depth, 77).astype(np.float32)
    found = differences(Views(depth, views.confidence, views.extrinsics, views.intrinsics), views, SHOWN)
    assert found.numbers["depth_abs_rel"] == 0
    write_differences(found, views, SHOWN, ["a", "b", "c", "d", "e"], tmp_path)
    picture = np.asarray(Image.open(tmp_path / "points" / "c.png"))
    assert (picture[0] == 128).all()
    assert json.loads((tmp_path / "differences.json").read_text())["scale"]["value"] == pytest.approx(1)


def test_one_picture_has_no_pair_of_cameras(views: Views, tmp_path: Path) -> None:
    one = views.of(slice(0, 1))
    found = differences(one, one, SHOWN[:1])
    assert np.isnan(found.numbers["rotation_deg_mean"])
    write_differences(found, one, SHOWN[:1], ["a"], tmp_path)
    assert json.loads((tmp_path / "differences.json").read_text())["rotation_deg_max"]["value"] is None
