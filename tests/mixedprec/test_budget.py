"""Budgets: every unit exact, every nonsense refused in one line."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixedprec.budget import format_bytes, parse_budget
from vggtkit.core.errors import InputError

VGGT_1B = {"parameters": 1_256_537_516, "fp32_bytes": 5_026_150_064}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("600MB", 600_000_000),
        ("0.6GB", 600_000_000),
        (" 600 mb ", 600_000_000),
        ("572MiB", 572 * 2**20),
        ("1GiB", 2**30),
        ("1.5gib", 3 * 2**29),
        ("500KB", 500_000),
        ("500KiB", 512_000),
        ("123456B", 123_456),
        ("123456", 123_456),
        ("1e6", 1_000_000),
        (".5MB", 500_000),
        ("4.2bpw", 659_682_195),  # 1_256_537_516 * 4.2 / 8 = 659_682_195.9
        ("4.2 BPW", 659_682_195),
        ("15%", 753_922_509),  # 753_922_509.6
        ("100 %", 5_026_150_064),
        ("2.9B", 2),
    ],
)
def test_every_unit_reads_as_exact_bytes_rounded_down(text: str, expected: int) -> None:
    assert parse_budget(text, **VGGT_1B) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("12parsecs", "-5MB", "0", "0MB", "0%", "nan", "inf", "infMB", "", "  ", "MB", "1 2MB", "1,5MB"),
        *("0.5B", "1.2.3MB", "600Mb/s", "1e999GB", "\u0661MB", "--budget", "6" * 500 + "parsecs"),
    ],
)
def test_nonsense_is_refused_in_one_line_naming_value_and_forms(text: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_budget(text, **VGGT_1B)
    message = str(refusal.value)
    assert "\n" not in message
    assert len(message) < 250
    assert repr(text)[:30].rstrip("'") in message
    assert all(form in message for form in ("600MB", "MiB", "bpw", "%"))


@given(st.integers(1, 10**9), st.integers(0, 6), st.sampled_from([("KB", 10**3), ("MB", 10**6), ("GiB", 2**30)]))
def test_decimals_are_read_exactly(digits: int, places: int, unit: tuple[str, int]) -> None:
    """Against fractions: no float rounding, ever (0.1 + 0.2 style bytes lost)."""
    whole, part = divmod(digits, 10**places)
    text = f"{whole}.{part:0{places}d}{unit[0]}" if places else f"{whole}{unit[0]}"
    expected = Fraction(digits, 10**places) * unit[1] // 1
    if expected >= 1:
        assert parse_budget(text, parameters=1, fp32_bytes=4) == expected


def test_bytes_are_written_in_megabytes() -> None:
    assert format_bytes(600_000_000) == "600.00 MB"
    assert format_bytes(5_684_321) == "5.68 MB"
    assert (format_bytes(100_000), format_bytes(99_999)) == ("0.10 MB", "99.999 kB")
