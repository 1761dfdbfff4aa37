"""Training losses of the four heads, after Wang et al., "VGGT", CVPR 2025, section 3.3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.geometry import encode_pose

CONFIDENCE_WEIGHT = 0.2
ITERATION_DECAY = 0.8
ROTATION_WEIGHT = 4.0  # a quaternion moves by half the angle, and poses differ by a few tenths of a radian
TRACK_SCALE = 16.0  # pixels of error that cost as much as one unit of the other losses
CONFIDENT_WITHIN = 2.0  # pixels
WEIGHTS = {"camera": 2.0, "depth": 1.0, "points": 1.0, "track": 0.5, "visibility": 0.1}


def losses(outputs: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """One scalar per head, unweighted, for outputs of the network and a rendered batch.

    Args:
        outputs: what `model.VGGT` returns for the batch, with query points.
        truth: what `scenes.render_batch` returns.
    """
    found = {
        "camera": camera_loss(outputs["pose_enc_list"], truth),
        "depth": _confident_l1(outputs["depth"], truth["depth"][..., None], outputs["depth_conf"]),
        "points": _confident_l1(outputs["world_points"], truth["world_points"], outputs["world_points_conf"]),
    }
    if "track" in outputs:
        found |= track_losses(outputs, truth)
    return found


def camera_loss(poses: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """L1 between pose encodings, all iterations, later ones weighing more; rotations by `ROTATION_WEIGHT`."""
    size = truth["images"].shape[-2:]
    target = encode_pose(truth["extrinsics"], truth["intrinsics"], (size[0], size[1]))
    weight = torch.tensor([1.0] * 3 + [ROTATION_WEIGHT] * 4 + [1.0] * 2)
    last = len(poses) - 1
    terms = [ITERATION_DECAY ** (last - i) * ((p - target).abs() * weight).mean() for i, p in enumerate(poses)]
    return torch.stack(terms).sum()


def track_losses(outputs: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pixel error of visible tracks (all iterations), and cross-entropy of visibility and confidence."""
    visible = truth["visible"].float()
    errors = [(track - truth["tracks"]).abs().sum(-1).clamp(max=64) for track in outputs["track_list"]]
    last = len(errors) - 1
    moving = sum(ITERATION_DECAY ** (last - i) * (e * visible).sum() / visible.sum() for i, e in enumerate(errors))
    close = ((errors[-1].detach() < CONFIDENT_WITHIN) & truth["visible"]).float()
    return {
        "track": moving / TRACK_SCALE,
        "visibility": F.binary_cross_entropy(outputs["vis"], visible) + F.binary_cross_entropy(outputs["conf"], close),
    }


def _confident_l1(predicted: Tensor, target: Tensor, confidence: Tensor) -> Tensor:
    """``c * |error| - 0.2 * log c``, which makes ``c`` large where the error is small."""
    error = (predicted - target).abs().sum(-1)
    return (confidence * error - CONFIDENCE_WEIGHT * confidence.log()).mean()
