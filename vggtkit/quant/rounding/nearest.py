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

    def round(
        self,
        weight: Tensor,
        key: str,
        moments: Tensor | None = None,  # noqa: ARG002
        name: str = "",
        channels: Tensor | None = None,  # noqa: ARG002
    ) -> QuantizedTensor:
        """As `Rounding.round`."""
        return quantize(weight, key, name)


class LeastError(Rounding):
    """Scales that clip the largest weights where this makes the squared error of the whole block less.

    A scale is one of `FRACTIONS` of the usual one; the zero point stays. Two-level formats choose their multipliers so
    already and are left as they are.

    Source: Nagel et al., "A White Paper on Neural Network Quantization", 2021 (MSE range setting).
    """

    key, title = "mse", "to the nearest, scales by the squared error"

    def round(
        self,
        weight: Tensor,
        key: str,
        moments: Tensor | None = None,  # noqa: ARG002
        name: str = "",
        channels: Tensor | None = None,  # noqa: ARG002
    ) -> QuantizedTensor:
        """As `Rounding.round`."""
        q = quantize(weight, key, name)
        if q.scales is None or q.multipliers is not None:
            return q
        matrix = weight.detach().float().reshape(q.shape[0], -1)
        best = q.scales
        least = _errors(matrix, q)
        for fraction in FRACTIONS[1:]:
            scales = stored_scales(q.scales.float() * fraction, q.format.code_range[1])
            if scales.dtype != q.scales.dtype:  # too small for FP16: all scales of a weight have one precision
                continue
            errors = _errors(matrix, replace(q, scales=scales))
            better = errors < least
            best, least = torch.where(better, scales, best), torch.where(better, errors, least)
        chosen = replace(q, scales=best)
        return with_codes(chosen, grid_of(chosen).codes(matrix))


def _errors(matrix: Tensor, q: QuantizedTensor) -> Tensor:
    """Squared error of what shares a scale, in the shape of the scales."""
    assert q.scales is not None
    grid: Grid = grid_of(q)
    squared = (grid.values(grid.codes(matrix)) - matrix).square_()
    if q.format.granularity == "tensor":
        return squared.sum().view(1)
    if q.format.group_size is None:
        return squared.sum(1)
    padded = torch.nn.functional.pad(squared, (0, -math.prod(q.shape[1:]) % q.format.group_size))
    return padded.view(len(matrix), -1, q.format.group_size).sum(2)


ROUNDINGS.register(Nearest.key, Nearest())
ROUNDINGS.register(LeastError.key, LeastError())
