"""Which formats a plan may use."""

from __future__ import annotations

from collections.abc import Sequence

from vggtkit.core.errors import InputError
from vggtkit.quant import get_format

AUTO, ALL = "auto", "all"
DEFAULT_BITS = (8, 4)
TIGHT = 1.1
"""Below this multiple of the smallest file of the default formats, all others are allowed too."""


def default_formats(available: Sequence[str]) -> tuple[str, ...]:
    """INT8 and INT4, in whatever granularity.

    >>> default_formats(["int8_per_channel_sym", "int4_two_level_64", "int3_group_64"])
    ('int8_per_channel_sym', 'int4_two_level_64')
    """
    return tuple(key for key in available if get_format(key).bits in DEFAULT_BITS)


def parse_formats(text: str, available: Sequence[str], option: str = "--formats") -> tuple[str, ...]:
    """Formats of ``--formats``: keys or beginnings of keys, ``+`` adds to the default INT8 and INT4.

    Args:
        text: such as ``int8,int4``, ``+int3``, ``int8_per_channel_sym,int4_group_64``, or ``all``.
        available: keys of the formats whose damage is known.
        option: for messages.

    Returns:
        Keys, in the order of ``available``.

    Raises:
        InputError: an entry matches no available format.

    >>> parse_formats("int8_per_channel,+int3_group_32", ("int8_per_channel_sym", "int4_group_64", "int3_group_32"))
    ('int8_per_channel_sym', 'int3_group_32')
    """
    if text.strip() == ALL:
        return tuple(available)
    entries = [entry.strip() for entry in text.split(",")]
    chosen = set(default_formats(available)) if all(entry.startswith("+") for entry in entries) else set()
    for entry in entries:
        beginning = entry.removeprefix("+")
        matches = [key for key in available if beginning and (key == beginning or key.startswith(f"{beginning}_"))]
        if not matches:
            raise InputError(f"{option}: {entry!r} matches none of the scored formats {', '.join(available)}")
        chosen.update(matches)
    return tuple(key for key in available if key in chosen)


def is_tight(smallest_bytes: int, budget_bytes: int) -> bool:
    """Whether a budget leaves hardly a choice between the default formats.

    Args:
        smallest_bytes: of a file with the default formats.
        budget_bytes: for the file.

    >>> is_tight(1000, 1099), is_tight(1000, 1100)
    (True, False)
    """
    return budget_bytes < TIGHT * smallest_bytes
