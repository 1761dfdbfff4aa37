"""Pose errors against double loops with 4 x 4 inverses, SciPy and the published histogram."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from tests.analysis.random_cameras import cameras
from vggtkit.metrics.pose import PoseErrors, accuracy_below, pose_auc, pose_errors


def nearby(poses: Tensor, seed: int, degrees: float) -> Tensor:
    """Poses a little off, so that the errors fall below and above the thresholds."""
    generator = np.random.default_rng(seed)
    turns = Rotation.from_rotvec(generator.normal(size=(len(poses), 3)) * np.deg2rad(degrees)).as_matrix()
    shifts = torch.from_numpy(generator.normal(size=(len(poses), 3, 1)) * np.deg2rad(degrees))
    return torch.cat([torch.from_numpy(turns) @ poses[..., :3], poses[..., 3:] + shifts], dim=-1)


def angles_by_double_loop(predicted: Tensor, true: Tensor) -> list[tuple[float, float]]:
    """With 4 x 4 inverses, SciPy's rotation angle and an arc cosine."""
    homogeneous = [np.array([np.vstack([e, [0, 0, 0, 1]]) for e in side.numpy()]) for side in (predicted, true)]
    angles = []
    for i in range(len(true)):
        for j in range(i + 1, len(true)):
            ours, truth = (side[i] @ np.linalg.inv(side[j]) for side in homogeneous)
            turn = Rotation.from_matrix(ours[:3, :3].T @ truth[:3, :3]).magnitude()
            a, b = ours[:3, 3], truth[:3, 3]
            line = np.arccos(abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b))
            angles.append((np.rad2deg(turn), np.rad2deg(line)))
    return angles


def auc_by_double_loop(angles: list[tuple[float, float]], threshold: int) -> float:
    total = 0
    for k in range(1, threshold + 1):
        for pair in angles:
            total += max(pair) < k or (k == threshold and max(pair) == k)
    return total / threshold / len(angles)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("degrees", [1, 5, 20, 90])
def test_pose_errors_equal_a_double_loop(seed: int, degrees: float) -> None:
    true = cameras(seed, 6)
    predicted = nearby(true, seed, degrees)
    errors = pose_errors(predicted, true)
    expected = angles_by_double_loop(predicted, true)
    np.testing.assert_allclose(torch.stack([*errors], dim=-1).numpy(), expected, atol=1e-5)
    for threshold in (30, 15, 5, 3):
        assert pose_auc(errors, threshold) == pytest.approx(auc_by_double_loop(expected, threshold), abs=1e-12)
        rotations = [rotation < threshold for rotation, _ in expected]
        assert accuracy_below(errors.rotation_deg, threshold) == pytest.approx(np.mean(rotations))


@settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), min_size=1, max_size=12),
    threshold=st.sampled_from([1, 3, 5, 30]),
)
def test_auc_equals_a_double_loop_on_the_bin_edges_too(pairs: list[tuple[int, int]], threshold: int) -> None:
    halves = [(rotation / 2, translation / 2) for rotation, translation in pairs]
    errors = PoseErrors(*torch.tensor(halves, dtype=torch.float64).unbind(-1))
    assert pose_auc(errors, threshold) == pytest.approx(auc_by_double_loop(halves, threshold), abs=1e-12)


def test_auc_is_the_published_histogram() -> None:
    """Bins of one degree, normalised by the pairs, cumulated, averaged over the bins."""
    worst = np.random.default_rng(0).uniform(0, 60, 500)
    histogram = np.histogram(worst, bins=np.arange(31))[0] / len(worst)
    errors = PoseErrors(torch.from_numpy(worst), torch.zeros(500, dtype=torch.float64))
    assert pose_auc(errors, 30) == pytest.approx(np.cumsum(histogram).mean(), abs=1e-12)


def test_pose_errors_do_not_depend_on_world_or_scale() -> None:
    true = cameras(0, 5)
    predicted = nearby(true, 1, 10)
    world = cameras(7, 1)[0]
    rescaled = predicted.clone()
    rescaled[..., 3] *= 4.5
    shifted = torch.cat([rescaled[..., :3] @ world[:, :3], rescaled[..., :3] @ world[:, 3:] + rescaled[..., 3:]], -1)
    for actual, expected in zip(pose_errors(shifted, true), pose_errors(predicted, true), strict=True):
        torch.testing.assert_close(actual, expected)


def test_direction_counts_up_to_sign() -> None:
    true = torch.eye(3, 4, dtype=torch.float64).repeat(2, 1, 1)
    true[1, 0, 3] = 1
    opposite = true.clone()
    opposite[1, 0, 3] = -1
    assert pose_errors(opposite, true).translation_deg.item() == 0


def test_small_angles_keep_their_digits() -> None:
    true = cameras(0, 2).float()
    turned = true.clone().double()
    turned[1] = torch.from_numpy(Rotation.from_euler("x", 1e-4, degrees=True).as_matrix()) @ turned[1]
    assert pose_errors(turned, true.double()).rotation_deg.item() == pytest.approx(1e-4, rel=1e-3)


def test_a_half_turn_is_180_degrees() -> None:
    true = cameras(0, 2)
    turned = true.clone()
    turned[1] = torch.diag(torch.tensor([1.0, -1.0, -1.0])).double() @ turned[1]
    assert pose_errors(turned, true).rotation_deg.item() == pytest.approx(180, abs=1e-4)


def test_cameras_in_one_place_have_no_direction() -> None:
    same = torch.eye(3, 4).repeat(2, 1, 1)
    assert pose_errors(same, same).translation_deg.item() == 90
    assert pose_errors(same, same).rotation_deg.item() == 0


def test_one_view_has_no_pairs() -> None:
    errors = pose_errors(cameras(0, 1), cameras(0, 1))
    assert len(errors.rotation_deg) == 0
    assert math.isnan(pose_auc(errors, 30))
    assert math.isnan(accuracy_below(errors.rotation_deg, 5))


def test_poses_that_are_not_finite_are_nan_not_misses() -> None:
    broken = cameras(0, 3)
    broken[1, 0, 3] = math.nan
    errors = pose_errors(broken, cameras(0, 3))
    assert math.isnan(pose_auc(errors, 30))
    assert math.isnan(accuracy_below(errors.translation_deg, 5))


def test_poses_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) and \(3, 3, 4\)"):
        pose_errors(cameras(0, 2), cameras(0, 3))
