"""Which formats a plan may use."""

import pytest
import torch

from mixedprec.palette import automatic_formats, default_formats, is_tight, parse_formats, runnable_formats
from vggtkit.core.errors import InputError
from vggtkit.quant import TWO_LEVEL, UNIFORM_SCHEMES, candidates, dequantize, get_format, quantize
from vggtkit.runtime.codes import expanded

pytestmark = pytest.mark.usefixtures("spoken_in_options")

CANDIDATES = candidates()


def of_bits(*bits: int) -> tuple[str, ...]:
    return tuple(key for key in CANDIDATES if get_format(key).bits in bits)


INT8, INT4 = UNIFORM_SCHEMES[:4], of_bits(4)
DEFAULT = of_bits(8, 4)
RUNNABLE = tuple(key for key in CANDIDATES if key in ("int8_per_channel_sym", *TWO_LEVEL, "fp16"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int8,int4", DEFAULT),
        ("int4", INT4),
        (" int4 , int8 ", DEFAULT),
        ("+int3", of_bits(8, 4, 3)),
        ("all", CANDIDATES),
        ("auto", ("int8_per_channel_sym", "int4_two_level_64", "int4_two_level_16", "fp16")),
        ("runnable", RUNNABLE),
        ("int4_group", UNIFORM_SCHEMES[4:]),
        ("+fp16", of_bits(8, 4, 16)),
        ("int8_per_channel_sym,int4_group_64", ("int8_per_channel_sym", "int4_group_64")),
        ("int4_group_64,int8_per_channel_sym", ("int8_per_channel_sym", "int4_group_64")),
        ("int8_per_channel", ("int8_per_channel_sym", "int8_per_channel_asym")),
        ("int4,+int3", of_bits(4, 3)),
    ],
)
def test_beginnings_of_keys_choose_formats(text: str, expected: tuple[str, ...]) -> None:
    assert parse_formats(text).among(CANDIDATES) == expected


@pytest.mark.parametrize("text", ["int7", "", "int8,", "+", "int", "int4_group_1", "int8_per_channel_sym_", "INT4!"])
def test_what_matches_nothing_is_refused_with_the_choices(text: str) -> None:
    """Half a word is no beginning: ``int4_group_1`` is not ``int4_group_128``."""
    with pytest.raises(InputError, match=r"--formats: .* matches none of the scored formats int8_per_tensor_sym,"):
        parse_formats(text).among(CANDIDATES)


def test_formats_that_were_not_profiled_are_refused() -> None:
    with pytest.raises(InputError, match="'int3' matches none"):
        parse_formats("int4,int3").among(UNIFORM_SCHEMES)
    assert parse_formats("+int4").among(UNIFORM_SCHEMES[2:5]) == UNIFORM_SCHEMES[2:5]


@pytest.mark.parametrize(("budget", "tight"), [(999, True), (1000, True), (1099, True), (1100, False), (5000, False)])
def test_tight_is_below_a_tenth_more_than_the_smallest_file(budget: int, tight: bool) -> None:
    assert is_tight(1000, budget) == tight


def test_int8_and_int4_are_all_of_them_in_whatever_granularity() -> None:
    assert default_formats(CANDIDATES) == DEFAULT
    assert set(UNIFORM_SCHEMES) < set(DEFAULT)


def test_what_is_chosen_by_itself_is_int8_per_channel_bit_for_bit() -> None:
    """One kernel of 8-bit weights runs 2 to 8 bits; FP16 is for what bears no rounding."""
    assert set(automatic_formats(CANDIDATES)) < set(runnable_formats(CANDIDATES))
    assert sorted({get_format(key).bits for key in RUNNABLE}) == [2, 3, 4, 5, 6, 8, 16]
    weight = torch.randn(5, 70, generator=torch.Generator().manual_seed(0))
    for key in RUNNABLE:
        if key != "fp16":
            q = quantize(weight, key)
            codes, scales = expanded(q)
            assert codes.dtype == torch.int8
            assert (codes * scales[:, None]).equal(dequantize(q)), key


def test_scores_of_the_uniform_schemes_leave_these_to_choose_from() -> None:
    assert automatic_formats(UNIFORM_SCHEMES) == runnable_formats(UNIFORM_SCHEMES) == UNIFORM_SCHEMES
