"""One reconstruction against another of the same pictures: depth, cameras and points, in numbers and as pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.reconstruction.previews import colour_limits, drawn, side_by_side
from analysis.reconstruction.views import Views
from analysis.report.charts.colours import ERROR_DECADES, colour
from analysis.report.theme import DEPTH_COLOURS, ERROR_COLOURS
from vggtkit.core.arrays import Array, Map
from vggtkit.metrics.depth import depth_errors
from vggtkit.metrics.points import Similarity, umeyama
from vggtkit.metrics.pose import pose_errors

NUMBERS = "differences.json"
DEPTH, POINTS = "depth", "points"


@dataclass(frozen=True)
class Differences:
    """How far a reconstruction is from a reference.

    Attributes:
        reference: the views of the reference; depth is 0 beside the pictures.
        numbers: by name, see `DIFFERENCE_FIGURES`.
        distances: ``[S, H, W]``, of every point from that of the reference, as a share of `typical`.
        typical: mean distance of the reference's points from their middle.
    """

    reference: Views
    numbers: dict[str, float]
    distances: Map
    typical: float


DIFFERENCE_FIGURES = {
    "depth_abs_rel": "depth, mean relative difference, as predicted",
    "depth_abs_rel_scaled": "depth, the same once both have one median",
    "depth_delta125": "depth within a factor of 1.25, share of pixels",
    "rotation_deg_mean": "rotation between two cameras, mean, degrees",
    "rotation_deg_max": "rotation between two cameras, largest, degrees",
    "direction_deg_mean": "direction from camera to camera, mean, degrees",
    "focal_rel_mean": "focal length, mean relative difference",
    "points_mean": "points after a similarity, mean distance / spread of the points",
    "points_p95": "points after a similarity, 95 % lie within / spread of the points",
    "scale": "scale of that similarity",
}
"""What every number is."""


def differences(own: Views, reference: Views, shown: NDArray[np.bool_]) -> Differences:
    """Compare views of the same pictures.

    Args:
        own: to be judged.
        reference: what it should be.
        shown: which pixels ``[S, H, W]`` show a picture.

    Returns:
        Numbers that need two cameras are NaN of one.
    """
    depth, true = (torch.from_numpy(np.where(shown, views.depth, 0)) for views in (own, reference))
    raw, scaled = depth_errors(depth, true, "none"), depth_errors(depth, true, "median")
    poses = pose_errors(torch.from_numpy(own.extrinsics), torch.from_numpy(reference.extrinsics))
    distances, change, typical = _distances(own, reference, shown)
    focal = np.abs(own.intrinsics[:, (0, 1), (0, 1)] / reference.intrinsics[:, (0, 1), (0, 1)] - 1)
    turns, directions, apart = poses.rotation_deg.numpy(), poses.translation_deg.numpy(), distances[shown]
    numbers = {
        "depth_abs_rel": raw.abs_rel,
        "depth_abs_rel_scaled": scaled.abs_rel,
        "depth_delta125": raw.delta125,
        "rotation_deg_mean": _mean(turns),
        "rotation_deg_max": float(turns.max()) if turns.size else float("nan"),
        "direction_deg_mean": _mean(directions),
        "focal_rel_mean": _mean(focal),
        "points_mean": _mean(apart),
        "points_p95": float(np.quantile(apart, 0.95)),
        "scale": change.scale,
    }
    kept = Views(np.where(shown, reference.depth, np.float32(0)), *_rest(reference))
    return Differences(kept, numbers, distances, typical)


def _rest(views: Views) -> tuple[Map, Array, Array]:
    return views.confidence, views.extrinsics, views.intrinsics


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _distances(own: Views, reference: Views, shown: NDArray[np.bool_]) -> tuple[Map, Similarity, float]:
    """Distances of points that belong together, once one similarity has brought all of them closest."""
    points, true = ([views.points(number)[shown[number]] for number in range(len(views))] for views in (own, reference))
    target = np.concatenate(true)
    change = umeyama(np.concatenate(points), target)
    typical = float(np.linalg.norm(target - target.mean(0), axis=-1).mean()) or 1.0
    distances = np.zeros(shown.shape, dtype=np.float32)
    for number, (moving, fixed) in enumerate(zip(points, true, strict=True)):
        distances[number][shown[number]] = np.linalg.norm(change.apply(moving) - fixed, axis=-1) / typical
    return distances, change, typical


def write_differences(
    compared: Differences, own: Views, shown: NDArray[np.bool_], stems: Sequence[str], folder: Path
) -> None:
    """Write the numbers, and for every picture two PNG: depth and points.

    ``depth/``: the reference, the own, and their relative difference; ``points/``: the distance of every point from
    that of the reference. Differences are from 0.01 % (dark) to 100 % (bright), in steps of ten. ``shown`` says where
    there are pictures on the canvas, ``[S, H, W]``.
    """
    for name in (DEPTH, POINTS):
        (folder / name).mkdir()
    ends = colour_limits(compared.reference.depth[shown])
    for number, stem in enumerate(stems):
        seen, own_depth, true = shown[number], own.depth[number], compared.reference.depth[number]
        pair = [drawn(depth, seen, ends, DEPTH_COLOURS) for depth in (true, own_depth)]
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.abs(own_depth - true) / true
        side_by_side([*pair, decades(relative, seen)]).save(folder / DEPTH / f"{stem}.png")
        side_by_side([decades(compared.distances[number], seen)]).save(folder / POINTS / f"{stem}.png")
    meaning = {
        name: {"value": _or_none(value), "what": DIFFERENCE_FIGURES[name]} for name, value in compared.numbers.items()
    }
    text = json.dumps(meaning, indent=2, allow_nan=False)
    (folder / NUMBERS).write_text(text + "\n", encoding="utf-8")


def decades(shares: Map, shown: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Shares of something as colours, from 0.01 % to 100 % in steps of ten; grey where no picture is shown.

    Args:
        shares: ``[H, W]``, 1 for all of it.
        shown: where there is a picture, ``[H, W]``.

    Returns:
        Red, green and blue, ``[H, W, 3]``.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = np.log10(shares)
    return colour(np.where(shown, powers, np.nan).astype(np.float32), *ERROR_DECADES, ERROR_COLOURS)


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
