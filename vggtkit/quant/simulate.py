"""The weight that a format stands for, without packing it in between: what profiles and simulations run with.

Bit for bit ``dequantize(quantize(weight, key))``, two to six times as fast: all arithmetic is done in place on pieces
that stay in the processor's cache (measured on one core at 2^15 to 2^20 weights: 0.31 ns a weight, 0.69 without
pieces), and no codes are packed and unpacked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from vggtkit.quant.blocks import CutWeight
from vggtkit.quant.formats import Format, get_format
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
    count = cut.shape[0] if channels is None else len(channels)
    result = torch.empty(count, math.prod(cut.shape[1:]), device=cut.weight.device)
    rounded = _rounded_rows(cut, key)
    for part in _parts(count, result.shape[1], PIECE):
        rounded(part if channels is None else channels[part], result[part])
    return result.view(count, *cut.shape[1:])


def simulate_pieces(cut: CutWeight, keys: Sequence[str], at_once: int = PIECE) -> Iterator[tuple[slice, Tensor]]:
    """`simulate` in several formats, some output channels at a time: what is made of them is done in the cache.

    Args:
        cut: the weight.
        keys: of the formats.
        at_once: weights of a piece, about; whole output channels, one at least.

    Yields:
        Which weights of the flattened weight a piece is, and float32 ``[keys, weights of the piece]``, in memory that
        the next one takes over.

    Raises:
        InputError: as `quantize`.

    >>> weight = torch.tensor([[7.0, -3.5, 0.0, 2.0], [14.0, 0.0, 0.0, 0.0]])
    >>> [(part, made.tolist()) for part, made in simulate_pieces(CutWeight(weight), ["int4_group_32"], at_once=4)]
    [(slice(0, 4, None), [[7.0, -4.0, 0.0, 2.0]]), (slice(4, 8, None), [[14.0, 0.0, 0.0, 0.0]])]
    """
    cut.look_for(map(get_format, keys))
    rounded = [_rounded_rows(cut, key) for key in keys]
    count, width = cut.shape[0], math.prod(cut.shape[1:])
    parts = list(_parts(count, width, at_once))
    room = torch.empty(len(keys), (parts[0].stop if parts else 0) * width, device=cut.weight.device)
    for part in parts:
        piece = room[:, : (part.stop - part.start) * width]
        for rounds, made in zip(rounded, piece, strict=True):
            rounds(part, made.view(-1, width))
        yield slice(part.start * width, part.stop * width), piece


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


RoundedRows = Callable[[slice | Tensor, Tensor], None]
"""Writes some output channels of a weight, rounded to a format, to ``[channels, weights of one]``."""


def _parts(count: int, width: int, at_once: int) -> Iterator[slice]:
    """Output channels of so many weights each, about so many weights at a time."""
    rows = max(1, at_once // max(1, width))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def _rounded_rows(cut: CutWeight, key: str) -> RoundedRows:
    fmt = get_format(key)
    if fmt.is_float or len(cut.shape) < 2 or not cut.weight.numel():
        whole = dequantize(quantize(cut.original, key, cut.name)).reshape(cut.shape[0], math.prod(cut.shape[1:]))
        return partial(_copied, whole)
    if fmt.two_level:
        return partial(_encoded, fmt, cut.blocks(fmt), cut.magnitudes(fmt))
    scales, zero = cut.scales(fmt)
    if fmt.granularity == "tensor":
        blocks = cut.weight.reshape(cut.shape[0], 1, -1)
        scales, zero = scales.expand(cut.shape[0], 1, 1), None if zero is None else zero.expand(cut.shape[0], 1, 1)
    else:
        blocks = cut.blocks(fmt)
    return partial(_scaled, fmt, blocks, scales.float(), zero)


def _copied(whole: Tensor, part: slice | Tensor, out: Tensor) -> None:
    out.copy_(whole[part])


def _encoded(fmt: Format, blocks: Tensor, magnitudes: Tensor, part: slice | Tensor, out: Tensor) -> None:
    codes, scales, multipliers = encode(blocks[part], magnitudes[part], fmt)
    values = codes.mul_(multipliers[..., None]).mul_(scales.float()[:, None, None])
    out.copy_(values.flatten(1)[:, : out.shape[1]])


def _scaled(
    fmt: Format, blocks: Tensor, steps: Tensor, zeros: Tensor | None, part: slice | Tensor, out: Tensor
) -> None:  # fmt: skip
    """``(clamp(round(weight / step + zero)) - zero) * step``."""
    some, step, zero = blocks[part], steps[part], None if zeros is None else zeros[part]
    whole = some.shape[1] * some.shape[2] == out.shape[1]  # no group is ragged
    piece = torch.div(some, step, out=out.view(some.shape)) if whole else some / step
    if zero is not None:
        piece += zero
    piece.round_().clamp_(*fmt.code_range)
    if zero is not None:
        piece -= zero
    piece *= step
    if not whole:
        out.copy_(piece.flatten(1)[:, : out.shape[1]])
