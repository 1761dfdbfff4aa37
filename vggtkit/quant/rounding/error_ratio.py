"""How much of the error of rounding to the nearest is left by a calibrated rounding, without rounding whole layers.

The squared error of a layer's output is ``tr(E H E^T)``, a sum over rows of the weight, so some rows estimate what
share of it is left. The rows of all formats go through one elimination, as they share its factor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vggtkit.quant.blocks import CutWeight
from vggtkit.quant.formats import Format, get_format
from vggtkit.quant.grid import Grid, grid_for, stacked
from vggtkit.quant.rounding.gptq import compensated

ROWS = 16
"""Of a part of a weight that are rounded, evenly spaced; on the bundled network ratios scatter by 15 % against 64."""


def error_ratios(
    weight: Tensor,
    keys: Sequence[str],
    moments: Tensor,
    name: str = "",
    rows: int = ROWS,
    unseen: Tensor | None = None,
) -> Tensor:
    """``tr(E H E^T)`` of `vggtkit.quant.rounding.gptq.GPTQ` over that of rounding to the nearest, by format.

    Args:
        weight: ``[out, in, ...]``, output channels first.
        keys: of formats; 1 for those without codes.
        moments: second moments of the inputs, ``[parts, in, in]``, as `Rounding.round` takes them.
        name: the layer, for messages.
        rows: of each part that are rounded.
        unseen: second moments H of other inputs, on which both errors are compared; by default the same, which codes
            fit better than any others.

    Returns:
        float64 ``[formats]``; 1 where to the nearest is without error.

    >>> ratios = error_ratios(torch.tensor([[7.0, 0.4, 0.4]]), ["int4_group_32", "fp16"], torch.ones(1, 3, 3))
    >>> [round(ratio, 3) for ratio in ratios.tolist()]
    [0.063, 1.0]
    """
    ratios = torch.ones(len(keys), dtype=torch.float64)
    coded = [number for number, key in enumerate(keys) if not get_format(key).is_float]
    if not coded:
        return ratios
    matrix = weight.detach().float().flatten(1)
    share = len(matrix) // len(moments)
    some = torch.arange(0, share, max(1, share // rows), device=matrix.device)[:rows]
    whole = torch.cat([part * share + some for part in range(len(moments))])
    sampled = matrix[whole]
    grids = _grids(matrix, sampled, [get_format(keys[number]) for number in coded], name)
    left, nearest = torch.zeros(2, len(coded), dtype=torch.float64)
    for part, (of_part, judging) in enumerate(zip(moments, moments if unseen is None else unseen, strict=True)):
        rows_of_part = slice(part * len(some), (part + 1) * len(some))
        grid = stacked([grid.rows(rows_of_part) for grid in grids])
        repeated = sampled[rows_of_part].repeat(len(coded), 1)
        left += _errors(compensated(repeated, grid, of_part), grid, repeated, judging, len(coded))
        nearest += _errors(grid.codes(repeated), grid, repeated, judging, len(coded))
    ratios[coded] = torch.where(nearest > 0, left / nearest, 1.0)
    return ratios


def _grids(matrix: Tensor, sampled: Tensor, formats: Sequence[Format], name: str) -> list[Grid]:
    """Of some rows; only a scale of the whole tensor must be had from all."""
    whole, some = CutWeight(matrix, name), CutWeight(sampled, name)
    return [grid_for(some, fmt, whole if fmt.granularity == "tensor" else some) for fmt in formats]


def _errors(codes: Tensor, grid: Grid, weight: Tensor, moments: Tensor, formats: int) -> Tensor:
    """``tr(E H E^T)`` of every format, one after the other in the rows; float64 ``[formats]``."""
    error = grid.values(codes) - weight
    return ((error @ moments.float()) * error).sum(1).double().view(formats, -1).sum(1).cpu()
