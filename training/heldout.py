"""Held-out figures of a network, on rendered rooms by ``held_out(model)``; definitions in ``docs/methods.md``."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from vggtkit.metrics.depth import depth_errors
from vggtkit.metrics.geometry import track_error
from vggtkit.metrics.points import scaled_distance
from vggtkit.metrics.pose import PoseErrors, pose_auc, pose_errors
from vggtkit.model.geometry import decode_pose, unproject
from vggtkit.model.vggt import VGGT
from vggtkit.scenes.scene import GroundTruth, Scene
from vggtkit.scenes.synthetic import synthetic_scenes

AUC_DEGREES = 30


def held_out(model: VGGT, scenes: int = 200, views: int = 4, seed: int = 0) -> dict[str, float]:
    """Figures on scenes of the evaluation split.

    Args:
        model: in eval mode.
        scenes: how many.
        views: pictures in each.
        seed: of the scenes.

    Returns:
        As `figures_on`.
    """
    size = (model.config.img_size, model.config.img_size)
    return figures_on(model, synthetic_scenes(scenes, views, size, seed=seed, split="evaluation"))


@torch.no_grad()
def figures_on(model: VGGT, scenes: Iterable[Scene]) -> dict[str, float]:
    """Figures on scenes whose truth is known.

    Args:
        model: in eval mode.
        scenes: with cameras, depth and points; tracks where they are known.

    Returns:
        ``depth_abs_rel`` and ``depth_delta_1_25`` after per-scene median alignment; medians of ``rotation_deg`` and
        ``translation_deg`` (direction, up to sign) over all pairs of frames of all scenes, and their ``auc_30``;
        ``points_error`` and ``unprojected_error``, mean distance to the true points after per-scene median scaling,
        of the point head and of the unprojected depth; ``track_px``, median error of visible tracks, averaged over
        the scenes that have any. NaN where an output is not finite, or nothing is known.
    """
    rows, poses, tracks = [], [], []
    for scene in scenes:
        truth = scene.truth
        assert truth is not None
        size = (scene.images.shape[-2], scene.images.shape[-1])
        outputs = model(scene.images, scene.query_points)
        predicted = {name: value[0] for name, value in outputs.items() if isinstance(value, Tensor)}
        rows.append(_surfaces(predicted, truth, size))
        poses.append(pose_errors(decode_pose(predicted["pose_enc"], size)[0], truth.extrinsics))
        if truth.tracks is not None and truth.visible is not None and truth.visible[1:].any():
            tracks.append(track_error(predicted["track"], truth.tracks, truth.visible))
    errors = PoseErrors(*(torch.cat(angles) for angles in zip(*poses, strict=True)))
    return {name: _mean([row[name] for row in rows]) for name in rows[0]} | {
        "track_px": _mean(tracks),
        "rotation_deg": float(np.median(errors.rotation_deg)) if len(errors.rotation_deg) else np.nan,
        "translation_deg": float(np.median(errors.translation_deg)) if len(errors.translation_deg) else np.nan,
        "auc_30": pose_auc(errors, AUC_DEGREES),
    }


def _surfaces(predicted: dict[str, Tensor], truth: GroundTruth, size: tuple[int, int]) -> dict[str, float]:
    depth, valid = predicted["depth"][..., 0], truth.depth > 0
    errors = depth_errors(depth, truth.depth)
    unprojected = unproject(depth, *decode_pose(predicted["pose_enc"], size))
    return {
        "depth_abs_rel": errors.abs_rel,
        "depth_delta_1_25": errors.delta125,
        "points_error": scaled_distance(predicted["world_points"][valid], truth.world_points[valid]),
        "unprojected_error": scaled_distance(unprojected[valid], truth.world_points[valid]),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else np.nan
