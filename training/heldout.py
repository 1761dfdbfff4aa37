"""Held-out figures of a network on rendered rooms: ``held_out(model)``; definitions in ``docs/methods.md``."""

from __future__ import annotations

import torch
from torch import Tensor

from model.geometry import decode_pose, unproject
from model.vggt import VGGT
from scenes.scene import GroundTruth
from scenes.synthetic import synthetic_scenes

AUC_DEGREES = 30


@torch.no_grad()
def held_out(model: VGGT, scenes: int = 200, views: int = 4, seed: int = 0) -> dict[str, float]:
    """Figures on scenes of the evaluation split.

    Args:
        model: in eval mode.
        scenes: how many.
        views: pictures in each.
        seed: of the scenes.

    Returns:
        ``depth_abs_rel`` and ``depth_delta_1_25`` after per-scene median alignment; medians of ``rotation_deg`` and
        ``translation_deg`` (direction) over all pairs of frames, ``auc_30`` of the larger of the two;
        ``points_error`` and ``unprojected_error``, mean distance to the true points after per-scene median scaling,
        of the point head and of the unprojected depth; ``track_px``, median error of visible tracks.
    """
    size = (model.config.img_size, model.config.img_size)
    rows = []
    for scene in synthetic_scenes(scenes, views, size, seed=seed, split="evaluation"):
        assert scene.truth is not None
        outputs = model(scene.images, scene.query_points)
        found = {name: value[0] for name, value in outputs.items() if isinstance(value, Tensor)}
        rows.append(
            _depth(found, scene.truth)
            | _pose(found, scene.truth, size)
            | _points(found, scene.truth, size)
            | _tracks(found, scene.truth)
        )
    pairs = torch.cat([row.pop("pairs") for row in rows])
    figures = {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}
    rotation, translation = pairs.unbind(-1)
    worst = pairs.amax(-1)
    figures |= {
        "rotation_deg": float(rotation.median()),
        "translation_deg": float(translation.median()),
        "auc_30": float((1 - worst / AUC_DEGREES).clamp(min=0).mean()),
    }
    return figures


def _depth(found: dict[str, Tensor], truth: GroundTruth) -> dict[str, Tensor]:
    valid = truth.depth > 0
    predicted, true = found["depth"][..., 0][valid], truth.depth[valid]
    predicted = predicted * (true.median() / predicted.median())
    ratio = torch.maximum(predicted / true, true / predicted)
    return {
        "depth_abs_rel": ((predicted - true).abs() / true).mean(),
        "depth_delta_1_25": (ratio < 1.25).float().mean(),
    }


def _pose(found: dict[str, Tensor], truth: GroundTruth, size: tuple[int, int]) -> dict[str, Tensor]:
    """Angles ``[pairs, 2]`` between predicted and true relative poses, rotation and translation direction."""
    predicted, _ = decode_pose(found["pose_enc"], size)
    first, second = torch.triu_indices(len(predicted), len(predicted), offset=1)
    angles = []
    relative = [_relative(e[first], e[second]) for e in (predicted, truth.extrinsics)]
    turn = relative[0][0] @ relative[1][0].mT
    cosine = ((turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
    angles.append(cosine.arccos())
    angles.append(torch.nn.functional.cosine_similarity(relative[0][1], relative[1][1], dim=-1).clamp(-1, 1).arccos())
    return {"pairs": torch.stack(angles, dim=-1).rad2deg()}


def _relative(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    rotation = b[..., :3] @ a[..., :3].mT
    return rotation, b[..., 3] - (rotation @ a[..., 3:])[..., 0]


def _points(found: dict[str, Tensor], truth: GroundTruth, size: tuple[int, int]) -> dict[str, Tensor]:
    extrinsics, intrinsics = decode_pose(found["pose_enc"], size)
    unprojected = unproject(found["depth"][..., 0], extrinsics, intrinsics)
    valid = truth.depth > 0
    return {
        "points_error": _distance(found["world_points"][valid], truth.world_points[valid]),
        "unprojected_error": _distance(unprojected[valid], truth.world_points[valid]),
    }


def _distance(predicted: Tensor, true: Tensor) -> Tensor:
    scale = true.norm(dim=-1).median() / predicted.norm(dim=-1).median()
    return (predicted * scale - true).norm(dim=-1).mean()


def _tracks(found: dict[str, Tensor], truth: GroundTruth) -> dict[str, Tensor]:
    assert truth.tracks is not None
    assert truth.visible is not None
    error = (found["track"] - truth.tracks).norm(dim=-1)[1:][truth.visible[1:]]
    return {"track_px": error.median() if len(error) else torch.tensor(0.0)}
