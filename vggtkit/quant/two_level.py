"""Two-level scales: one FP16 scale per output channel, and a small whole number per group.

A group's scale is ``m * s`` with ``s`` the scale of its output channel and ``m`` a whole number from 1 to
``2**(8 - bits)``, of which a file holds ``m - 1`` in ``8 - bits`` bits. The weight is ``(code * m) * s``, and
``code * m`` lies in [-128, 127] for every code and multiplier: the same numbers, bit for bit, are an
``int8_per_channel_sym`` weight, which integer kernels run.

``s`` is the largest ``max|group| / qmax`` of the channel, divided by the largest multiplier. A group's multiplier is
the one of a few tried (from its maximum down, so that clipping a little is allowed) with the least squared error.

Sources: Dai et al., "VS-Quant: Per-vector Scaled Quantization", MLSys 2021 (integer scales per vector under one
scale per channel). That the product stays within INT8 is by the choice of ranges here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vggtkit.quant.formats import Format
from vggtkit.quant.scales import stored_scales

# Tried multipliers, as fractions of the one that clips nothing; two bits gain most from clipping.
_FRACTIONS = (1.0, 0.92, 0.84, 0.76)
_FRACTIONS_2_BIT = (0.9, 0.75, 0.62, 0.5)
_INT8_MAX = 127

PIECE = 1 << 17
"""Weights worked on at a time, which stay in the processor's cache."""


def channel_scales(blocks: Tensor, fmt: Format) -> tuple[Tensor, Tensor]:
    """Scales of the channels ``[out]`` as stored, and those that the groups would like ``[out, groups]``, FP32.

    Args:
        blocks: FP32 ``[out, groups, group_size]``.
        fmt: a two-level format.

    >>> from vggtkit.quant.formats import get_format
    >>> channel_scales(torch.tensor([[[14.0, 7.0], [7.0, 3.5]]]), get_format("int4_two_level_16"))
    (tensor([0.1250], dtype=torch.float16), tensor([[2., 1.]]))
    """
    ideal = torch.maximum(blocks.amax(-1), -blocks.amin(-1)) / fmt.code_range[1]
    widest = ideal.amax(1)
    largest = (widest / 2**fmt.multiplier_bits).clamp_min_(torch.finfo(torch.float32).tiny)
    return stored_scales(largest.masked_fill_(widest == 0, 1.0), _INT8_MAX), ideal


def encode(blocks: Tensor, fmt: Format) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, channel scales and multipliers.

    Args:
        blocks: FP32 ``[out, groups, group_size]``.
        fmt: a two-level format.

    Returns:
        Codes as FP32 like ``blocks``; scales ``[out]`` as stored; multipliers ``[out, groups]`` from 1, FP32.

    >>> from vggtkit.quant.formats import get_format
    >>> codes, scales, multipliers = encode(torch.tensor([[[14.0, 7.0], [7.0, 3.5]]]), get_format("int4_two_level_16"))
    >>> codes.tolist(), scales.tolist(), multipliers.tolist()
    ([[[7.0, 4.0], [7.0, 4.0]]], [0.125], [[16.0, 8.0]])
    """
    scales, ideal = channel_scales(blocks, fmt)
    step = scales.float()[:, None]
    codes = torch.empty_like(blocks, memory_format=torch.contiguous_format)
    multipliers = torch.empty_like(ideal)
    rows = max(1, PIECE // (blocks.shape[1] * blocks.shape[2]))
    for start in range(0, len(blocks), rows):
        part = slice(start, start + rows)
        multipliers[part] = _encode_piece(blocks[part], ideal[part], step[part], fmt, codes[part])
    return codes, scales, multipliers


def _encode_piece(blocks: Tensor, ideal: Tensor, step: Tensor, fmt: Format, codes: Tensor) -> Tensor:
    """Writes the codes of some channels, and returns their multipliers."""
    wanted, work = ideal / step, torch.empty_like(codes)

    def round_codes(scale: Tensor) -> Tensor:
        return torch.div(blocks, scale, out=codes).round_().clamp_(*fmt.code_range)

    best: tuple[Tensor, Tensor] | None = None
    for fraction in _FRACTIONS_2_BIT if fmt.bits == 2 else _FRACTIONS:
        multipliers = (wanted * fraction).round_().clamp_(1, 2**fmt.multiplier_bits)
        scale = (multipliers * step)[..., None]
        error = torch.mul(round_codes(scale), scale, out=work).sub_(blocks).square_().sum(-1)
        if best is None:
            best = error, multipliers
        else:
            better = error < best[0]
            best = torch.where(better, error, best[0]), torch.where(better, multipliers, best[1])
    assert best is not None
    round_codes((best[1] * step)[..., None])
    return best[1]
