"""Integer codes of 1 to 8 bits, packed densely into bytes and back, exactly.

Codes are laid end to end along the flattened tensor, the first code in the lowest bits of the first byte:
8-bit codes take one byte each, two 4-bit codes share one, eight 3-bit codes share three. Signed codes are
stored in two's complement. Only the last byte may hold unused (zero) bits.
"""

import math

import torch
from torch import Tensor

_HALVES = {2: torch.int16, 4: torch.int32}
"""Types that hold eight codes exactly, by bits."""


def packed_nbytes(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take.

    >>> packed_nbytes(5, 4)
    3
    """
    return (count * bits + 7) // 8


def _word(bits: int) -> tuple[int, int, torch.dtype]:
    """Smallest run of codes that ends on a byte: codes in it, bytes in it, dtype that holds it."""
    if not 1 <= bits <= 8:
        raise ValueError(f"bits is {bits}, must be 1 to 8")
    word_bits = math.lcm(bits, 8)
    return word_bits // bits, word_bits // 8, torch.uint8 if word_bits == 8 else torch.int64


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack integer codes into bytes.

    Args:
        codes: int8 (signed) or uint8 (unsigned) codes of any shape, each representable in ``bits`` bits.
        bits: 1 to 8.

    Returns:
        uint8 of shape ``[ceil(codes.numel() * bits / 8)]``; may share memory with 8-bit ``codes``.

    Raises:
        ValueError: wrong dtype or ``bits``, or a code that does not fit.

    >>> pack_codes(torch.tensor([1, -1, 7], dtype=torch.int8), bits=4)
    tensor([241,   7], dtype=torch.uint8)
    """
    per_word, bytes_per_word, dtype = _word(bits)
    _check_codes(codes, bits)
    flat = codes.reshape(-1).view(torch.uint8)
    if bits == 8:
        return flat
    if flat.numel() % per_word:
        flat = torch.nn.functional.pad(flat, (0, -flat.numel() % per_word))
    columns = flat.view(-1, per_word)
    words = torch.zeros(len(columns), dtype=dtype, device=flat.device)
    for i in range(per_word):
        words |= (columns[:, i] & (2**bits - 1)).to(dtype) << (bits * i)
    if bytes_per_word > 1:
        words = torch.stack([(words >> (8 * j) & 0xFF).to(torch.uint8) for j in range(bytes_per_word)], dim=1)
    return words.view(-1)[: packed_nbytes(codes.numel(), bits)]


def _check_codes(codes: Tensor, bits: int) -> None:
    if codes.dtype not in (torch.int8, torch.uint8):
        raise ValueError(f"codes are {codes.dtype}, must be torch.int8 or torch.uint8")
    if bits == 8 or not codes.numel():
        return
    low, high = (int(bound) for bound in codes.aminmax())
    lowest = -(2 ** (bits - 1)) if codes.dtype == torch.int8 else 0
    highest = lowest + 2**bits - 1
    if low < lowest or high > highest:
        raise ValueError(f"codes in [{low}, {high}] do not fit {bits} bits ([{lowest}, {highest}])")


def unpack_codes(packed: Tensor, bits: int, count: int, *, signed: bool) -> Tensor:
    """Undo ``pack``.

    Args:
        packed: uint8 of shape ``[ceil(count * bits / 8)]``.
        bits: 1 to 8.
        count: number of codes.
        signed: whether int8 codes were packed.

    Returns:
        int8 if ``signed``, else uint8, of shape ``[count]``; may share memory with 8-bit ``packed``.

    Raises:
        ValueError: ``packed`` has another dtype or length.

    >>> unpack_codes(torch.tensor([241, 7], dtype=torch.uint8), bits=4, count=3, signed=True)
    tensor([ 1, -1,  7], dtype=torch.int8)
    """
    _word(bits)
    if packed.dtype != torch.uint8 or packed.shape != (packed_nbytes(count, bits),):
        expected = f"torch.uint8 of shape [{packed_nbytes(count, bits)}]"
        raise ValueError(f"packed codes are {packed.dtype} of shape {list(packed.shape)}, must be {expected}")
    if bits == 8:
        return packed.view(torch.int8) if signed else packed
    codes = _spread(_words(packed, bits), bits).view(torch.uint8)[:count]
    if not signed:
        return codes
    sign_bit = 2 ** (bits - 1)  # two's complement: flipping and subtracting the sign bit extends it to 8 bits
    return codes.bitwise_xor_(sign_bit).view(torch.int8).sub_(sign_bit)


def _words(packed: Tensor, bits: int) -> Tensor:
    """Eight codes a word, in its lowest ``8 * bits`` bits, int64."""
    if packed.numel() % bits:
        packed = torch.nn.functional.pad(packed, (0, -packed.numel() % bits))
    if bits in _HALVES and packed.storage_offset() % bits == 0:
        words = packed.view(_HALVES[bits]).to(torch.int64)
        words &= 2 ** (8 * bits) - 1  # without the copies of its sign that the type was widened with
        return words
    parts = packed.view(-1, bits)
    words = parts[:, 0].to(torch.int64, memory_format=torch.contiguous_format)
    for j in range(1, bits):
        words |= parts[:, j].to(torch.int64) << (8 * j)
    return words


def _spread(words: Tensor, bits: int) -> Tensor:
    """The eight codes of every word a byte each, in place: halved three times, the upper halves moved up."""
    for codes in (4, 2, 1):
        lower = words & sum((2 ** (bits * codes) - 1) << start for start in range(0, 64, 16 * codes))
        words ^= lower
        words <<= (8 - bits) * codes
        words |= lower
    return words
