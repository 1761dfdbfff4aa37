"""Coordinate descent: codes and scales that are there already, each set to its best while all others stay.

With E the error of the weight and H the (damped) second moments of its inputs, the squared error of the layer's output
is ``tr(E H E^T)``. As a function of one entry of E it is a parabola, least at ``E_j - (E H)_j / H_jj``, so the best
code is the nearest to ``W_j`` plus that. As a function of the step s of a group with codes c it is one too, least at
``s - c . (E H)_group / (c H_group,group c^T)``; what is stored of a step (FP16, or a whole multiple of the channel's
scale) is taken only where that makes the error less. So every change makes it less, whatever it began with, and it
stays on the format's own grid.

Sources: Behdin et al., "QuantEase: Optimization-based Quantization for Language Models", 2023 (codes); Zhang et al.,
"COMQ: A Backpropagation-Free Algorithm for Post-Training Quantization", 2024 (scales between codes).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from vggtkit.quant.grid import codes_of, with_codes
from vggtkit.quant.packing import pack_codes, unpack_codes
from vggtkit.quant.quantizer import QuantizedTensor
from vggtkit.quant.rounding.base import DAMPING

BLOCK = 128
"""Columns after which the change of the others is applied."""
SWEEPS = 4
"""Over all groups; later ones bring little."""


def descended(
    weight: Tensor, q: QuantizedTensor, moments: Tensor, sweeps: int = SWEEPS, damping: float = DAMPING
) -> QuantizedTensor:
    """A quantised weight with codes and scales of less error.

    Args:
        weight: that it stands for, ``[out, in, ...]``, output channels first.
        q: where to begin, in a format with codes.
        moments: of the inputs, ``[parts, in, in]``, as `vggtkit.quant.rounding.Rounding.round` takes them.
        sweeps: see `SWEEPS`.
        damping: as of GPTQ.

    >>> from vggtkit.quant.quantizer import dequantize, quantize
    >>> weight = torch.tensor([[7.0, 2.4, 2.4]])
    >>> start = quantize(weight, "int4_group_32")
    >>> [round(dequantize(q).sum().item(), 1) for q in (start, descended(weight, start, torch.ones(1, 3, 3)))]
    [11.0, 11.8]
    """
    if not bool(moments.any()):
        return q
    matrix, steps = weight.detach().float().flatten(1), Steps(q)
    codes, share = codes_of(q), len(weight) // len(moments)
    for number, of_part in enumerate(moments):
        rows = slice(number * share, (number + 1) * share)
        curvature = of_part.float().clone()
        curvature.diagonal().add_(damping * float(of_part.diagonal().double().mean()))
        _descend(matrix[rows], codes[rows], steps.rows(rows), curvature, sweeps)
    return with_codes(steps.stored(), codes)


class Steps:
    """The steps and zero points of a weight's groups ``[out, groups]``, changed in place as a file can hold them."""

    def __init__(self, q: QuantizedTensor) -> None:
        self.q, self.low, self.high = q, *q.format.code_range
        out, self.columns = q.shape[0], math.prod(q.shape[1:])
        self.size = self.columns if q.format.group_size is None else q.format.group_size
        groups = -(-self.columns // self.size)
        scales = q.scales.float() if q.scales is not None else torch.ones(1)
        self.units: Tensor | None = None
        if q.multipliers is not None:
            self.units = scales.view(out, 1).clone()
            counts = unpack_codes(q.multipliers, q.format.multiplier_bits, out * groups, signed=False)
            self.steps = self.units * (counts.float().view(out, groups) + 1)
        else:
            self.steps = scales.view(len(scales), -1).expand(out, groups).contiguous()
        zeros = q.zero_points
        self.zeros = torch.zeros_like(self.steps) if zeros is None else self._spread(zeros.float(), out, groups)

    @staticmethod
    def _spread(values: Tensor, out: int, groups: int) -> Tensor:
        return values.view(len(values), -1).expand(out, groups).contiguous()

    def rows(self, rows: slice) -> Steps:
        """Of some rows, in the same memory."""
        part = object.__new__(Steps)
        part.__dict__.update(self.__dict__)
        part.steps, part.zeros = self.steps[rows], self.zeros[rows]
        part.units = None if self.units is None else self.units[rows]
        return part

    @property
    def can_change(self) -> bool:
        """Whether every row has steps of its own."""
        return self.q.format.granularity != "tensor"

    def nearest(self, wanted: Tensor, group: int) -> Tensor:
        """What can be stored for the steps of a group, ``[out]``, near to what is wanted."""
        if self.units is not None:
            unit = self.units[:, 0]
            return (wanted / unit).round_().clamp_(1, 2**self.q.format.multiplier_bits) * unit
        assert self.q.scales is not None
        stored = wanted.to(self.q.scales.dtype).float()
        smallest = torch.finfo(self.q.scales.dtype).tiny
        return torch.where(stored.isfinite() & (stored >= smallest), stored, self.steps[:, group])

    def stored(self) -> QuantizedTensor:
        """The weight with these steps."""
        q = self.q
        if q.scales is None or not self.can_change:
            return q
        if self.units is None:
            return replace(q, scales=self.steps.to(q.scales.dtype).view(q.scales.shape))
        counts = (self.steps / self.units).round_() - 1
        return replace(q, multipliers=pack_codes(counts.to(torch.uint8), q.format.multiplier_bits))


def _descend(weight: Tensor, codes: Tensor, steps: Steps, curvature: Tensor, sweeps: int) -> None:
    """Sweeps over the groups of some rows; changes codes and steps in place."""
    size, columns = steps.size, steps.columns
    span = max(1, BLOCK // size) * size  # as many whole groups, and at least one, whose changes are passed on together
    for _ in range(sweeps):
        spread = [x.repeat_interleave(size, 1)[:, :columns] for x in (steps.steps, steps.zeros)]
        pull = ((codes - spread[1]) * spread[0] - weight) @ curvature  # E H
        changed = False
        for start in range(0, columns, span):
            part = slice(start, min(columns, start + span))
            moved = _groups(codes[:, part], steps, start // size, pull[:, part], curvature[part, part])
            if bool(moved.any()):
                changed = True
                pull[:, : part.start].addmm_(moved, curvature[part, : part.start])
                pull[:, part.stop :].addmm_(moved, curvature[part, part.stop :])
        if not changed:
            return


def _groups(codes: Tensor, steps: Steps, first: int, pull: Tensor, curvature: Tensor) -> Tensor:
    """Neighbouring groups, one after the other; what that changes of the weight ``[out, their columns]``."""
    moved = torch.zeros_like(codes)
    for number, start in enumerate(range(0, codes.shape[1], steps.size)):
        own = slice(start, min(codes.shape[1], start + steps.size))
        group = first + number
        moved[:, own] = _step(codes[:, own], steps, group, pull[:, own], curvature[own, own])
        for begin in range(own.start, own.stop, BLOCK):
            some = slice(begin, min(own.stop, begin + BLOCK))
            change = _codes(codes[:, some], steps, group, pull[:, some], curvature[some, some])
            moved[:, some] += change
            pull[:, own.start : begin].addmm_(change, curvature[some, own.start : begin])
            pull[:, some.stop : own.stop].addmm_(change, curvature[some, some.stop : own.stop])
        pull[:, : own.start].addmm_(moved[:, own], curvature[own, : own.start])
        pull[:, own.stop :].addmm_(moved[:, own], curvature[own, own.stop :])
    return moved


def _step(codes: Tensor, steps: Steps, group: int, pull: Tensor, curvature: Tensor) -> Tensor:
    """The best step of a group for its codes; what that changes of the weight ``[out, group size]``."""
    if not steps.can_change:
        return torch.zeros_like(codes)
    units = codes - steps.zeros[:, group, None]
    bent = units @ curvature
    slope, bend = (units * pull).sum(1), (units * bent).sum(1)
    before = steps.steps[:, group]
    change = steps.nearest(before - slope / bend.clamp_min(torch.finfo(bend.dtype).tiny), group) - before
    change = torch.where(change * (2 * slope + change * bend) < 0, change, 0.0)
    steps.steps[:, group] += change
    pull.addcmul_(change[:, None], bent)
    return change[:, None] * units


def _codes(codes: Tensor, steps: Steps, group: int, pull: Tensor, curvature: Tensor) -> Tensor:
    """The best codes of some columns, one after the other; what that changes of the weight ``[out, columns]``."""
    step, before = steps.steps[:, group], codes.T.contiguous()
    # In units of the step, and with columns as rows, which lie together in memory: one of them is worked on at a time.
    pulls, own = (pull / step[:, None]).T.contiguous(), before.clone()
    rows = curvature[:, :, None].unbind(), pulls.unbind(), own.unbind()
    for bend, row, pulled, code in zip(curvature.diagonal().tolist(), *rows, strict=True):
        if bend > 0:
            new = torch.add(code, pulled, alpha=-1 / bend).round_().clamp_(steps.low, steps.high)
            pulls.addcmul_(row, new - code)
            code.copy_(new)
    codes.copy_(own.T)
    pull.copy_((pulls * step).T)
    return ((own - before) * step).T
