"""Codes of all output channels together: errors of some make up for those of others in what reaches the outputs.

GPTQ and `vggtkit.quant.rounding.descent` keep ``tr(E H E^T)`` small, which is a sum over the rows of the error E: every
output channel by itself. What reaches the model's outputs is not: a layer's output channels are mixed by what comes
after it. With G the second moments of the gradients at its output channels, ``tr(G E H E^T)`` counts that
(`sensitivity.output_factors`). As a function of one entry of E it is a parabola, least at
``E_ij - (G E H)_ij / (G_ii H_jj)``, so the best code is the nearest to that. A column's codes are all looked at at
once; of those that would change, sorted by what each brings alone, as many are changed as bring the most together,
which is known exactly. Steps of groups are changed likewise. So every change makes the error less.

Source of the two factors: Martens and Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate
Curvature", ICML 2015; of rounding by both: Tseng et al., "Model-Preserving Adaptive Rounding", 2025 (there by feedback,
here by descent).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vggtkit.quant.grid import codes_of, with_codes
from vggtkit.quant.quantizer import QuantizedTensor
from vggtkit.quant.rounding.base import DAMPING
from vggtkit.quant.rounding.descent import Steps

BLOCK = 128
"""Columns after which the change of the others is applied."""
CHANNEL_SWEEPS = 12
CHANNEL_DAMPING = 0.1
"""Of the mean of G's diagonal, added to all of it: it is known from few scenes."""


def descended_together(
    weight: Tensor, q: QuantizedTensor, moments: Tensor, channels: Tensor, sweeps: int = CHANNEL_SWEEPS
) -> QuantizedTensor:
    """A quantised weight with codes and scales of less error.

    Args:
        weight: that it stands for, ``[out, in, ...]``, output channels first.
        q: where to begin, in a format with codes.
        moments: H, of the inputs, ``[parts, in, in]``.
        channels: G, of the gradients at the output channels, ``[parts, out / parts, out / parts]``.
        sweeps: over all columns, or fewer where nothing changes any more.

    >>> from vggtkit.quant.quantizer import dequantize, quantize
    >>> weight = torch.tensor([[7.0, 0.4], [7.0, 0.4]])  # only the sum of both channels is heard
    >>> q = descended_together(weight, quantize(weight, "int4_group_32"), torch.eye(2)[None], torch.ones(1, 2, 2))
    >>> [round(value, 1) for value in dequantize(q).sum(0).tolist()]
    [14.0, 1.0]
    """
    matrix, codes, steps = weight.detach().float().flatten(1), codes_of(q), Steps(q)
    share = len(matrix) // len(moments)
    for number, (of_inputs, of_channels) in enumerate(zip(moments, channels, strict=True)):
        rows = slice(number * share, (number + 1) * share)
        inputs, outputs = damped(of_inputs, DAMPING), damped(of_channels, CHANNEL_DAMPING)
        codes[rows] = _descend(matrix[rows], codes[rows], steps.rows(rows), inputs, outputs, sweeps)
    return with_codes(steps.stored(), codes)


def damped(moments: Tensor, share: float) -> Tensor:
    """With a share of the mean of the diagonal added to it, FP32."""
    result = moments.float().clone()
    result.diagonal().add_(share * float(moments.diagonal().double().mean()))
    return result


def _descend(weight: Tensor, codes: Tensor, steps: Steps, inputs: Tensor, outputs: Tensor, sweeps: int) -> Tensor:
    """Sweeps over the groups of some rows; changes steps in place, returns the new codes."""
    # Columns as rows, which lie together in memory: one of them is worked on at a time.
    new, size = codes.T.contiguous(), steps.size
    spread = [x.repeat_interleave(size, 1)[:, : steps.columns].T for x in (steps.steps, steps.zeros)]
    pull = inputs @ ((new - spread[1]) * spread[0] - weight.T) @ outputs  # (G E H)^T
    for _ in range(sweeps):
        changed = False
        for group, start in enumerate(range(0, len(new), size)):
            own = slice(start, min(len(new), start + size))
            moved = _step(new[own], steps, group, pull[own], inputs[own, own], outputs)
            if moved is not None:
                changed = True
                pull.addmm_(inputs[:, own], moved @ outputs)
            for begin in range(own.start, own.stop, BLOCK):
                some = slice(begin, min(own.stop, begin + BLOCK))
                moved = _columns(new[some], steps, group, pull[some], inputs[some, some], outputs)
                if moved is not None:
                    changed, heard = True, moved @ outputs
                    pull[: some.start].addmm_(inputs[: some.start, some], heard)
                    pull[some.stop :].addmm_(inputs[some.stop :, some], heard)
        if not changed:
            break
    return new.T


def _step(codes: Tensor, steps: Steps, group: int, pull: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor | None:
    """The steps of a group, of as many channels as bring the most together; what that changes of the weight."""
    if not steps.can_change:
        return None
    units, before = codes - steps.zeros[:, group], steps.steps[:, group]
    bent = inputs @ units
    slope, bend = (units * pull).sum(0), (units * bent).sum(0) * outputs.diagonal()
    change = steps.nearest(before - slope / bend.clamp_min(torch.finfo(bend.dtype).tiny), group) - before
    alone = change * (2 * slope + change * bend)
    where = (alone < 0).nonzero()[:, 0]
    if not len(where):
        return None
    where = where[torch.argsort(alone[where])]
    both = (units[:, where].T @ bent[:, where]) * outputs[where][:, where]
    where = where[: _most(alone[where], change[where], both)]
    before[where] += change[where]
    moved = torch.zeros_like(codes)
    moved[:, where] = units[:, where] * change[where]
    return moved


def _columns(codes: Tensor, steps: Steps, group: int, pull: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor | None:
    """Some columns, one after the other; changes codes and pull, returns the change of the weight."""
    moved, own, step = torch.zeros_like(codes), outputs.diagonal(), steps.steps[:, group]
    for column, bend in enumerate(inputs.diagonal().tolist()):
        if bend <= 0:
            continue
        before = codes[column]
        wanted = (before - pull[column] / (own * bend * step)).round_().clamp_(steps.low, steps.high)
        where = (wanted != before).nonzero()[:, 0]
        if not len(where):
            continue
        change = (wanted - before) * step
        alone = change * (2 * pull[column] + bend * own * change)
        where = where[torch.argsort(alone[where])]
        where = where[: _most(alone[where], change[where], bend * outputs[where][:, where])]
        codes[column, where] = wanted[where]
        moved[column, where] = change[where]
        pull.addr_(inputs[column], outputs[:, where] @ change[where])
    return moved if bool(moved.any()) else None


def _most(alone: Tensor, change: Tensor, both: Tensor) -> int:
    """How many of some changes, the first ones, make the error least: with what each brings alone, and any two."""
    between = torch.tril(both, -1) @ change
    return int(torch.cumsum(alone + 2 * change * between, 0).argmin()) + 1
