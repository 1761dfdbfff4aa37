"""Numbers as C libraries print them."""

import math
from pathlib import Path

import pytest

from vggtkit.core.errors import InputError
from vggtkit.scenes.text_files import read_numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-1.#INF", -math.inf),
        ("1.#INF00", math.inf),
        ("-1.#IND", math.nan),
        ("1.#QNAN0", math.nan),
        ("-nan(ind)", math.nan),
        ("nan", math.nan),
        ("-inf", -math.inf),
    ],
)
def test_numbers_that_are_none_are_read_as_such(tmp_path: Path, text: str, value: float) -> None:
    (tmp_path / "a.txt").write_text(f"# pose\n0.5 {text} 2 # comment\n\n")
    ((line, (before, read, after)),) = read_numbers(tmp_path / "a.txt", "pose")
    assert (line, before, after) == (2, 0.5, 2.0)
    assert read == value or (math.isnan(read) and math.isnan(value))


@pytest.mark.parametrize("text", ["2.#INF", "infinite-loop", "1.#", "x#1"])
def test_other_words_are_no_numbers(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(f"nothing {text}\n")
    with pytest.raises(InputError, match="line 1 is not all numbers"):
        read_numbers(tmp_path / "a.txt", "pose")
