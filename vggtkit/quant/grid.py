"""The numbers that a weight may take once its scales are given, for codes that are not the nearest.

Scales, zero points and multipliers stay as they are, so files, packed weights and integer kernels know nothing of how
the codes came about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vggtkit.quant.blocks import CutWeight, unblocked
from vggtkit.quant.formats import Format
from vggtkit.quant.packing import pack_codes, unpack_codes
from vggtkit.quant.quantizer import QuantizedTensor
from vggtkit.quant.two_level import scale_groups


@dataclass(frozen=True, eq=False)
class Grid:
    """Values ``(code - zero) * step`` for every weight of a matrix.

    Attributes:
        steps: FP32 ``[out, in]``, more than 0.
        zeros: FP32, of the same shape; 0 in symmetric formats.
        low: the smallest code; of every row its own as ``[out, 1]``.
        high: the largest, likewise.
    """

    steps: Tensor
    zeros: Tensor
    low: int | Tensor
    high: int | Tensor

    def codes(self, weight: Tensor) -> Tensor:
        """The nearest codes, FP32 in the shape of ``weight``."""
        return (weight / self.steps + self.zeros).round_().clamp_(self.low, self.high)  # type: ignore[arg-type]

    def values(self, codes: Tensor) -> Tensor:
        """What codes of the shape of ``weight`` stand for, FP32 of that shape."""
        return (codes - self.zeros) * self.steps

    def rows(self, rows: slice | Tensor) -> Grid:
        """The grid of some rows, by their numbers ``[n]`` or a slice."""
        edges = (edge[rows] if isinstance(edge, Tensor) else edge for edge in (self.low, self.high))
        return Grid(self.steps[rows], self.zeros[rows], *edges)


def stacked(grids: Sequence[Grid]) -> Grid:
    """Grids of the same number of columns, one below the other.

    >>> one, other = Grid(torch.ones(1, 2), torch.zeros(1, 2), -8, 7), Grid(torch.ones(1, 2), torch.ones(1, 2), 0, 3)
    >>> stacked([one, other]).codes(torch.full((2, 2), 9.0))
    tensor([[7., 7.],
            [3., 3.]])
    """

    def of_rows(edges: Sequence[int | Tensor]) -> Tensor:
        columns = [torch.as_tensor(edge).expand(len(grid.steps), 1) for edge, grid in zip(edges, grids, strict=True)]
        return torch.cat(columns).to(grids[0].steps)

    low, high = of_rows([grid.low for grid in grids]), of_rows([grid.high for grid in grids])
    return Grid(torch.cat([grid.steps for grid in grids]), torch.cat([grid.zeros for grid in grids]), low, high)


def grid_of(q: QuantizedTensor) -> Grid:
    """The grid that a quantised weight lies on.

    Args:
        q: in a format with codes.

    Raises:
        ValueError: a floating-point format.

    >>> from vggtkit.quant.quantizer import quantize
    >>> grid_of(quantize(torch.tensor([[7.0, -3.5]]), "int4_group_32")).steps
    tensor([[1., 1.]])
    """
    if q.scales is None:
        raise ValueError(f"{q.format.key} has no codes to choose")
    out, columns = q.shape[0], math.prod(q.shape[1:])
    scales = q.scales.float().view(len(q.scales), -1)
    if q.multipliers is not None:
        count = -(-columns // _group(q))
        unpacked = unpack_codes(q.multipliers, q.format.multiplier_bits, out * count, signed=False)
        scales = scales * (unpacked.float().view(out, count) + 1)
    zeros = torch.zeros_like(scales) if q.zero_points is None else q.zero_points.float().view(scales.shape)
    return Grid(_spread(scales, q, out, columns), _spread(zeros, q, out, columns), *q.format.code_range)


def grid_for(cut: CutWeight, fmt: Format, scaled: CutWeight | None = None) -> Grid:
    """The grid that rounding a weight to the nearest would lie on, without rounding it.

    Args:
        cut: the weight.
        fmt: a format with codes.
        scaled: the weight whose scales are taken, where ``cut`` is some of its rows and all share one scale; ``cut``
            itself by default.

    >>> from vggtkit.quant.formats import get_format
    >>> grid_for(CutWeight(torch.tensor([[7.0, -3.5]])), get_format("int4_group_32")).steps
    tensor([[1., 1.]])
    """
    scaled, blocks = scaled or cut, cut.blocks(fmt)
    zeros: Tensor | None = None
    if fmt.two_level:
        scales, multipliers = scale_groups(scaled.blocks(fmt), scaled.magnitudes(fmt), fmt)
        steps = (scales.float()[:, None] * multipliers)[..., None]
    else:
        scales, zeros = scaled.scales(fmt)
        steps = scales.float()
    zeros = torch.zeros_like(steps) if zeros is None else zeros
    matrix = cut.shape[0], math.prod(cut.shape[1:])
    steps, zeros = (unblocked(values.expand_as(blocks), matrix) for values in (steps, zeros))
    return Grid(steps, zeros, *fmt.code_range)


def codes_of(q: QuantizedTensor) -> Tensor:
    """The codes of a quantised weight as a matrix, FP32 ``[out, in]``.

    >>> from vggtkit.quant.quantizer import quantize
    >>> codes_of(quantize(torch.tensor([[7.0, -3.4]]), "int4_group_32"))
    tensor([[ 7., -3.]])
    """
    codes = unpack_codes(q.codes, q.format.bits, math.prod(q.shape), signed=q.format.symmetric)
    return codes.float().view(q.shape[0], -1)


def with_codes(q: QuantizedTensor, codes: Tensor) -> QuantizedTensor:
    """The same scales with other codes.

    Args:
        q: in a format with codes.
        codes: whole numbers within the format's range, ``[out, in]``.

    >>> from vggtkit.quant.quantizer import dequantize, quantize
    >>> q = quantize(torch.tensor([[7.0, -3.4]]), "int4_group_32")
    >>> dequantize(with_codes(q, torch.tensor([[6.0, -4.0]])))
    tensor([[ 6., -4.]])
    """
    dtype = torch.int8 if q.format.symmetric else torch.uint8
    return replace(q, codes=pack_codes(codes.to(dtype).reshape(q.shape), q.format.bits))


def _group(q: QuantizedTensor) -> int:
    columns = math.prod(q.shape[1:])
    return columns if q.format.group_size is None else q.format.group_size


def _spread(values: Tensor, q: QuantizedTensor, out: int, columns: int) -> Tensor:
    """Values per block, ``[1 or out, blocks]``, for every weight."""
    return values.repeat_interleave(_group(q), dim=1)[:, :columns].expand(out, columns)
