"""What happened to cameras, depth, points and tracks: the figures of a scene, and their means over scenes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from vggtkit.metrics.depth import Alignment, depth_errors
from vggtkit.metrics.points import QUERY_LIMIT, agreement, point_errors
from vggtkit.metrics.pose import accuracy_below, pose_auc, pose_errors
from vggtkit.model.geometry import decode_pose
from vggtkit.scenes.scene import GroundTruth

AUC_DEGREES = (30, 15, 5, 3)
ACCURACY_DEGREES = (5, 15, 30)
HEADLINE = ("auc30", "abs_rel")
WITHOUT_TRUTH = ("agreement",)
RESAMPLES = 2000


@dataclass(frozen=True)
class GeometryMetric:
    """How a figure is called and read.

    Attributes:
        key: in dictionaries and JSON.
        title: in tables.
        higher_is_better: else lower is.
        change_factor: a change is shown times this,
        change_digits: with so many digits after the point,
        change_unit: and this behind it.
    """

    key: str
    title: str
    higher_is_better: bool
    change_factor: float = 1.0
    change_digits: int = 3
    change_unit: str = ""

    def change_number(self, change: float) -> str:
        """A change (candidate minus reference) in the unit that it is told in.

        >>> GEOMETRY["auc30"].change_number(-0.004)
        '-0.4'
        """
        shown = round(change * self.change_factor, self.change_digits) + 0.0  # no "-0.0"
        return f"{shown:+.{self.change_digits}f}"

    def change_text(self, change: float) -> str:
        """A change as users read it.

        >>> GEOMETRY["auc30"].change_text(-0.004)
        'AUC@30 -0.4 points'
        """
        if not math.isfinite(change):
            return f"{self.title} not a number"
        return f"{self.title} {self.change_number(change)}{self.change_unit}"


def _share(key: str, title: str) -> GeometryMetric:
    """A fraction whose changes are told in percentage points."""
    return GeometryMetric(key, title, True, 100.0, 1, " points")


def _registry(metrics: Iterable[GeometryMetric]) -> dict[str, GeometryMetric]:
    return {metric.key: metric for metric in metrics}


GEOMETRY = _registry(
    [
        *(_share(f"auc{degrees}", f"AUC@{degrees}") for degrees in AUC_DEGREES),
        *(_share(f"rra{degrees}", f"RRA@{degrees}") for degrees in ACCURACY_DEGREES),
        *(_share(f"rta{degrees}", f"RTA@{degrees}") for degrees in ACCURACY_DEGREES),
        GeometryMetric("abs_rel", "AbsRel", False),
        GeometryMetric("rmse", "depth RMSE", False),
        _share("delta125", "delta<1.25"),
        GeometryMetric("accuracy", "accuracy", False),
        GeometryMetric("completeness", "completeness", False),
        GeometryMetric("chamfer", "Chamfer", False),
        _share("f_score", "F-score"),
        GeometryMetric("track_px", "track error", False, 1.0, 2, " px"),
        GeometryMetric("agreement", "points vs depth", False),
    ]
)


class Estimate(NamedTuple):
    """A mean over scenes and its bootstrap confidence interval.

    Attributes:
        mean: over the scenes where the figure applies.
        low: lower end; NaN with fewer than two scenes.
        high: upper end.
        scenes: how many.
    """

    mean: float
    low: float
    high: float
    scenes: int

    @property
    def has_interval(self) -> bool:
        """Whether there were scenes enough for one."""
        return math.isfinite(self.low)


def geometry_metrics(
    outputs: Mapping[str, Any],
    scene_truth: GroundTruth | None,
    size: tuple[int, int],
    *,
    alignment: Alignment = "median",
    query_limit: int = QUERY_LIMIT,
    seed: int = 0,
) -> dict[str, float]:
    """Figures of one scene, in the order of `GEOMETRY`.

    A figure that does not apply is absent: all but ``agreement`` without truth, poses with a single view, depth and
    points without a valid true depth, tracks without a point that is visible in a later view, and whatever needs an
    output that is not there. An output that is not finite gives NaN: broken is a result, not an absence.

    Args:
        outputs: what the model returned for the scene: ``pose_enc``, ``depth``, ``world_points``, ``track``, each
            with or without the leading batch axis of 1. Other keys do not matter.
        scene_truth: where it is known.
        size: height and width of the pictures in pixels.
        alignment: of depth, as `depth_errors` takes it.
        query_limit: of larger point clouds, so many points look for their neighbours.
        seed: of the samples of large point clouds.

    Raises:
        ValueError: a batch of more than one scene, or shapes that differ from the truth's.

    >>> import torch
    >>> outputs = {"pose_enc": torch.tensor([[[0, 0, 0, 0, 0, 0, 1, 1, 1.0]]]), "depth": torch.ones(1, 1, 2, 2, 1),
    ...            "world_points": torch.ones(1, 1, 2, 2, 3)}
    >>> list(geometry_metrics(outputs, None, (2, 2)))
    ['agreement']
    """
    pose, points = _scene(outputs, "pose_enc", 2), _scene(outputs, "world_points", 4)
    depth, track = _scene(outputs, "depth", 4), _scene(outputs, "track", 3)
    depth = None if depth is None else depth[..., 0]
    cameras = None if pose is None else decode_pose(pose.double(), size)
    figures: dict[str, float] = {}
    if scene_truth is not None:
        if cameras is not None and len(cameras[0]) > 1:
            figures |= _pose_figures(cameras[0], scene_truth.extrinsics)
        figures |= _depth_figures(depth, scene_truth, alignment) | _point_figures(
            points, scene_truth, query_limit, seed
        )
        figures |= _track_figures(track, scene_truth)
    if cameras is not None and depth is not None and points is not None:
        figures["agreement"] = agreement(points, depth, *cameras)
    return {key: figures[key] for key in GEOMETRY if key in figures}


def track_error(predicted: Tensor, true: Tensor, visible: Tensor) -> float:
    """Median distance in pixels of tracked points where they are visible, the first view (the query) left out.

    Args:
        predicted: ``[S, N, 2]`` pixel xy.
        true: ``[S, N, 2]``.
        visible: ``[S, N]`` bool.

    Returns:
        Pixels; NaN where nothing is visible or a visible point's prediction is not finite.

    >>> import torch
    >>> true = torch.zeros(2, 3, 2)
    >>> track_error(true + torch.tensor([3.0, 4.0]), true, torch.ones(2, 3, dtype=torch.bool))
    5.0
    """
    distances = (predicted.double() - true.double()).norm(dim=-1)[1:][visible[1:]]
    if not len(distances) or not distances.isfinite().all():
        return math.nan
    return float(np.median(distances.detach().cpu().numpy()))


def bootstrap_interval(values: Sequence[float], seed: int, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean: scenes are drawn again, with replacement, 2000 times.

    For what a scheme costs, give the differences scene by scene: they vary less than the scenes do.

    Args:
        values: one per scene.
        seed: of the draws.
        level: of confidence, between 0 and 1.

    Returns:
        Lower and upper end; NaN with fewer than two values (one scene says nothing about others) or a value that is
        not finite.

    Raises:
        ValueError: a level outside (0, 1).

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    >>> bootstrap_interval([0.5, 0.5, 0.5], seed=0)
    (0.5, 0.5)
    """
    if not 0 < level < 1:
        msg = f"level must lie between 0 and 1, got {level}"
        raise ValueError(msg)
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2 or not np.isfinite(sample).all():
        return math.nan, math.nan
    draws = np.random.default_rng(seed).integers(len(sample), size=(RESAMPLES, len(sample)))
    low, high = np.quantile(sample[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def over_scenes(rows: Sequence[Mapping[str, float]], seed: int, level: float = 0.95) -> dict[str, Estimate]:
    """Mean and interval of every figure that at least one scene has; each scene counts alike, NaN stays NaN.

    Args:
        rows: what `geometry_metrics` returned, or `changes` of it, one per scene.
        seed: of the bootstrap.
        level: of confidence.

    >>> over_scenes([{"abs_rel": 0.25}, {"abs_rel": 0.75}, {}], seed=0)["abs_rel"]
    Estimate(mean=0.5, low=0.25, high=0.75, scenes=2)
    """
    estimates = {}
    for key in GEOMETRY:
        values = [row[key] for row in rows if key in row]
        if values:
            estimates[key] = Estimate(sum(values) / len(values), *bootstrap_interval(values, seed, level), len(values))
    return estimates


def _scene(outputs: Mapping[str, Any], name: str, ndim: int) -> Tensor | None:
    """One scene's output of that many axes, on the CPU; None where there is none."""
    value = outputs.get(name)
    if not isinstance(value, Tensor):
        return None
    if value.ndim == ndim + 1 and len(value) == 1:
        value = value[0]
    if value.ndim != ndim:
        msg = f"{name}: expected one scene with {ndim} axes, got shape {tuple(value.shape)}"
        raise ValueError(msg)
    return value.detach().cpu()


def _pose_figures(predicted: Tensor, true: Tensor) -> dict[str, float]:
    errors = pose_errors(predicted, true.cpu())
    return (
        {f"auc{degrees}": pose_auc(errors, degrees) for degrees in AUC_DEGREES}
        | {f"rra{degrees}": accuracy_below(errors.rotation_deg, degrees) for degrees in ACCURACY_DEGREES}
        | {f"rta{degrees}": accuracy_below(errors.translation_deg, degrees) for degrees in ACCURACY_DEGREES}
    )


def _depth_figures(depth: Tensor | None, truth: GroundTruth, alignment: Alignment) -> dict[str, float]:
    if depth is None or not _valid(truth).any():
        return {}
    return depth_errors(depth, truth.depth.cpu(), alignment)._asdict()


def _point_figures(points: Tensor | None, truth: GroundTruth, query_limit: int, seed: int) -> dict[str, float]:
    valid = _valid(truth)
    if points is None or not valid.any():
        return {}
    true_points = truth.world_points.cpu()[valid]
    return point_errors(points[valid], true_points, query_limit=query_limit, seed=seed)._asdict()


def _valid(truth: GroundTruth) -> Tensor:
    """Where depth and points are known, ``[S, H, W]``."""
    depth = truth.depth.cpu()
    return (depth > 0) & depth.isfinite() & truth.world_points.cpu().isfinite().all(-1)


def _track_figures(track: Tensor | None, truth: GroundTruth) -> dict[str, float]:
    if track is None or truth.tracks is None or truth.visible is None or not truth.visible[1:].any():
        return {}
    return {"track_px": track_error(track, truth.tracks.cpu(), truth.visible.cpu())}
