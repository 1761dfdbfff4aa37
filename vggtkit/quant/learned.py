"""A weight whose codes and scales are learned: rounding that gradients go through, and what a file will hold of it.

With v the latent weight and s the step of its block, a weight stands for

    w = c * s,    c = clamp(round(v / s)),

and the straight-through estimator takes the rounding for the identity, plus a constant. So within the range of codes
``dw/dv = 1`` and ``dw/ds = c - v / s``; beyond it ``dw/dv = 0`` and ``dw/ds = c``. Gradients are written out here, not
left to autograd: a model's weights are made once for all scenes of a step.

Latent weights count in steps as they were at the start, so that one learning rate suits every block; scales are learned
by their logarithm, so that they stay positive. Scales are rounded as they are stored before anything is computed from
them. In two levels the whole-number multiplier of a group is learned likewise, rounded and taken for the identity.

Sources: Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013 (straight through); Esser
et al., "Learned Step Size Quantization", ICLR 2020; Jain et al., "Trained Quantization Thresholds", MLSys 2020 (the
logarithm).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vggtkit.quant.blocks import blocks_of, unblocked
from vggtkit.quant.grid import codes_of, with_codes
from vggtkit.quant.packing import pack_codes
from vggtkit.quant.quantizer import QuantizedTensor, _unpacked_multipliers

INSIDE = 0.4
"""How far from its code, in steps, a latent weight begins at most: codes that calibrated rounding did not choose by
nearness would else all be at the edge, and change back with the first step."""
SMALLEST = 2.0**-24
"""The smallest number of FP16."""
LARGEST = 65504.0


class LearnedWeight:
    """One weight while it is learned.

    Args:
        weight: as it was before it was quantised, ``[out, in, ...]``, output channels first.
        start: the same quantised, in a format with codes; learning starts there, exactly.

    Attributes:
        parameters: what is learned, by name: ``latent`` ``[rows, blocks, weights]``, ``scales`` (logarithms, relative
            to the start) ``[rows, blocks, 1]``, and in two levels ``multipliers``, likewise.

    Raises:
        ValueError: a floating-point format.

    >>> from vggtkit.quant.quantizer import dequantize, quantize
    >>> weight = torch.tensor([[7.0, -3.4, 0.6]])
    >>> learned = LearnedWeight(weight, quantize(weight, "int4_group_32"))
    >>> learned.values()
    tensor([[ 7., -3.,  1.]])
    """

    def __init__(self, weight: Tensor, start: QuantizedTensor) -> None:
        if start.scales is None:
            raise ValueError(f"{start.format.key} has no codes to learn")
        self.start, fmt = start, start.format
        codes = blocks_of(codes_of(start), fmt)
        whole = blocks_of(weight.detach().float().reshape(start.shape[0], -1), fmt)
        rows, blocks = codes.shape[:2]
        self.scale = start.scales.float().view(rows, -1, 1)
        self.multiplier = None if start.multipliers is None else _unpacked_multipliers(start)[..., None]
        self.zero = 0.0 if start.zero_points is None else start.zero_points.float().view(rows, blocks, 1)
        self.step = self.scale if self.multiplier is None else self.scale * self.multiplier
        codes = codes - self.zero
        latent = torch.clamp(whole / self.step, codes - INSIDE, codes + INSIDE)
        self.parameters: dict[str, Tensor] = {"latent": latent, "scales": torch.zeros_like(self.scale)}
        if self.multiplier is not None:
            self.parameters["multipliers"] = torch.zeros_like(self.multiplier)

    def load(self, parameters: Mapping[str, Tensor]) -> None:
        """Go on from parameters that were learned before, each of the shape of its namesake here."""
        for name, values in self.parameters.items():
            values.copy_(parameters[name])

    def values(self) -> Tensor:
        """What the weight stands for at the moment, FP32 ``[out, in, ...]``."""
        step = self._scales() if self.multiplier is None else self._scales() * self._multipliers()[0]
        return unblocked(self._codes(step)[0].mul_(step), self.start.shape)

    def encoded(self) -> QuantizedTensor:
        """The same as a file holds it."""
        scales, fmt = self._scales(), self.start.format
        parts = replace(self.start, scales=scales.to(self._dtype).view(self._dtype_shape))
        step = scales
        if self.multiplier is not None:
            multipliers, _ = self._multipliers()
            parts = replace(parts, multipliers=pack_codes((multipliers - 1).to(torch.uint8), fmt.multiplier_bits))
            step = scales * multipliers
        codes = self._codes(step)[0].add_(self.zero)
        return with_codes(parts, unblocked(codes, self.start.shape).reshape(self.start.shape[0], -1))

    def gradients(self, gradient: Tensor) -> dict[str, Tensor]:
        """Gradients of the parameters, by name.

        Args:
            gradient: of a loss with respect to `values`, in their shape.
        """
        scales = self._scales()
        multipliers, learning = (None, None) if self.multiplier is None else self._multipliers()
        step = scales if multipliers is None else scales * multipliers
        codes, latent, inside = self._codes(step)
        of_weight = blocks_of(gradient.float().reshape(self.start.shape[0], -1), self.start.format)
        of_step = (codes.sub_(latent.mul_(inside)).mul_(of_weight)).sum(-1, keepdim=True)
        result = {"latent": of_weight * inside * self.step}
        if multipliers is None or learning is None:
            result["scales"] = of_step * scales
        else:
            result["scales"] = (of_step * multipliers * scales).sum(1, keepdim=True)
            result["multipliers"] = of_step * scales * learning
        return result

    @property
    def _dtype(self) -> torch.dtype:
        assert self.start.scales is not None
        return self.start.scales.dtype

    @property
    def _dtype_shape(self) -> torch.Size:
        assert self.start.scales is not None
        return self.start.scales.shape

    def _scales(self) -> Tensor:
        """As stored, FP32."""
        scales = self.scale * self.parameters["scales"].exp()
        if self._dtype == torch.float32:
            return scales.clamp_min_(torch.finfo(torch.float32).tiny)
        return scales.clamp_(SMALLEST, LARGEST).half().float()

    def _multipliers(self) -> tuple[Tensor, Tensor]:
        """Whole numbers, and their derivatives by the parameter, straight through."""
        assert self.multiplier is not None
        wanted = self.multiplier * self.parameters["multipliers"].exp()
        most = 2.0**self.start.format.multiplier_bits
        rounded = wanted.round()
        within = (rounded >= 1) & (rounded <= most)
        return rounded.clamp_(1, most), wanted * within

    def _codes(self, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes less the zero point, latent weights in steps of now, and which of them lie within the codes' range."""
        low, high = self.start.format.code_range
        latent = self.parameters["latent"] * (self.step / step)
        rounded = (latent + self.zero).round_()
        codes = rounded.clamp(low, high)
        return codes.sub_(self.zero), latent, rounded.eq_(codes + self.zero)
