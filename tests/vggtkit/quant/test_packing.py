"""Codes of any width into bytes and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vggtkit.quant.packing import pack_codes, packed_nbytes, unpack_codes


@st.composite
def codes_of_any_width(draw: st.DrawFn) -> tuple[list[int], int, bool]:
    bits, signed = draw(st.integers(1, 8)), draw(st.booleans())
    low = -(2 ** (bits - 1)) if signed else 0
    return draw(st.lists(st.integers(low, low + 2**bits - 1), max_size=40)), bits, signed


def as_tensor(codes: list[int], signed: bool) -> torch.Tensor:
    return torch.tensor(codes, dtype=torch.int8 if signed else torch.uint8)


@given(codes_of_any_width())
def test_packed_bytes_are_the_codes_bits_laid_end_to_end(case: tuple[list[int], int, bool]) -> None:
    """Against one big Python integer, whose bits are the codes'."""
    codes, bits, signed = case
    stream = sum((code % 2**bits) << (i * bits) for i, code in enumerate(codes))
    expected = stream.to_bytes(-(-len(codes) * bits // 8), "little")
    assert bytes(pack_codes(as_tensor(codes, signed), bits).tolist()) == expected
    assert packed_nbytes(len(codes), bits) == len(expected)


@given(codes_of_any_width())
def test_unpack_undoes_pack(case: tuple[list[int], int, bool]) -> None:
    codes, bits, signed = case
    tensor = as_tensor(codes, signed)
    back = unpack_codes(pack_codes(tensor, bits), bits, len(codes), signed=signed)
    torch.testing.assert_close(back, tensor, rtol=0, atol=0)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_unpack_leaves_its_input_alone(bits: int) -> None:
    packed = torch.arange(3 * bits, dtype=torch.uint8) * 37
    before = packed.clone()
    unpack_codes(packed, bits, 24, signed=True)
    assert packed.equal(before)


def test_codes_of_any_shape_are_flattened_in_row_major_order() -> None:
    codes = torch.arange(6, dtype=torch.uint8).view(2, 3)
    assert pack_codes(codes.t(), 4).equal(pack_codes(torch.tensor([0, 3, 1, 4, 2, 5], dtype=torch.uint8), 4))


@pytest.mark.parametrize(("code", "dtype"), [(8, torch.int8), (-9, torch.int8), (16, torch.uint8)])
def test_code_that_does_not_fit_is_refused(code: int, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="do not fit 4 bits"):
        pack_codes(torch.tensor([0, code], dtype=dtype), 4)


def test_wrong_dtype_width_or_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torch\.int32"):
        pack_codes(torch.zeros(2, dtype=torch.int32), 4)
    with pytest.raises(ValueError, match="1 to 8"):
        pack_codes(torch.zeros(2, dtype=torch.int8), 9)
    with pytest.raises(ValueError, match=r"shape \[2\]"):
        unpack_codes(torch.zeros(3, dtype=torch.uint8), 4, 4, signed=True)
