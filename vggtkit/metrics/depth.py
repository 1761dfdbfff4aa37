"""How far depth maps are from the truth, after the alignment that a network without a scale needs."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting

Alignment = Literal["median", "scale_shift", "none"]
DELTA_LIMIT = 1.25


class DepthErrors(NamedTuple):
    """Errors of a scene's depth over all pixels of all views that have a true one.

    Attributes:
        abs_rel: mean of ``|d - d_true| / d_true``.
        rmse: root of the mean of ``(d - d_true)**2``, in scene units.
        delta125: fraction of pixels with ``max(d / d_true, d_true / d) < 1.25``.
    """

    abs_rel: float
    rmse: float
    delta125: float


def get_alignment(name: str) -> Alignment:
    """An alignment by name.

    Raises:
        InputError: not known.

    >>> get_alignment("median")
    'median'
    """
    known: tuple[Alignment, ...] = get_args(Alignment)
    for alignment in known:
        if name == alignment:
            return alignment
    raise InputError(f"{setting('depth_alignment', name)}: choose median, scale_shift or none")


def depth_errors(predicted: Tensor, true: Tensor, alignment: Alignment = "median") -> DepthErrors:
    """AbsRel, RMSE and delta < 1.25 after one alignment for all views together.

    A pixel counts where the true depth is positive and finite.

    Args:
        predicted: any shape, usually ``[S, H, W]``.
        true: the same shape; 0 = none.
        alignment: ``median`` multiplies by ``median(true) / median(predicted)``; ``scale_shift`` puts a and b of the
            least squares of ``a * predicted + b - true``; ``none`` compares as given.

    Returns:
        NaN throughout where nothing is valid, a valid pixel is predicted NaN or infinite, or the predicted median is
        not positive under ``median``.

    Raises:
        ValueError: the shapes differ, or an unknown alignment.

    Source: Eigen, Puhrsch and Fergus, "Depth Map Prediction from a Single Image", NeurIPS 2014; the ratio of medians
    as in Zhou et al., "Unsupervised Learning of Depth and Ego-Motion from Video", CVPR 2017; scale and shift as in
    Ranftl et al., "Towards Robust Monocular Depth Estimation", PAMI 2022, but of depth, not of its inverse.

    >>> import torch
    >>> true = torch.tensor([1.0, 2.0, 4.0, 0.0])
    >>> depth_errors(torch.tensor([3.0, 4.0, 8.0, 9.0]), true)
    DepthErrors(abs_rel=0.16666666666666666, rmse=0.28867513459481287, delta125=0.6666666666666666)
    """
    if predicted.shape != true.shape:
        msg = f"predicted depth has shape {tuple(predicted.shape)}, the true one {tuple(true.shape)}"
        raise ValueError(msg)
    d_true: NDArray[np.float64] = true.detach().cpu().double().numpy()
    valid = (d_true > 0) & np.isfinite(d_true)
    d, d_true = predicted.detach().cpu().double().numpy()[valid], d_true[valid]
    if not d.size or not np.isfinite(d).all():
        return DepthErrors(np.nan, np.nan, np.nan)
    d = _align(d, d_true, alignment)
    error = d - d_true
    if not np.isfinite(error).all():
        return DepthErrors(np.nan, np.nan, np.nan)
    # Without quotients: after a shift a depth may be 0 or negative, and is then no match.
    near = (d < DELTA_LIMIT * d_true) & (d_true < DELTA_LIMIT * d)
    return DepthErrors(
        abs_rel=float((np.abs(error) / d_true).mean()),
        rmse=float(np.sqrt((error * error).mean())),
        delta125=float(near.mean()),
    )


def _align(d: NDArray[np.float64], d_true: NDArray[np.float64], alignment: Alignment) -> NDArray[np.float64]:
    if alignment == "none":
        return d
    if alignment == "median":
        median = np.median(d)
        return d * (np.median(d_true) / median if median > 0 else np.nan)
    if alignment == "scale_shift":
        centred = d - d.mean()
        spread = (centred * centred).sum()
        slope = (centred * d_true).sum() / spread if spread > 0 else 0.0
        aligned: NDArray[np.float64] = slope * centred + d_true.mean()
        return aligned
    msg = f"unknown alignment {alignment!r}: one of median, scale_shift, none"
    raise ValueError(msg)
