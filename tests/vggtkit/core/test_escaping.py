"""Whatever a file calls something, the message stays one short printable line."""

from hypothesis import given
from hypothesis import strategies as st

from vggtkit.core.escaping import LONGEST_NAME, escape, first_line, short_repr

ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
)


@given(st.text())
def test_what_is_shown_of_a_name_is_printable_and_short(name: str) -> None:
    shown = escape(name)
    assert shown.isprintable()
    assert len(shown) <= LONGEST_NAME + 3
    assert first_line(ValueError(name)).isprintable()


@given(st.text(st.characters(exclude_categories=("C", "Z")), max_size=LONGEST_NAME))
def test_a_printable_name_is_shown_as_it_is(name: str) -> None:
    assert escape(name) == name


@given(ANYTHING)
def test_any_value_of_json_is_shown_in_one_line(value: object) -> None:
    assert short_repr(value).isprintable()


def test_the_deepest_nesting_is_cut() -> None:
    value: object = 0
    for _ in range(100_000):
        value = [value]
    assert short_repr(value) == "[[[...]]]"
