"""Byte budgets as people write them: ``600MB``, ``572MiB``, ``4.2bpw``, ``15%``, or the name of a scheme."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from vggtkit.core.errors import InputError
from vggtkit.quant import FORMATS, candidates

ACCEPTED = "600MB, 0.6GB, 500KB, 572MiB, 1GiB, 500KiB, 123456B, 4.2bpw (bits per parameter) or 15% (of FP32)"
FP32_BYTES = 4

Per = Literal["byte", "parameter", "fp32 byte", "scheme"]

# Unit -> what an amount of 1 is counted in, and how much of it.
_UNITS: Mapping[str, tuple[Per, Fraction]] = {
    "": ("byte", Fraction(1)),
    "b": ("byte", Fraction(1)),
    "kb": ("byte", Fraction(10**3)),
    "mb": ("byte", Fraction(10**6)),
    "gb": ("byte", Fraction(10**9)),
    "kib": ("byte", Fraction(2**10)),
    "mib": ("byte", Fraction(2**20)),
    "gib": ("byte", Fraction(2**30)),
    "bpw": ("parameter", Fraction(1, 8)),
    "%": ("fp32 byte", Fraction(1, 100)),
}
# [0-9], as \d would also take digits of other scripts; a short exponent, so that no number is astronomic.
_BUDGET = re.compile(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,2})?\s*([a-z]*|%)\s*", re.IGNORECASE)
_BINARY = {"kb": "KiB", "mb": "MiB", "gb": "GiB"}


@dataclass(frozen=True)
class Budget:
    """How large a whole file may be.

    Attributes:
        per: what ``amount`` is counted in: bytes; bytes per parameter of the model; bytes per byte of the model in
            FP32; or the file that a scheme would make.
        amount: exact; 1 for a scheme.
        text: as it was written, for files and messages.
        scheme: key of a format; "" for an amount.

    >>> Budget("parameter", Fraction(1, 2), "4bpw").in_bytes(parameters=9)
    4
    """

    per: Per
    amount: Fraction
    text: str
    scheme: str = ""

    @staticmethod
    def of_bytes(size_bytes: int) -> Budget:
        """So many bytes.

        >>> Budget.of_bytes(600).text
        '600B'
        """
        return Budget("byte", Fraction(size_bytes), f"{size_bytes}B")

    def in_bytes(self, *, parameters: int, fp32_bytes: int | None = None) -> int:
        """The budget in bytes, rounded down.

        Args:
            parameters: of the model.
            fp32_bytes: size of the model in FP32; by default that of its parameters.

        Raises:
            InputError: it is below one byte.
            ValueError: it is that of a scheme, which only the layers' bytes tell.
        """
        if self.scheme:
            raise ValueError(f"the bytes of {self.scheme} depend on the layers")
        fp32_bytes = FP32_BYTES * parameters if fp32_bytes is None else fp32_bytes
        count = {"byte": 1, "parameter": parameters, "fp32 byte": fp32_bytes}[self.per]
        size_bytes = int(self.amount * count)
        if size_bytes < 1:
            raise _refusal(self.text, "is less than one byte")
        return size_bytes

    @property
    def binary(self) -> Budget | None:
        """The binary namesake of a budget in decimal units, such as 600 MiB for 600 MB.

        >>> read_budget("600MB").binary.text, read_budget("4.2bpw").binary
        ('600MiB', None)
        """
        match = _BUDGET.fullmatch(self.text)
        if self.scheme or match is None or match[2] or match[3].lower() not in _BINARY:
            return None
        return read_budget(f"{match[1]}{_BINARY[match[3].lower()]}")


def read_budget(text: str) -> Budget:
    """Read a budget for a whole file.

    Units are case-insensitive, spaces are allowed, and the arithmetic is exact: ``0.6GB`` is 600,000,000
    bytes, not a byte less. 1 MB is 10^6 bytes, 1 MiB is 2^20.

    Args:
        text: what the user typed: an amount, or the key of a format for the file that it would make.

    Raises:
        InputError: ``text`` is neither a positive amount in an accepted unit nor a format; where formats begin so,
            they are named.

    >>> read_budget("15%").per, read_budget("int4_group_32").scheme
    ('fp32 byte', 'int4_group_32')
    """
    if text.strip() in FORMATS:
        return Budget("scheme", Fraction(1), text.strip(), scheme=text.strip())
    match = _BUDGET.fullmatch(text)
    if match is None:
        raise _refusal(text, "is not a positive size")
    mantissa, exponent, unit = match.groups()
    if unit.lower() not in _UNITS:
        raise _refusal(text, f"has the unknown unit {unit!r}")
    per, size = _UNITS[unit.lower()]
    budget = Budget(per, Fraction(mantissa + (exponent or "")) * size, text)
    if not budget.amount or (per == "byte" and budget.amount < 1):
        raise _refusal(text, "is less than one byte")
    return budget


def parse_budget(text: str, *, parameters: int, fp32_bytes: int) -> int:
    """Read an amount for a whole file and return it in bytes, rounded down.

    Args:
        text: what the user typed, as for `read_budget`.
        parameters: parameters of the model; what ``bpw`` counts.
        fp32_bytes: size of the model in FP32, in bytes; what ``%`` refers to.

    Returns:
        The budget in bytes, at least 1.

    Raises:
        InputError: as `read_budget`, or ``text`` names a format.

    >>> parse_budget("0.6 GB", parameters=1_256_537_516, fp32_bytes=5_026_150_064)
    600000000
    >>> parse_budget("4.2bpw", parameters=1000, fp32_bytes=4000)
    525
    >>> parse_budget("15%", parameters=1000, fp32_bytes=4000)
    600
    """
    budget = read_budget(text)
    if budget.scheme:
        raise _refusal(text, "is not a positive size")
    return budget.in_bytes(parameters=parameters, fp32_bytes=fp32_bytes)


def format_bytes(size_bytes: int) -> str:
    """Write a byte count in MB (10^6 bytes) with two decimals; what would have too few digits then, exactly in kB.

    >>> format_bytes(600_000_000), format_bytes(4_997)
    ('600.00 MB', '4.997 kB')
    """
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.3f} kB"


def _refusal(text: str, why: str) -> InputError:
    shown = text if len(text) <= 40 else text[:37] + "..."
    beginning = text.strip()
    meant = [key for key in candidates() if beginning and key.startswith(f"{beginning}_")]
    named = f", nor is it one of the schemes {', '.join(meant)}" if meant else ""
    return InputError(f"budget {shown!r} {why}{named}; write it as {ACCEPTED}")
