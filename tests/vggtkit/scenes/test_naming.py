"""Numbered files come in the order of their numbers, padded or not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggtkit.scenes.naming import natural_key

numbers = st.lists(st.integers(0, 10**7), unique=True, max_size=20)


@given(numbers=numbers, width=st.integers(0, 6), stem=st.sampled_from(["", "frame", "IMG_", "a b/cam0_"]))
def test_order_of_names_is_the_order_of_numbers(numbers: list[int], width: int, stem: str) -> None:
    names = [f"{stem}{number:0{width}}.png" for number in numbers]
    expected = [f"{stem}{number:0{width}}.png" for number in sorted(numbers)]
    assert sorted(names, key=natural_key) == expected


@given(numbers=numbers)
def test_names_of_equal_length_keep_the_plain_order(numbers: list[int]) -> None:
    """So that nothing changes for folders whose numbers are padded."""
    names = [f"frame-{number:08}.color.png" for number in numbers]
    assert sorted(names, key=natural_key) == sorted(names)


@given(micros=st.lists(st.integers(0, 1_999_999), unique=True, max_size=20))
def test_unix_times_are_ordered_as_decimals(micros: list[int]) -> None:
    """Python writes 1305031452.8, not 1305031452.800000."""
    times = [(1305031452 * 10**6 + micro) / 10**6 for micro in micros]
    assert sorted((f"{time!r}.png" for time in times), key=natural_key) == [f"{time!r}.png" for time in sorted(times)]


@pytest.mark.parametrize("digits", [5000, 4])
def test_numbers_of_any_length_are_ordered(digits: int) -> None:
    names = [f"{'9' * digits}.png", f"1{'0' * digits}.png", f"{'8' * digits}.png"]
    assert sorted(names, key=natural_key) == [names[2], names[0], names[1]]


def test_every_key_differs() -> None:
    names = [Path("1.png").name, "01.png", "001.png", "1.PNG"]
    assert len({natural_key(name) for name in names}) == 4
