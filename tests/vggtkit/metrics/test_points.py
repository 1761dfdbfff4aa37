"""Point errors against SciPy, brute force and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from torch import Tensor

from tests.analysis.random_cameras import cameras
from vggtkit.metrics.points import (
    NO_CLOUD,
    Similarity,
    agreement,
    cloud_errors,
    point_errors,
    scaled_distance,
    umeyama,
)
from vggtkit.model.geometry import unproject

SIZE = (32, 40)


def cloud(seed: int, count: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3))


@pytest.mark.parametrize("seed", range(5))
def test_umeyama_finds_the_similarity_that_was_applied(seed: int) -> None:
    known = Similarity(0.3 + seed, Rotation.random(random_state=seed).as_matrix(), cloud(seed, 1)[0])
    found = umeyama(cloud(seed), known.apply(cloud(seed)))
    for actual, expected in zip(found, known, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_umeyama_rotation_is_that_of_scipy() -> None:
    source, target = cloud(0), cloud(1)
    expected, _ = Rotation.align_vectors(target - target.mean(0), source - source.mean(0))
    np.testing.assert_allclose(umeyama(source, target).rotation, expected.as_matrix(), atol=1e-9)


def test_umeyama_never_reflects() -> None:
    """On a mirrored cloud the best orthogonal matrix is the mirror; what is asked for is a rotation."""
    mirrored = cloud(0) * [1, 1, -1]
    found = umeyama(cloud(0), mirrored)
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    assert np.abs(found.apply(cloud(0)) - mirrored).max() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_no_similarity_nearby_is_better(seed: int) -> None:
    """Least squares: every small change of scale, rotation or translation makes the sum of squares larger."""
    source, target = cloud(seed), cloud(seed + 10) * [1, 1, -1]
    found = umeyama(source, target)

    def squares(similarity: Similarity) -> float:
        return float(((similarity.apply(source) - target) ** 2).sum())

    for step in np.vstack([np.eye(7), -np.eye(7)]) * 1e-3:
        rotation = Rotation.from_rotvec(step[:3]).as_matrix() @ found.rotation
        assert squares(Similarity(found.scale + step[6], rotation, found.translation + step[3:6])) > squares(found)


@pytest.mark.parametrize("points", [np.ones((4, 3)), np.outer(np.arange(4.0), [1, 2, 3])], ids=["one-place", "line"])
def test_umeyama_of_flat_clouds_is_still_a_similarity(points: np.ndarray) -> None:
    found = umeyama(points, 2 * points + 1)
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    np.testing.assert_allclose(found.apply(points), 2 * points + 1, atol=1e-12)


@pytest.mark.parametrize("bad", [np.ones((0, 3)), np.ones((4, 2)), np.full((4, 3), np.nan)])
def test_umeyama_refuses_what_it_cannot_align(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected two times \[N, 3\]|not finite"):
        umeyama(bad, bad)


@pytest.mark.parametrize("limit", [0.05, 0.5, 5])
def test_cloud_errors_equal_brute_force(limit: float) -> None:
    predicted, true = cloud(0, 70), cloud(1, 50)
    distances = cdist(predicted, true)
    to_true, to_predicted = distances.min(1), distances.min(0)
    errors = cloud_errors(predicted, true, f_score_distance=limit)
    assert errors.accuracy == pytest.approx(to_true.mean())
    assert errors.completeness == pytest.approx(to_predicted.mean())
    assert errors.chamfer == pytest.approx((to_true.mean() + to_predicted.mean()) / 2)
    precision, recall = (to_true < limit).mean(), (to_predicted < limit).mean()
    assert errors.f_score == pytest.approx(2 * precision * recall / (precision + recall) if precision + recall else 0)


def test_a_sample_of_a_large_cloud_is_close_and_seeded() -> None:
    predicted, true = cloud(0, 3000), cloud(1, 3000)
    full = cloud_errors(predicted, true)
    sampled = cloud_errors(predicted, true, query_limit=500, seed=1)
    assert sampled != full
    assert sampled == cloud_errors(predicted, true, query_limit=500, seed=1)
    np.testing.assert_allclose(sampled, full, rtol=0.15)


def test_point_errors_do_not_depend_on_frame_and_scale() -> None:
    true = torch.from_numpy(cloud(0))
    noisy = true + 0.05 * torch.from_numpy(cloud(1))
    moved = 5 * noisy @ torch.from_numpy(Rotation.random(random_state=0).as_matrix()) + 3
    np.testing.assert_allclose(point_errors(moved, true), point_errors(noisy, true), rtol=1e-9)
    assert 0.01 < point_errors(noisy, true).chamfer < 0.1


@pytest.mark.parametrize("bad", [torch.zeros(0, 3), torch.full((3, 3), math.nan)], ids=["none", "nan"])
def test_clouds_without_an_answer_are_nan(bad: Tensor) -> None:
    assert all(math.isnan(x) for x in point_errors(bad, torch.ones(len(bad), 3)))
    assert all(math.isnan(x) for x in cloud_errors(bad.numpy(), np.ones((3, 3))))
    assert math.isnan(scaled_distance(bad, torch.ones(len(bad), 3)))
    assert all(math.isnan(x) for x in NO_CLOUD)


def test_identical_points_have_no_error() -> None:
    same = torch.ones(5, 3)
    assert point_errors(same, same) == (0, 0, 0, 1)
    assert scaled_distance(same, same) == 0
    assert math.isnan(scaled_distance(torch.zeros(5, 3), same))


def test_scaled_distance_in_closed_form() -> None:
    true = torch.tensor([[0.0, 0, 1], [0, 0, 2], [0, 0, 4]])
    assert scaled_distance(torch.tensor([[0.0, 0, 3], [0, 0, 4], [0, 0, 8]]), true) == pytest.approx(0.5 / 3)


@pytest.mark.parametrize("factor", [1.0, 1.1, 0.5])
def test_agreement_is_the_relative_gap_along_the_rays(factor: float) -> None:
    """Points moved along their rays by a factor gape by |factor - 1|, wherever the cameras are."""
    poses, lens = cameras(0, 3).float(), torch.tensor([[30.0, 0, 20], [0, 30, 16], [0, 0, 1]]).repeat(3, 1, 1)
    depth = torch.rand(3, *SIZE) + 0.5
    centres = -(poses[..., :3].mT @ poses[..., 3:])[:, None, None, :, 0]
    points = centres + factor * (unproject(depth, poses, lens) - centres)
    assert agreement(points, depth, poses, lens) == pytest.approx(abs(factor - 1), abs=1e-5)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf], ids=["zero", "nan", "inf"])
def test_agreement_without_an_answer_is_nan(value: float) -> None:
    lens = torch.eye(3)[None]
    assert math.isnan(agreement(torch.ones(1, 2, 2, 3), torch.full((1, 2, 2), value), torch.eye(3, 4)[None], lens))
