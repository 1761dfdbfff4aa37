"""The figures of a scene, each from its own output, and their means over scenes."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis.evaluation.cost import changes
from vggtkit.metrics.geometry import GEOMETRY, bootstrap_interval, geometry_metrics, over_scenes, track_error
from vggtkit.model.geometry import encode_pose
from vggtkit.scenes.scene import GroundTruth
from vggtkit.scenes.synthetic import synthetic_scenes

SIZE = (32, 40)
POSE_KEYS = {key for key in GEOMETRY if key.startswith(("auc", "rra", "rta"))}
SURFACE_KEYS = {"abs_rel", "rmse", "delta125", "accuracy", "completeness", "chamfer", "f_score"}


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
