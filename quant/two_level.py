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

from quant.formats import Format
from quant.scales import stored_scales

# Tried multipliers, as fractions of the one that clips nothing; two bits gain most from clipping.
_FRACTIONS = (1.0, 0.92, 0.84, 0.76)
_FRACTIONS_2_BIT = (0.9, 0.75, 0.62, 0.5)
_INT8_MAX = 127


def channel_scales(blocks: Tensor, fmt: Format) -> tuple[Tensor, Tensor]:
    """Scales of the channels ``[out]`` as stored, and those that the groups would like ``[out, groups]``, FP32.

    Args:
        blocks: FP32 ``[out, groups, group_size]``.
        fmt: a two-level format.

    >>> from quant.formats import get_format
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

    >>> from quant.formats import get_format
    >>> codes, scales, multipliers = encode(torch.tensor([[[14.0, 7.0], [7.0, 3.5]]]), get_format("int4_two_level_16"))
    >>> codes.tolist(), scales.tolist(), multipliers.tolist()
    ([[[7.0, 4.0], [7.0, 4.0]]], [0.125], [[16.0, 8.0]])
    """
    low, high = fmt.code_range
    most = 2**fmt.multiplier_bits
    scales, ideal = channel_scales(blocks, fmt)
    step = scales.float()[:, None]
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for fraction in _FRACTIONS_2_BIT if fmt.bits == 2 else _FRACTIONS:
        multipliers = (ideal / step * fraction).round_().clamp_(1, most)
        scale = (multipliers * step)[..., None]
        codes = (blocks / scale).round_().clamp_(low, high)
        error = (codes * scale).sub_(blocks).square_().sum(-1)
        if best is None:
            best = error, multipliers, codes
        else:
            better = error < best[0]
            best = (
                torch.where(better, error, best[0]),
                torch.where(better, multipliers, best[1]),
                torch.where(better[..., None], codes, best[2]),
            )
    assert best is not None
    return best[2], scales, best[1]
