"""Which formats a plan may use."""

import pytest

from errors import InputError
from mixedprec.palette import automatic, parse_formats
from quant import CANDIDATES, INT3_GROUPS, UNIFORM_SCHEMES

INT8, INT4 = UNIFORM_SCHEMES[:4], UNIFORM_SCHEMES[4:]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int8,int4", UNIFORM_SCHEMES),
        ("int4", INT4),
        (" int4 , int8 ", UNIFORM_SCHEMES),
        ("+int3", CANDIDATES),
        ("+int3_group_32", (*UNIFORM_SCHEMES, "int3_group_32")),
        ("int8_per_channel_sym,int4_group_64", ("int8_per_channel_sym", "int4_group_64")),
        ("int4_group_64,int8_per_channel_sym", ("int8_per_channel_sym", "int4_group_64")),
        ("int8_per_channel", ("int8_per_channel_sym", "int8_per_channel_asym")),
        ("int4,+int3", INT4 + INT3_GROUPS),
    ],
)
def test_beginnings_of_keys_choose_formats(text: str, expected: tuple[str, ...]) -> None:
    assert parse_formats(text, CANDIDATES) == expected


@pytest.mark.parametrize("text", ["int5", "", "int8,", "+", "int", "int4_group_1", "int8_per_channel_sym_", "INT4!"])
def test_what_matches_nothing_is_refused_with_the_choices(text: str) -> None:
    """Half a word is no beginning: ``int4_group_1`` is not ``int4_group_128``."""
    with pytest.raises(InputError, match=r"--formats: .* matches none of the profiled formats int8_per_tensor_sym,"):
        parse_formats(text, CANDIDATES)


def test_formats_that_were_not_profiled_are_refused() -> None:
    with pytest.raises(InputError, match="'int3' matches none"):
        parse_formats("int4,int3", UNIFORM_SCHEMES)
    assert parse_formats("+int4", UNIFORM_SCHEMES[2:5]) == UNIFORM_SCHEMES[2:5]


@pytest.mark.parametrize(("budget", "wide"), [(999, True), (1000, True), (1099, True), (1100, False), (5000, False)])
def test_three_bits_come_in_only_where_the_budget_is_tight(budget: int, wide: bool) -> None:
    """Tight: below 1.1 times the smallest file of the default formats."""
    assert automatic(CANDIDATES, 1000, budget) == (CANDIDATES if wide else UNIFORM_SCHEMES)
