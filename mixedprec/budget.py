"""Byte budgets as people write them: ``600MB``, ``572MiB``, ``4.2bpw``, ``15%``."""

from __future__ import annotations

import re
from fractions import Fraction

from vggtkit.core.errors import InputError

ACCEPTED = "600MB, 0.6GB, 500KB, 572MiB, 1GiB, 500KiB, 123456B, 4.2bpw (bits per parameter) or 15% (of FP32)"

_BYTES_PER_UNIT = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
# [0-9], as \d would also take digits of other scripts; a short exponent, so that no number is astronomic.
_BUDGET = re.compile(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,2})?\s*([a-z]*|%)\s*", re.IGNORECASE)


def parse_budget(text: str, *, parameters: int, fp32_bytes: int) -> int:
    """Read a budget for a whole file and return it in bytes, rounded down.

    Units are case-insensitive, spaces are allowed, and the arithmetic is exact: ``0.6GB`` is 600,000,000
    bytes, not a byte less. 1 MB is 10^6 bytes, 1 MiB is 2^20.

    Args:
        text: what the user typed.
        parameters: parameters of the model; what ``bpw`` counts.
        fp32_bytes: size of the model in FP32, in bytes; what ``%`` refers to.

    Returns:
        The budget in bytes, at least 1.

    Raises:
        InputError: ``text`` is not a positive amount in an accepted unit, or is below one byte.

    >>> parse_budget("0.6 GB", parameters=1_256_537_516, fp32_bytes=5_026_150_064)
    600000000
    >>> parse_budget("4.2bpw", parameters=1000, fp32_bytes=4000)
    525
    >>> parse_budget("15%", parameters=1000, fp32_bytes=4000)
    600
    """
    match = _BUDGET.fullmatch(text)
    if match is None:
        raise _refusal(text, "is not a positive size")
    mantissa, exponent, unit = match.groups()
    bytes_per_unit = _unit_bytes(unit.lower(), parameters, fp32_bytes)
    if bytes_per_unit is None:
        raise _refusal(text, f"has the unknown unit {unit!r}")
    budget = int(Fraction(mantissa + (exponent or "")) * bytes_per_unit)
    if budget < 1:
        raise _refusal(text, "is less than one byte")
    return budget


def format_bytes(size_bytes: int) -> str:
    """Write a byte count in MB (10^6 bytes) with two decimals.

    >>> format_bytes(600_000_000)
    '600.00 MB'
    """
    return f"{size_bytes / 1e6:.2f} MB"


def _unit_bytes(unit: str, parameters: int, fp32_bytes: int) -> Fraction | None:
    if unit == "bpw":
        return Fraction(parameters, 8)
    if unit == "%":
        return Fraction(fp32_bytes, 100)
    known = _BYTES_PER_UNIT.get(unit)
    return None if known is None else Fraction(known)


def _refusal(text: str, why: str) -> InputError:
    shown = text if len(text) <= 40 else text[:37] + "..."
    return InputError(f"budget {shown!r} {why}; write it as {ACCEPTED}")
