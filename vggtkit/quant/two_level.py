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

from collections.abc import Iterator

import torch
from torch import Tensor

from vggtkit.quant.formats import Format
from vggtkit.quant.scales import stored_scales

# Tried multipliers, as fractions of the one that clips nothing; two bits gain most from clipping.
_FRACTIONS = (1.0, 0.92, 0.84, 0.76)
_FRACTIONS_2_BIT = (0.9, 0.75, 0.62, 0.5)
_INT8_MAX = 127

PIECE = 1 << 20
"""Numbers worked on at a time: of fewer the calls cost more than the work, more do not stay in the processor's cache.

On two cores of a Zen 4 scales of groups of 64 take 2.8 ns a weight in pieces of 2^17, 1.6 in these, 1.9 in 2^22.
"""


def channel_scales(magnitudes: Tensor, fmt: Format) -> tuple[Tensor, Tensor]:
    """Scales of the channels ``[out]`` as stored, and those that the groups would like ``[out, groups]``, FP32.

    Args:
        magnitudes: the largest absolute weight of each group, FP32 ``[out, groups]``.
        fmt: a two-level format.

    >>> from vggtkit.quant.formats import get_format
    >>> channel_scales(torch.tensor([[14.0, 7.0]]), get_format("int4_two_level_16"))
    (tensor([0.1250], dtype=torch.float16), tensor([[2., 1.]]))
    """
    ideal = magnitudes / fmt.code_range[1]
    widest = ideal.amax(1)
    largest = (widest / 2**fmt.multiplier_bits).clamp_min_(torch.finfo(torch.float32).tiny)
    return stored_scales(largest.masked_fill_(widest == 0, 1.0), _INT8_MAX), ideal


def scale_groups(blocks: Tensor, magnitudes: Tensor, fmt: Format) -> tuple[Tensor, Tensor]:
    """Channel scales ``[out]`` as stored, and multipliers ``[out, groups]`` from 1, FP32.

    Args:
        blocks: FP32 ``[out, groups, group_size]``.
        magnitudes: as `channel_scales` takes them.
        fmt: a two-level format.

    >>> from vggtkit.quant.formats import get_format
    >>> weight = torch.tensor([[[14.0, 7.0], [7.0, 3.5]]])
    >>> scale_groups(weight, weight.amax(-1), get_format("int4_two_level_16"))
    (tensor([0.1250], dtype=torch.float16), tensor([[16.,  8.]]))
    """
    scales, ideal = channel_scales(magnitudes, fmt)
    step = scales.float()[:, None]
    multipliers = torch.empty_like(ideal)
    fractions = torch.tensor(_FRACTIONS_2_BIT if fmt.bits == 2 else _FRACTIONS, device=blocks.device)[:, None, None]
    for part in _pieces(blocks, len(fractions)):
        multipliers[part] = _best_multipliers(blocks[part], ideal[part] / step[part], step[part], fmt, fractions)
    return scales, multipliers


def encode(blocks: Tensor, magnitudes: Tensor, fmt: Format) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, channel scales and multipliers.

    Args:
        blocks: FP32 ``[out, groups, group_size]``.
        magnitudes: as `channel_scales` takes them.
        fmt: a two-level format.

    Returns:
        Codes as FP32 like ``blocks``; scales ``[out]`` as stored; multipliers ``[out, groups]`` from 1, FP32.

    >>> from vggtkit.quant.formats import get_format
    >>> weight = torch.tensor([[[14.0, 7.0], [7.0, 3.5]]])
    >>> codes, scales, multipliers = encode(weight, weight.amax(-1), get_format("int4_two_level_16"))
    >>> codes.tolist(), scales.tolist(), multipliers.tolist()
    ([[[7.0, 4.0], [7.0, 4.0]]], [0.125], [[16.0, 8.0]])
    """
    scales, multipliers = scale_groups(blocks, magnitudes, fmt)
    steps = (multipliers * scales.float()[:, None])[..., None]
    codes = torch.empty_like(blocks, memory_format=torch.contiguous_format)
    for part in _pieces(blocks, 1):
        torch.div(blocks[part], steps[part], out=codes[part]).round_().clamp_(*fmt.code_range)
    return codes, scales, multipliers


def _pieces(blocks: Tensor, copies: int) -> Iterator[slice]:
    """Channels worked on at a time where each weight is held so many times."""
    rows = max(1, PIECE // (copies * blocks.shape[1] * blocks.shape[2]))
    return (slice(start, start + rows) for start in range(0, len(blocks), rows))


def _best_multipliers(blocks: Tensor, wanted: Tensor, step: Tensor, fmt: Format, fractions: Tensor) -> Tensor:
    """Of some channels, all fractions tried at once; the first of those with the least error."""
    tried = (wanted * fractions).round_().clamp_(1, 2**fmt.multiplier_bits)
    scale = (tried * step)[..., None]
    error = (blocks / scale).round_().clamp_(*fmt.code_range).mul_(scale).sub_(blocks).square_().sum(-1)
    return tried.gather(0, error.min(0, keepdim=True).indices)[0]  # `argmin` along this axis takes 16 times as long
