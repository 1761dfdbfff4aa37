"""Training losses of the four heads, after Wang et al., "VGGT", CVPR 2025, section 3.3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.correspondence import UNSEEN, displacement_to_first
from vggtkit.model.geometry import encode_pose, rotation_from_xyzw

CONFIDENCE_WEIGHT = 0.2
PLAIN_WEIGHT = 2.0  # of the error of depth by itself: weighed by confidence, hard pixels hardly count
NEAREST = 1e-3
ITERATION_DECAY = 0.8
ROTATION_WEIGHT = 4.0  # a quaternion moves by half the angle, and poses differ by a few tenths of a radian
TRACK_SCALE = 16.0  # pixels of error that cost as much as one unit of the other losses
CONFIDENT_WITHIN = 2.0  # pixels
DISPLACEMENT_SCALE = 16.0  # pixels, likewise
LARGEST_SINE = 0.999  # of half an angle; the arc sine has no finite slope at 1
WEIGHTS = {
    "match": 0.3,
    "displacement": 0.5,
    "coarse_points": 0.5,
    "coarse_depth": 0.5,
    "camera": 4.5,
    "relative": 1.0,
    "depth": 2.0,
    "points": 1.0,
    "feature": 0.3,
    "track": 0.5,
    "visibility": 0.1,
}


def match_loss(logits: Tensor, target: Tensor, first: int) -> Tensor:
    """Cross-entropy of one head's attention from each patch to the patch of another view that shows the same place.

    Correspondence is what relative pose is made of, and hardly found from the loss of a pose alone.

    Args:
        logits: ``[B, S * T, S * T]`` of a global block, T tokens a view.
        target: `correspondence.matching_patches`, ``[B, S, S, P]``.
        first: index of the first patch token in a view.
    """
    views = target.shape[1]
    between = (
        logits.float().unflatten(1, (views, -1)).unflatten(3, (views, -1))[:, :, first:, :, first:].transpose(2, 3)
    )
    others = ~torch.eye(views, dtype=torch.bool)
    return F.cross_entropy(between[:, others].flatten(0, 2), target[:, others].flatten(), ignore_index=UNSEEN)


def feature_loss(maps: Tensor, truth: dict[str, Tensor], stride: int) -> Tensor:
    """Cross-entropy of the tracker's correlation of a query with every cell of another view.

    Args:
        maps: normalised features ``[B, S, C, h, w]``.
        truth: what `vggtkit.scenes.render_batch` returns.
        stride: pixels per cell.
    """
    channels, height, width = maps.shape[2:]
    x, y = (truth["tracks"] / stride).round().long().unbind(-1)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    cells = maps.flatten(3).float()
    index = (y * width + x)[:, :, None].expand(-1, -1, channels, -1)
    query = cells[:, :1].gather(3, index[:, :1])
    logits = query.transpose(2, 3) @ cells[:, 1:] / channels**0.5
    target = torch.where(truth["visible"], y * width + x, UNSEEN)[:, 1:]
    return F.cross_entropy(logits.flatten(0, 2), target.flatten(), ignore_index=UNSEEN)


def probe_losses(maps: list[Tensor], truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """Errors of the linear probes, averaged over the depths that they read.

    Args:
        maps: `probes.Probes`' output, ``[B, S, h, w, 6]`` per depth: displacement to the first view (pixels over
            `DISPLACEMENT_SCALE`), point and log depth.
        truth: what `vggtkit.scenes.render_batch` returns.
    """
    step = truth["depth"].shape[-1] // maps[0].shape[3]
    middles = slice(step // 2, None, step)
    points, depth = truth["world_points"][:, :, middles, middles], truth["depth"][:, :, middles, middles]
    displacement, near = displacement_to_first(truth, step)
    near = near[:, 1:].float()
    losses = {name: maps[0].new_zeros(()) for name in ("displacement", "coarse_points", "coarse_depth")}
    for one in maps:
        moved = (one[:, 1:, ..., :2] - displacement[:, 1:] / DISPLACEMENT_SCALE).abs().sum(-1)
        losses["displacement"] += (moved * near).sum() / near.sum().clamp(min=1) / len(maps)
        losses["coarse_points"] += ((one[..., 2:5] - points).abs().sum(-1) / points.norm(dim=-1)).mean() / len(maps)
        losses["coarse_depth"] += (one[..., 5] - depth.log()).abs().mean() / len(maps)
    return losses


def depth_loss(depth: Tensor, confidence: Tensor, truth: dict[str, Tensor]) -> Tensor:
    """Error of log depth, by itself and weighed by the predicted confidence.

    Args:
        depth: ``[B, S, H, W, 1]``, as `DPTHead.predict` gives it.
        confidence: ``[B, S, H, W]``.
        truth: what `vggtkit.scenes.render_batch` returns.
    """
    error = (depth[..., 0].clamp(min=NEAREST) / truth["depth"]).log().abs()
    return _confident(error, confidence) + PLAIN_WEIGHT * error.mean()


def points_loss(points: Tensor, confidence: Tensor, truth: dict[str, Tensor]) -> Tensor:
    """As `depth_loss` for points ``[B, S, H, W, 3]``: their error relative to their distance."""
    distance = (points - truth["world_points"]).abs().sum(-1) / truth["world_points"].norm(dim=-1)
    return _confident(distance, confidence)


def camera_loss(poses: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """L1 between pose encodings, all iterations, later ones weighing more; rotations by `ROTATION_WEIGHT`.

    Args:
        poses: encodings ``[B, S, 9]`` of every iteration.
        truth: what `vggtkit.scenes.render_batch` returns.
    """
    size = truth["images"].shape[-2:]
    target = encode_pose(truth["extrinsics"], truth["intrinsics"], (size[0], size[1]))
    weight = torch.tensor([1.0] * 3 + [ROTATION_WEIGHT] * 4 + [1.0] * 2)
    last = len(poses) - 1
    terms = [ITERATION_DECAY ** (last - i) * ((p - target).abs() * weight).mean() for i, p in enumerate(poses)]
    return torch.stack(terms).sum()


def relative_loss(pose: Tensor, extrinsics: Tensor) -> Tensor:
    """Mean over all pairs of views of the rotation's angle and half the angle of the direction of translation, radians.

    An L1 loss on encodings is small already at a pose that is of no use: this weighs by what cameras are judged by.

    Args:
        pose: encodings ``[B, S, 9]``.
        extrinsics: truth, ``[B, S, 3, 4]``.
    """
    rotation, translation = rotation_from_xyzw(F.normalize(pose[..., 3:7], dim=-1)), pose[..., :3]
    estimated, true = _relative(rotation, translation), _relative(extrinsics[..., :3], extrinsics[..., 3])
    turned = _angle((estimated[0] - true[0]).flatten(-2), 2 * 2**0.5)
    directions = F.normalize(estimated[1], dim=-1, eps=1e-4) - F.normalize(true[1], dim=-1)
    return turned.mean() + 0.5 * _angle(directions, 2.0).mean()


def _relative(rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
    """``E_i inv(E_j)`` of all pairs i < j."""
    i, j = torch.triu_indices(rotation.shape[1], rotation.shape[1], 1)
    turn = rotation[:, i] @ rotation[:, j].transpose(-1, -2)
    return turn, translation[:, i] - (turn @ translation[:, j, :, None]).squeeze(-1)


def _angle(difference: Tensor, diameter: float) -> Tensor:
    """Angle between two vectors, or of a rotation, from the length of their difference (a chord)."""
    chord = difference.square().sum(-1).add(1e-8).sqrt()
    return 2 * (chord / diameter).clamp(max=LARGEST_SINE).asin()


def track_losses(
    tracks: list[Tensor], visibility: Tensor, confidence: Tensor, truth: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Pixel error of visible tracks (all iterations), and cross-entropy of visibility and confidence.

    Args:
        tracks: places in pixels, ``[B, S, N, 2]`` of every iteration.
        visibility: probabilities ``[B, S, N]``.
        confidence: probabilities ``[B, S, N]`` that the last place is right within `CONFIDENT_WITHIN` pixels.
        truth: what `vggtkit.scenes.render_batch` returns.
    """
    visible = truth["visible"].float()
    errors = [(track - truth["tracks"]).abs().sum(-1).clamp(max=64) for track in tracks]
    last = len(errors) - 1
    terms = (ITERATION_DECAY ** (last - i) * (e * visible).sum() / visible.sum() for i, e in enumerate(errors))
    moving = sum(terms, start=visible.new_zeros(()))
    close = ((errors[-1].detach() < CONFIDENT_WITHIN) & truth["visible"]).float()
    return {
        "track": moving / TRACK_SCALE,
        "visibility": F.binary_cross_entropy(visibility, visible) + F.binary_cross_entropy(confidence, close),
    }


def _confident(error: Tensor, confidence: Tensor) -> Tensor:
    """``c * error - 0.2 * log c``, which makes ``c`` large where the error is small."""
    return (confidence * error - CONFIDENCE_WEIGHT * confidence.log()).mean()
