"""Geometry metrics against double loops, closed forms, SciPy and brute force."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from torch import Tensor

from analysis.depth_errors import depth_errors
from analysis.geometry import (
    GEOMETRY,
    bootstrap_interval,
    changes,
    describe_cost,
    geometry_metrics,
    over_scenes,
    track_error,
)
from analysis.point_errors import (
    NO_CLOUD,
    Similarity,
    agreement,
    cloud_errors,
    point_errors,
    scaled_distance,
    umeyama,
)
from analysis.pose_errors import PoseErrors, accuracy_below, pose_auc, pose_errors
from model.geometry import encode_pose, unproject
from scenes.scene import GroundTruth
from scenes.synthetic import synthetic_scenes

SIZE = (32, 40)
POSE_KEYS = {key for key in GEOMETRY if key.startswith(("auc", "rra", "rta"))}
SURFACE_KEYS = {"abs_rel", "rmse", "delta125", "accuracy", "completeness", "chamfer", "f_score"}


def cameras(seed: int, views: int, spread_deg: float = 180.0) -> Tensor:
    """Random world-to-camera poses ``[S, 3, 4]``."""
    generator = np.random.default_rng(seed)
    turns = generator.normal(size=(views, 3)) * np.deg2rad(spread_deg) / 3
    rotations = Rotation.from_rotvec(turns).as_matrix()
    return torch.from_numpy(np.concatenate([rotations, generator.normal(size=(views, 3, 1))], axis=-1))


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


# Poses


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


# Depth


@pytest.mark.parametrize("alignment", ["median", "scale_shift", "none"])
def test_depth_errors_equal_a_loop(alignment: str) -> None:
    generator = np.random.default_rng(0)
    true = generator.uniform(0.5, 4, 60) * (generator.uniform(size=60) > 0.2)
    predicted = 1.3 * true + generator.normal(size=60) * 0.4 + 1
    d, t = predicted[true > 0], true[true > 0]
    if alignment == "median":
        d = d * np.median(t) / np.median(d)
    elif alignment == "scale_shift":
        a, b = np.linalg.lstsq(np.stack([d, np.ones_like(d)], -1), t, rcond=None)[0]
        d = a * d + b
    errors = depth_errors(torch.from_numpy(predicted), torch.from_numpy(true), alignment)
    assert errors.abs_rel == pytest.approx(np.mean([abs(x - y) / y for x, y in zip(d, t, strict=True)]))
    assert errors.rmse == pytest.approx(math.sqrt(np.mean([(x - y) ** 2 for x, y in zip(d, t, strict=True)])))
    assert errors.delta125 == np.mean([max(x / y, y / x) < 1.25 for x, y in zip(d, t, strict=True)])


def test_alignment_takes_away_what_it_says() -> None:
    true = torch.rand(2, 5, 5) + 1
    assert depth_errors(7 * true, true).abs_rel == pytest.approx(0, abs=1e-6)
    assert depth_errors(7 * true - 3, true).abs_rel > 0.01
    assert depth_errors(7 * true - 3, true, "scale_shift").rmse == pytest.approx(0, abs=1e-5)
    assert depth_errors(2 * true, true, "none").abs_rel == pytest.approx(1)


def test_depth_that_is_not_positive_never_matches() -> None:
    assert depth_errors(torch.tensor([-1.0, 0.0, 1.0]), torch.ones(3), "none").delta125 == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        ([1.0, 2.0], [0.0, 0.0]),
        ([1.0, 2.0], [math.nan, math.inf]),
        ([math.nan, 2.0], [1.0, 2.0]),
        ([math.inf, 2.0], [1.0, 2.0]),
        ([0.0, 0.0], [1.0, 2.0]),
    ],
    ids=["no-truth", "truth-not-finite", "nan", "inf", "all-zero"],
)
def test_depth_without_an_answer_is_nan(predicted: list[float], true: list[float]) -> None:
    assert all(math.isnan(x) for x in depth_errors(torch.tensor(predicted), torch.tensor(true)))


def test_depth_outside_the_truth_does_not_count() -> None:
    assert depth_errors(torch.tensor([1.0, math.nan]), torch.tensor([1.0, 0.0])).abs_rel == 0


def test_constant_depth_has_a_best_shift() -> None:
    assert depth_errors(torch.full((2,), 3.0), torch.tensor([1.0, 2.0]), "scale_shift").rmse == 0.5


def test_depth_of_another_shape_or_alignment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\), the true one \(3,\)"):
        depth_errors(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="unknown alignment 'mean'"):
        depth_errors(torch.ones(2), torch.ones(2), "mean")  # type: ignore[arg-type]


# Points


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


# Tracks


def test_track_error_counts_visible_points_of_later_views() -> None:
    true = torch.zeros(3, 2, 2)
    predicted = torch.tensor([[100.0, 100], [1, 2], [9, 4]])[:, :, None].expand(3, 2, 2)
    visible = torch.tensor([[True, True], [True, True], [False, True]])
    assert track_error(predicted, true, visible) == pytest.approx(math.sqrt(8))
    assert math.isnan(track_error(predicted, true, visible & False))


# One scene


@pytest.fixture(scope="module")
def truth() -> GroundTruth:
    (scene,) = synthetic_scenes(1, 3, SIZE, seed=0, split="evaluation")
    assert scene.truth is not None
    return scene.truth


def oracle(truth: GroundTruth, scale: float = 1.0) -> dict[str, Tensor]:
    """What a network that knows the truth puts out, in its own scale."""
    assert truth.tracks is not None
    extrinsics = truth.extrinsics.clone()
    extrinsics[..., 3] *= scale
    return {
        "pose_enc": encode_pose(extrinsics, truth.intrinsics, SIZE)[None],
        "depth": scale * truth.depth[None, ..., None],
        "world_points": scale * truth.world_points[None],
        "track": truth.tracks[None],
    }


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_an_oracle_is_perfect(truth: GroundTruth, scale: float) -> None:
    metrics = geometry_metrics(oracle(truth, scale), truth, SIZE)
    assert list(metrics) == list(GEOMETRY)
    for key, value in metrics.items():
        assert value == pytest.approx(1 if GEOMETRY[key].higher_is_better else 0, abs=1e-4), key


def test_each_output_has_its_figures(truth: GroundTruth) -> None:
    """Spoiling one output moves its own figures and no others; the batch axis does not matter."""
    outputs = oracle(truth)
    perfect = geometry_metrics(outputs, truth, SIZE)
    assert perfect == geometry_metrics({name: value[0] for name, value in outputs.items()}, truth, SIZE)
    generator = torch.Generator().manual_seed(0)
    owned = {
        "pose_enc": POSE_KEYS | {"agreement"},
        "depth": {"abs_rel", "rmse", "delta125", "agreement"},
        "world_points": {"accuracy", "completeness", "chamfer", "f_score", "agreement"},
        "track": {"track_px"},
    }
    for name, keys in owned.items():
        value = outputs[name]
        spoiled = outputs | {name: value + torch.randn(value.shape, generator=generator)}
        changed = changes(perfect, geometry_metrics(spoiled, truth, SIZE))
        assert {key for key, change in changed.items() if change} == keys, name
        for key in keys:
            assert changed[key] < 0 if GEOMETRY[key].higher_is_better else changed[key] > 0, key


def test_a_broken_output_is_nan_and_spares_the_others(truth: GroundTruth) -> None:
    for name, keys in {
        "pose_enc": POSE_KEYS | {"agreement"},
        "depth": {"abs_rel", "rmse", "delta125", "agreement"},
        "world_points": {"accuracy", "completeness", "chamfer", "f_score", "agreement"},
        "track": {"track_px"},
    }.items():
        outputs = oracle(truth)
        outputs[name] = outputs[name] * math.nan
        metrics = geometry_metrics(outputs, truth, SIZE)
        assert {key for key, value in metrics.items() if math.isnan(value)} == keys, name


def test_what_does_not_apply_is_absent(truth: GroundTruth) -> None:
    outputs = oracle(truth)
    assert set(geometry_metrics(outputs, None, SIZE)) == {"agreement"}
    without = replace(truth, depth=torch.zeros_like(truth.depth), tracks=None, visible=None)
    assert set(geometry_metrics(outputs, without, SIZE)) == POSE_KEYS | {"agreement"}
    del outputs["pose_enc"], outputs["track"]
    assert set(geometry_metrics(outputs, truth, SIZE)) == SURFACE_KEYS
    first = {f: getattr(truth, f)[:1] for f in ("extrinsics", "intrinsics", "depth", "world_points", "tracks")}
    alone = replace(truth, **first, visible=None if truth.visible is None else truth.visible[:1])
    assert set(geometry_metrics(oracle(alone), alone, SIZE)) == SURFACE_KEYS | {"agreement"}


def test_a_batch_of_two_is_refused(truth: GroundTruth) -> None:
    outputs = {name: torch.cat([value, value]) for name, value in oracle(truth).items()}
    with pytest.raises(ValueError, match="pose_enc: expected one scene"):
        geometry_metrics(outputs, truth, SIZE)


# Over scenes


def test_interval_of_a_large_sample_is_that_of_the_normal() -> None:
    values = np.random.default_rng(0).normal(2, 1, 400)
    low, high = bootstrap_interval(values.tolist(), seed=0)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)
    narrow = bootstrap_interval(values.tolist(), seed=0, level=0.5)
    assert low < narrow[0] < values.mean() < narrow[1] < high
    assert bootstrap_interval(values.tolist(), seed=0) == (low, high) != bootstrap_interval(values.tolist(), seed=1)


def test_interval_of_three_values_equals_enumeration() -> None:
    """All 27 resamples: the smallest, (1, 1, 1), and the largest have a share of 3.7 %, so 95 % reaches both."""
    means = sorted(sum(draw) / 3 for draw in itertools.product([1.0, 2.0, 6.0], repeat=3))
    assert bootstrap_interval([1.0, 2.0, 6.0], seed=0) == (means[0], means[-1])


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan]], ids=["none", "one", "nan"])
def test_interval_without_an_answer_is_nan(values: list[float]) -> None:
    assert all(math.isnan(end) for end in bootstrap_interval(values, seed=0))


def test_interval_level_is_checked() -> None:
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        bootstrap_interval([1.0, 2.0], seed=0, level=95)


def test_scenes_are_averaged_where_a_figure_applies_and_nan_stays() -> None:
    estimates = over_scenes([{"auc30": 0.5, "abs_rel": 0.1}, {"abs_rel": 0.3}, {"abs_rel": math.nan}], seed=0)
    assert (estimates["auc30"].mean, estimates["auc30"].scenes) == (0.5, 1)
    assert math.isnan(estimates["abs_rel"].mean)
    assert estimates["abs_rel"].scenes == 3
    assert set(estimates) == {"auc30", "abs_rel"}


# Words


@pytest.mark.parametrize(
    ("reference", "candidate", "words"),
    [
        ({"auc30": 0.6, "abs_rel": 0.1}, {"auc30": 0.596, "abs_rel": 0.102}, "AUC@30 -0.4 points, AbsRel +0.002"),
        ({"auc30": 0.6}, {"auc30": 0.61, "abs_rel": 0.1}, "AUC@30 +1.0 points"),
        ({"auc30": 0.6}, {"auc30": 0.5999999}, "AUC@30 +0.0 points"),
        ({"auc30": 0.6}, {"auc30": math.nan}, "AUC@30 not a number"),
        ({"agreement": 0.05}, {"agreement": 0.055}, "points vs depth +0.005"),
        ({"agreement": 0.05}, {}, ""),
    ],
    ids=["both", "shared-only", "no-minus-zero", "broken", "label-free", "nothing"],
)
def test_cost_in_words(reference: dict[str, float], candidate: dict[str, float], words: str) -> None:
    assert describe_cost(reference, candidate) == words


def test_cost_of_chosen_figures() -> None:
    words = describe_cost(
        {"track_px": 1.0, "f_score": 0.5}, {"track_px": 1.25, "f_score": 0.4}, ("track_px", "f_score")
    )
    assert words == "track error +0.25 px, F-score -10.0 points"
