"""How far cameras are from the truth: relative poses over all pairs of views, as VGGT reports them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PoseErrors(NamedTuple):
    """Angles between predicted and true relative poses, one per pair of views.

    Attributes:
        rotation_deg: ``[pairs]``, 0 to 180.
        translation_deg: ``[pairs]``, 0 to 90: between the lines along the translations, their sign left out.
    """

    rotation_deg: Tensor
    translation_deg: Tensor


def pose_errors(predicted: Tensor, true: Tensor) -> PoseErrors:
    """Relative pose errors over all pairs of views i < j, of ``E_i inv(E_j)``.

    Neither the world frame nor the scale of either side matters. As published, a translation and its opposite
    count as the same direction, and a translation of length 0 has no direction, which is an error of 90 degrees.

    Args:
        predicted: world-to-camera ``[S, 3, 4]``.
        true: the same, of the same shape.

    Returns:
        float64 angles of ``S (S - 1) / 2`` pairs, none for a single view; NaN where a pose is not finite.

    Raises:
        ValueError: the shapes differ or are not ``[S, 3, 4]``.

    Source: ``evaluation/test_co3d.py`` of Wang et al., "VGGT", CVPR 2025. The angles are taken with ``atan2``, which
    equals its arc cosine but keeps its digits near 0.

    >>> true = torch.tensor([[[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]])
    >>> predicted = true.clone()
    >>> predicted[1, :, 3] = torch.tensor([3.0, 3.0, 0.0])
    >>> errors = pose_errors(predicted, true)
    >>> round(errors.rotation_deg.item(), 3), round(errors.translation_deg.item(), 3)
    (0.0, 45.0)
    """
    if predicted.shape != true.shape or true.ndim != 3 or true.shape[1:] != (3, 4):
        msg = f"expected two times [S, 3, 4], got {tuple(predicted.shape)} and {tuple(true.shape)}"
        raise ValueError(msg)
    first, second = torch.triu_indices(len(true), len(true), offset=1, device=true.device)
    (r, t), (r_true, t_true) = (_relative(e.double()[first], e.double()[second]) for e in (predicted, true))
    return PoseErrors(_turn(r @ r_true.mT).rad2deg(), _between_lines(t, t_true).rad2deg())


def accuracy_below(errors_deg: Tensor, threshold_deg: float) -> float:
    """RRA or RTA: the fraction of errors strictly below a threshold; NaN without errors or with a NaN among them.

    Args:
        errors_deg: ``[pairs]`` angles.
        threshold_deg: in degrees.

    >>> accuracy_below(torch.tensor([1.0, 5.0, 7.0, 2.0]), 5)
    0.5
    """
    if not len(errors_deg) or errors_deg.isnan().any():
        return float("nan")
    return float((errors_deg < threshold_deg).double().mean())


def pose_auc(errors: PoseErrors, threshold_deg: int) -> float:
    """AUC@threshold: the mean over k = 1, 2, ... threshold of the fraction of pairs whose error is below k degrees.

    A pair's error is the larger of rotation and translation. Published is a histogram in bins of one degree and the
    mean of its cumulative sum; so a pair at e degrees earns ``1 - floor(e) / threshold``, and as the last bin is
    closed, one at exactly the threshold still ``1 / threshold``.

    Args:
        errors: of all pairs.
        threshold_deg: whole degrees, at least 1.

    Returns:
        0 to 1; NaN without pairs or with a NaN among them.

    Source: ``calculate_auc_np`` in ``evaluation/test_co3d.py`` of VGGT and ``util/metric.py`` of Wang et al.,
    "PoseDiffusion", ICCV 2023.

    >>> errors = PoseErrors(torch.tensor([0.2, 15.5]), torch.tensor([0.9, 3.0]))
    >>> pose_auc(errors, 30)
    0.75
    """
    worst = torch.maximum(*errors)
    if not len(worst) or worst.isnan().any():
        return float("nan")
    missed = torch.where(worst == threshold_deg, threshold_deg - 1, worst.floor())
    return float(1 - (missed / threshold_deg).clamp(max=1).mean())


def _relative(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation and translation of ``a inv(b)``."""
    rotation = a[..., :3] @ b[..., :3].mT
    return rotation, a[..., 3] - (rotation @ b[..., 3:])[..., 0]


def _turn(rotation: Tensor) -> Tensor:
    """Angles ``[...]`` in radians of rotations ``[..., 3, 3]``."""
    skew = rotation - rotation.mT
    sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1).norm(dim=-1)
    return torch.atan2(sine, rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)


def _between_lines(a: Tensor, b: Tensor) -> Tensor:
    """Angles ``[...]`` in radians, 0 to pi / 2, between the lines along vectors ``[..., 3]``."""
    angle = torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1).abs())
    without_direction = (a == 0).all(-1) | (b == 0).all(-1)
    return torch.where(without_direction & angle.isfinite(), torch.pi / 2, angle)
