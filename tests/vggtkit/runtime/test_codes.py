"""Weights as INT8 per channel: bit for bit where they are, with the error measured where they are not."""

import numpy as np
import pytest
import torch

from vggtkit.quant import FORMATS, TWO_LEVEL, dequantize, quantize
from vggtkit.runtime.codes import converted, expanded, is_int8

EXACT = ("int8_per_channel_sym", "int8_per_tensor_sym", *TWO_LEVEL)


def weight(rows: int = 6, columns: int = 100) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def test_which_formats_are() -> None:
    assert [key for key in FORMATS if is_int8(key)] == [key for key in FORMATS if key in EXACT]


@pytest.mark.parametrize("key", EXACT)
def test_the_same_numbers_bit_for_bit(key: str) -> None:
    q = quantize(weight(), key)
    codes, scales = expanded(q)
    assert codes.dtype == torch.int8
    assert (codes * scales[:, None]).equal(dequantize(q))


@pytest.mark.parametrize("key", ["int4_group_32", "int8_per_channel_asym", "fp16"])
def test_other_formats_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        expanded(quantize(weight(), key))


@pytest.mark.parametrize("key", ["int4_group_32", "int3_asym_64", "int8_per_channel_asym"])
def test_the_error_of_converting_is_that_of_one_more_rounding(key: str) -> None:
    q = quantize(weight(), key)
    before = dequantize(q).numpy().astype(np.float64)
    after, error = converted(q)
    steps = np.abs(before).max(1, keepdims=True) / 127
    assert np.abs(dequantize(after).numpy() - before).max() <= (0.51 * steps).max()
    assert error == pytest.approx(
        np.square(dequantize(after).numpy() - before).sum() / np.square(before).sum(), rel=1e-4
    )
    assert 0 < error < 1e-3
