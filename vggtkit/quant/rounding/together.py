"""Codes of all output channels together: errors of some make up for those of others in what reaches the outputs.

GPTQ and `vggtkit.quant.rounding.descent` keep ``tr(E H E^T)`` small, which is a sum over the rows of the error E: every
output channel by itself. What reaches the model's outputs is not: a layer's output channels are mixed by what comes
after it. With G the second moments of the gradients at its output channels, ``tr(G E H E^T)`` counts that
(`sensitivity.output_factors`). As a function of one entry of E it is a parabola, least at
``E_ij - (G E H)_ij / (G_ii H_jj)``, so the best code is the nearest to that. A column's codes are all looked at at
once; of those that would change, sorted by what each brings alone, as many are changed as bring the most together,
which is known exactly. So every change makes the error less. Scales stay as they are.

Source of the two factors: Martens and Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate
Curvature", ICML 2015; of rounding by both: Tseng et al., "Model-Preserving Adaptive Rounding", 2025 (there by feedback,
here by descent).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vggtkit.quant.grid import Grid, codes_of, grid_of, with_codes
from vggtkit.quant.quantizer import QuantizedTensor
from vggtkit.quant.rounding.base import DAMPING

BLOCK = 128
"""Columns after which the change of the others is applied."""
SWEEPS = 4
CHANNEL_DAMPING = 0.03
"""Of the mean of G's diagonal, added to all of it: it is known from few scenes."""


def descended_together(
    weight: Tensor, q: QuantizedTensor, moments: Tensor, channels: Tensor, sweeps: int = SWEEPS
) -> QuantizedTensor:
    """A quantised weight with codes of less error, its scales as they are.

    Args:
        weight: that it stands for, ``[out, in, ...]``, output channels first.
        q: where to begin, in a format with codes.
        moments: H, of the inputs, ``[parts, in, in]``.
        channels: G, of the gradients at the output channels, ``[parts, out / parts, out / parts]``.
        sweeps: over all columns; later ones bring little.

    >>> from vggtkit.quant.quantizer import dequantize, quantize
    >>> weight = torch.tensor([[7.0, 0.4], [7.0, 0.4]])  # only the sum of both channels is heard
    >>> q = descended_together(weight, quantize(weight, "int4_group_32"), torch.eye(2)[None], torch.ones(1, 2, 2))
    >>> dequantize(q).sum(0)
    tensor([14.,  1.])
    """
    matrix, grid, codes = weight.detach().float().flatten(1), grid_of(q), codes_of(q)
    share = len(matrix) // len(moments)
    for number, (of_inputs, of_channels) in enumerate(zip(moments, channels, strict=True)):
        rows = slice(number * share, (number + 1) * share)
        inputs, outputs = damped(of_inputs, DAMPING), damped(of_channels, CHANNEL_DAMPING)
        codes[rows] = _descend(matrix[rows], codes[rows], grid.rows(rows), inputs, outputs, sweeps)
    return with_codes(q, codes)


def damped(moments: Tensor, share: float) -> Tensor:
    """With a share of the mean of the diagonal added to it, FP32."""
    result = moments.float().clone()
    result.diagonal().add_(share * float(moments.diagonal().double().mean()))
    return result


def _descend(weight: Tensor, codes: Tensor, grid: Grid, inputs: Tensor, outputs: Tensor, sweeps: int) -> Tensor:
    """Sweeps over the columns of some rows; the new codes."""
    # Columns as rows, which lie together in memory: one of them is worked on at a time.
    new, steps, zeros = (x.T.contiguous() for x in (codes, grid.steps, grid.zeros))
    pull = inputs @ ((new - zeros) * steps - weight.T) @ outputs  # (G E H)^T
    for _ in range(sweeps):
        changed = False
        for start in range(0, len(new), BLOCK):
            part = slice(start, min(len(new), start + BLOCK))
            moved = _columns(new[part], steps[part], pull[part], inputs[part, part], outputs, grid)
            if bool(moved.any()):
                changed, heard = True, moved @ outputs
                pull[: part.start].addmm_(inputs[: part.start, part], heard)
                pull[part.stop :].addmm_(inputs[part.stop :, part], heard)
        if not changed:
            break
    return new.T


def _columns(codes: Tensor, steps: Tensor, pull: Tensor, inputs: Tensor, outputs: Tensor, grid: Grid) -> Tensor:
    """Some columns, one after the other; changes codes and pull, returns the change of the weight."""
    moved, own = torch.zeros_like(codes), outputs.diagonal()
    for column, bend in enumerate(inputs.diagonal().tolist()):
        if bend <= 0:
            continue
        step, before = steps[column], codes[column]
        wanted = (before - pull[column] / (own * bend * step)).round_().clamp_(grid.low, grid.high)  # type: ignore[arg-type]
        where = (wanted != before).nonzero()[:, 0]
        if not len(where):
            continue
        change = (wanted[where] - before[where]) * step[where]
        alone = change * (2 * pull[column, where] + bend * own[where] * change)
        order = torch.argsort(alone)
        where, change = where[order], change[order]
        between = torch.tril(outputs[where][:, where], -1) @ change
        best = int(torch.cumsum(alone[order] + 2 * bend * change * between, 0).argmin()) + 1
        where, change = where[:best], change[:best]
        codes[column, where] = wanted[where]
        moved[column, where] = change
        pull.addr_(inputs[column], outputs[:, where] @ change)
    return moved
