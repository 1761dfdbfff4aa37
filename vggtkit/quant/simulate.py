"""The weight that a format stands for, without packing it in between: what profiles and simulations run with.

Bit for bit ``dequantize(quantize(weight, key))``, two to six times as fast: all arithmetic is done in place on pieces
that stay in the processor's cache (measured on one core at 2^15 to 2^20 weights: 0.31 ns a weight, 0.69 without
pieces), and no codes are packed and unpacked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vggtkit.quant.formats import get_format
from vggtkit.quant.quantizer import _blocks, _extremes, _ideal_scales, _unblock, dequantize, quantize, quantized_nbytes
from vggtkit.quant.scales import stored_scales
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
    fmt = get_format(key)
    if fmt.is_float or weight.ndim < 2 or not weight.numel():
        whole = dequantize(quantize(weight, key, name))
        return whole if channels is None else whole[channels]
    weight = weight.detach().to(torch.float32)
    blocks = _blocks(weight.reshape(len(weight), -1), fmt)
    low, high = _extremes(blocks, f"weight of {name}" if name else "weight")
    if fmt.two_level:
        codes, scales, multipliers = encode(blocks, fmt)
        values = codes.mul_(multipliers[..., None]).mul_(scales.float()[:, None, None])
        whole = _unblock(values, weight.shape).contiguous()
        return whole if channels is None else whole[channels]
    step = stored_scales(_ideal_scales(low, high, fmt), fmt.code_range[1]).float()
    zero = None if fmt.symmetric else (-low / step).round_().clamp_(*fmt.code_range)
    shape = weight.shape
    if channels is not None:
        shape = torch.Size((len(channels), *shape[1:]))
        chosen = weight[channels].reshape(len(channels), -1)
        blocks = _blocks(chosen, fmt)
        if fmt.granularity != "tensor":
            step, zero = step[channels], None if zero is None else zero[channels]
    return _unblock(_rounded(blocks, step, zero, fmt.code_range), shape).contiguous()


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
    fmt = get_format(key)
    if fmt.is_float or weight.ndim < 2 or not weight.numel():
        return quantize(weight, key, name).nbytes
    blocks = _blocks(weight.detach().to(torch.float32).reshape(len(weight), -1), fmt)
    low, high = _extremes(blocks, f"weight of {name}" if name else "weight")
    if fmt.two_level:
        scales, _ = channel_scales(torch.cat([low, high], -1), fmt)  # they depend on the extremes alone
    else:
        scales = stored_scales(_ideal_scales(low, high, fmt), fmt.code_range[1])
    return quantized_nbytes(weight.shape, key) + 2 * scales.numel() * (scales.dtype == torch.float32)


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
