"""To the nearest, with the scales of the largest weights; and with scales of the least squared error."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from vggtkit.quant.grid import Grid, grid_of, with_codes
from vggtkit.quant.quantizer import QuantizedTensor, quantize
from vggtkit.quant.rounding.base import NEAREST, ROUNDINGS, Rounding
from vggtkit.quant.scales import stored_scales

FRACTIONS = tuple(1 - 0.04 * step for step in range(16))
"""Of the scale that clips nothing; those below 0.4 never had the least error."""


class Nearest(Rounding):
    """As formats are defined, see `vggtkit.quant.quantize`."""

    key, title = NEAREST, "to the nearest"

    def round(self, weight: Tensor, key: str, moments: Tensor | None = None, name: str = "") -> QuantizedTensor:  # noqa: ARG002
        """As `Rounding.round`."""
        return quantize(weight, key, name)


class LeastError(Rounding):
    """Scales that clip the largest weights where this makes the squared error of the whole block less.

    A scale is one of `FRACTIONS` of the usual one; the zero point stays. Two-level formats choose their multipliers so
    already and are left as they are.

    Source: Nagel et al., "A White Paper on Neural Network Quantization", 2021 (MSE range setting).
    """

    key, title = "mse", "to the nearest, scales by the squared error"

    def round(self, weight: Tensor, key: str, moments: Tensor | None = None, name: str = "") -> QuantizedTensor:
        """As `Rounding.round`; squared errors of columns count as their second moments say, where they are known."""
        q = quantize(weight, key, name)
        if q.scales is None or q.multipliers is not None:
            return q
        matrix = weight.detach().float().reshape(q.shape[0], -1)
        importance = torch.ones_like(matrix[:1]) if moments is None else _of_columns(moments, len(matrix))
        best = q.scales
        least = _errors(matrix, importance, q)
        for fraction in FRACTIONS[1:]:
            scales = stored_scales(q.scales.float() * fraction, q.format.code_range[1])
            if scales.dtype != q.scales.dtype:  # too small for FP16: all scales of a weight have one precision
                continue
            errors = _errors(matrix, importance, replace(q, scales=scales))
            better = errors < least
            best, least = torch.where(better, scales, best), torch.where(better, errors, least)
        chosen = replace(q, scales=best)
        return with_codes(chosen, grid_of(chosen).codes(matrix))


def _of_columns(moments: Tensor, out: int) -> Tensor:
    """How much an error in each weight counts, FP32 ``[out, in]``; 1 on average, so that dead inputs still count."""
    diagonal = moments.diagonal(dim1=1, dim2=2)
    scaled = diagonal / diagonal.mean(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return (scaled + 1e-3).float().repeat_interleave(out // len(moments), dim=0)


def _errors(matrix: Tensor, importance: Tensor, q: QuantizedTensor) -> Tensor:
    """Weighted squared error of what shares a scale, in the shape of the scales."""
    assert q.scales is not None
    grid: Grid = grid_of(q)
    squared = (grid.values(grid.codes(matrix)) - matrix).square_() * importance
    if q.format.granularity == "tensor":
        return squared.sum().view(1)
    if q.format.group_size is None:
        return squared.sum(1)
    padded = torch.nn.functional.pad(squared, (0, -math.prod(q.shape[1:]) % q.format.group_size))
    return padded.view(len(matrix), -1, q.format.group_size).sum(2)


ROUNDINGS.register(Nearest.key, Nearest())
ROUNDINGS.register(LeastError.key, LeastError())
