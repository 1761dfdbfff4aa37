"""The table of formats."""

import pytest

from vggtkit.core.errors import InputError
from vggtkit.quant.formats import FORMATS, INT3_GROUPS, UNIFORM_SCHEMES, Format, candidates, get_format, register


def test_the_seven_uniform_schemes_are_those_of_the_guide_in_its_order() -> None:
    assert UNIFORM_SCHEMES == (
        "int8_per_tensor_sym",
        "int8_per_tensor_asym",
        "int8_per_channel_sym",
        "int8_per_channel_asym",
        "int4_group_128",
        "int4_group_64",
        "int4_group_32",
    )
    assert list(FORMATS)[:12] == ["fp32", "fp16", *UNIFORM_SCHEMES, *INT3_GROUPS]


@pytest.mark.parametrize("key", UNIFORM_SCHEMES)
def test_fields_say_what_the_key_says(key: str) -> None:
    fmt = FORMATS[key]
    assert fmt.key == key
    assert key.startswith(f"int{fmt.bits}_")
    assert fmt.granularity in key
    assert fmt.symmetric == (not key.endswith("_asym"))
    assert (f"group_{fmt.group_size}" in key) == (fmt.group_size is not None)


@pytest.mark.parametrize(
    ("key", "code_range"),
    [("int8_per_tensor_sym", (-128, 127)), ("int8_per_tensor_asym", (0, 255)), ("int4_group_64", (-8, 7))],
)
def test_code_range_is_that_of_the_contract(key: str, code_range: tuple[int, int]) -> None:
    assert FORMATS[key].code_range == code_range


def test_unknown_format_names_the_key_and_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'int5'.*fp32.*int4_group_32"):
        get_format("int5")


def test_registered_format_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Format("int2_group_8", "INT2 groups of 8", 2, "group", symmetric=True, group_size=8)
    monkeypatch.setattr(FORMATS, "_values", dict(FORMATS))
    register(new)
    assert get_format("int2_group_8") is new
    assert candidates()[-2:] == ("int2_group_8", "fp16")
    with pytest.raises(ValueError, match="registered already"):
        register(new)


@pytest.mark.parametrize(
    ("bits", "granularity", "group_size"),
    [
        (4, "group", None),
        (4, "channel", 64),
        (4, "group", 0),
        (1, "tensor", None),
        (9, "tensor", None),
        (8, "float", None),
    ],
)
def test_contradictory_fields_are_refused(bits: int, granularity: str, group_size: int | None) -> None:
    with pytest.raises(ValueError, match="odd"):
        Format("odd", "odd", bits, granularity, symmetric=True, group_size=group_size)
