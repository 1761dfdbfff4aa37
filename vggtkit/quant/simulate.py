"""The weight that a format stands for, without packing it in between: what profiles and simulations run with.

Bit for bit ``dequantize(quantize(weight, key))``, two to six times as fast: all arithmetic is done in place on pieces
that stay in the processor's cache (measured on one core at 2^15 to 2^20 weights: 0.31 ns a weight, 0.69 without
pieces), and no codes are packed and unpacked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vggtkit.quant.blocks import CutWeight, blocks_of, unblocked
from vggtkit.quant.formats import get_format
from vggtkit.quant.quantizer import dequantize, quantize, quantized_nbytes
from vggtkit.quant.two_level import PIECE, channel_scales, encode


def simulate(weight: Tensor, key: str, name: str = "", channels: Tensor | None = None) -> Tensor:
    """A weight as the model computes with it once it has been stored in a format.

    Args:
        weight: ``[out, in]`` or ``[out, in, ...]``, any floating dtype.
        key: key of the format.
        name: the layer, for error messages.
        channels: indices of the output channels wanted, ``[n]``; all by default. The scales are those of the whole
            weight all the same.

    Returns:
        float32 of the weight's shape, or ``[n, in, ...]``, in memory of its own.

    Raises:
        InputError: as `quantize`.

    >>> weight = torch.tensor([[7.0, -3.5, 0.0, 2.0], [1.0, 0.0, 0.0, 0.0]])
    >>> simulate(weight, "int4_group_32", channels=torch.tensor([0]))
    tensor([[ 7., -4.,  0.,  2.]])
    """
    return simulate_cut(CutWeight(weight, name), key, channels)


def simulate_cut(cut: CutWeight, key: str, channels: Tensor | None = None) -> Tensor:
    """`simulate` of a weight that is wanted in several formats; ``channels``: the numbers ``[n]`` of those wanted."""
    fmt = get_format(key)
    if fmt.is_float or len(cut.shape) < 2 or not cut.weight.numel():
        whole = dequantize(quantize(cut.original, key, cut.name))
        return whole if channels is None else whole[channels]
    if fmt.two_level:
        codes, scales, multipliers = encode(cut.blocks(fmt), cut.magnitudes(fmt), fmt)
        values = codes.mul_(multipliers[..., None]).mul_(scales.float()[:, None, None])
        whole = unblocked(values, cut.shape).contiguous()
        return whole if channels is None else whole[channels]
    scales, zero = cut.scales(fmt)
    step, blocks, shape = scales.float(), cut.blocks(fmt), cut.shape
    if channels is not None:
        shape = (len(channels), *shape[1:])
        blocks = blocks_of(cut.weight[channels].reshape(len(channels), -1), fmt)
        if fmt.granularity != "tensor":
            step, zero = step[channels], None if zero is None else zero[channels]
    return unblocked(_rounded(blocks, step, zero, fmt.code_range), shape).contiguous()


def stored_nbytes(weight: Tensor, key: str, name: str = "") -> int:
    """Bytes that a weight takes in a file, exactly: ``quantize(weight, key).nbytes`` from its scales alone.

    Args:
        weight: output channels first, ``[out, ...]``.
        key: key of the format.
        name: the layer, for error messages.

    Raises:
        InputError: as `quantize`.

    >>> stored_nbytes(torch.ones(2, 4), "int4_group_32"), stored_nbytes(torch.full((2, 4), 1e-9), "int4_group_32")
    (8, 12)
    """
    return stored_nbytes_cut(CutWeight(weight, name), key)


def stored_nbytes_cut(cut: CutWeight, key: str) -> int:
    """`stored_nbytes` of a weight that is wanted in several formats."""
    fmt = get_format(key)
    if fmt.is_float or len(cut.shape) < 2 or not cut.weight.numel():
        return quantize(cut.original, key, cut.name).nbytes
    scales = (channel_scales(cut.magnitudes(fmt), fmt) if fmt.two_level else cut.scales(fmt))[0]
    return quantized_nbytes(cut.shape, key) + 2 * scales.numel() * (scales.dtype == torch.float32)


def _rounded(blocks: Tensor, step: Tensor, zero: Tensor | None, code_range: tuple[int, int]) -> Tensor:
    """``(clamp(round(blocks / step + zero)) - zero) * step``, piece by piece; ``[rows, blocks, weights]``."""
    result = torch.empty_like(blocks, memory_format=torch.contiguous_format)
    # A tensor under one scale is a single row; seen as a column of weights it can be cut up too.
    one_scale = step.numel() == 1
    source, target = (x.reshape(-1, 1, 1) if one_scale else x for x in (blocks, result))
    rows = max(1, PIECE // (source.shape[1] * source.shape[2]))
    for start in range(0, len(source), rows):
        part = slice(start, start + rows)
        scale = step if one_scale else step[part]
        offset = zero if zero is None or one_scale else zero[part]
        piece = torch.div(source[part], scale, out=target[part])
        if offset is not None:
            piece += offset
        piece.round_().clamp_(*code_range)
        if offset is not None:
            piece -= offset
        piece *= scale
    return result
