"""Training losses of the four heads, after Wang et al., "VGGT", CVPR 2025, section 3.3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.geometry import encode_pose

CONFIDENCE_WEIGHT = 0.2
NEAREST = 1e-3
ITERATION_DECAY = 0.8
ROTATION_WEIGHT = 4.0  # a quaternion moves by half the angle, and poses differ by a few tenths of a radian
TRACK_SCALE = 16.0  # pixels of error that cost as much as one unit of the other losses
CONFIDENT_WITHIN = 2.0  # pixels
WEIGHTS = {"camera": 1.0, "depth": 2.0, "points": 1.0, "track": 0.3, "visibility": 0.05}


def dense_losses(
    depth: tuple[Tensor, Tensor], points: tuple[Tensor, Tensor], truth: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Losses of the depth and point heads: relative errors, weighed by the predicted confidence.

    Args:
        depth: values ``[B, S, H, W, 1]`` and confidences ``[B, S, H, W]``, as `DPTHead.predict` gives them.
        points: the same of the point head, values ``[B, S, H, W, 3]``.
        truth: what `scenes.render_batch` returns.
    """
    log_ratio = (depth[0][..., 0].clamp(min=NEAREST) / truth["depth"]).log().abs()
    distance = (points[0] - truth["world_points"]).abs().sum(-1) / truth["world_points"].norm(dim=-1)
    return {"depth": _confident(log_ratio, depth[1]), "points": _confident(distance, points[1])}


def camera_loss(poses: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """L1 between pose encodings, all iterations, later ones weighing more; rotations by `ROTATION_WEIGHT`."""
    size = truth["images"].shape[-2:]
    target = encode_pose(truth["extrinsics"], truth["intrinsics"], (size[0], size[1]))
    weight = torch.tensor([1.0] * 3 + [ROTATION_WEIGHT] * 4 + [1.0] * 2)
    last = len(poses) - 1
    terms = [ITERATION_DECAY ** (last - i) * ((p - target).abs() * weight).mean() for i, p in enumerate(poses)]
    return torch.stack(terms).sum()


def track_losses(
    tracks: list[Tensor], visibility: Tensor, confidence: Tensor, truth: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Pixel error of visible tracks (all iterations), and cross-entropy of visibility and confidence."""
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
