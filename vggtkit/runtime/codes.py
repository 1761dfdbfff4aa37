"""Packed weights as INT8 per channel, which is what integer kernels run."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vggtkit.quant import QuantizedTensor, as_int8_per_channel, dequantize, get_format, quantize

PER_CHANNEL = "int8_per_channel_sym"
_AS_THEY_ARE = (PER_CHANNEL, "int8_per_tensor_sym")


class Int8Weight(NamedTuple):
    """``codes[out, in] * scales[out]``.

    Attributes:
        codes: int8.
        scales: FP32.
    """

    codes: Tensor
    scales: Tensor


def is_int8(format_key: str) -> bool:
    """Whether weights in a format are INT8 per channel, bit for bit.

    >>> [is_int8(key) for key in ("int3_two_level_16", "int8_per_tensor_sym", "int4_group_32", "fp16")]
    [True, True, False, False]
    """
    return format_key in _AS_THEY_ARE or get_format(format_key).two_level


def expanded(q: QuantizedTensor) -> Int8Weight:
    """A weight in one of these formats as whole numbers; codes of 8 bits share memory with it.

    Raises:
        ValueError: another format.

    >>> q = quantize(torch.tensor([[14.0, 7.0, -3.0, 0.5]]), "int4_two_level_16")
    >>> codes, scales = expanded(q)
    >>> (codes * scales[:, None]).equal(dequantize(q))
    True
    """
    if not is_int8(q.format.key):
        raise ValueError(f"{q.format.key} is not INT8 per channel")
    if q.format.two_level:
        q = as_int8_per_channel(q)
    assert q.scales is not None
    rows = q.shape[0]
    return Int8Weight(q.codes.view(torch.int8).view(rows, -1), q.scales.float().expand(rows))


def converted(q: QuantizedTensor) -> tuple[QuantizedTensor, float]:
    """A weight rounded once more, to INT8 per channel, and the NMSE of that against the weight in the file.

    >>> q, error = converted(quantize(torch.tensor([[1.0, 3.0, -7.0, 100.0]]), "int4_group_32"))
    >>> q.format.key, 0 <= error < 1e-4
    ('int8_per_channel_sym', True)
    """
    before = dequantize(q)
    after = quantize(before, PER_CHANNEL)
    power = float(before.square().sum())
    return after, float((dequantize(after) - before).square().sum()) / power if power else 0.0
