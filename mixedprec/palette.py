"""Which formats a plan may use."""

from __future__ import annotations

from collections.abc import Sequence

from errors import InputError
from quant import INT3_GROUPS, UNIFORM_SCHEMES

AUTO = "auto"
DEFAULT = UNIFORM_SCHEMES
TIGHT = 1.1
"""Below this multiple of the smallest file of the default formats, 3-bit groups are allowed too."""


def parse_formats(text: str, available: Sequence[str]) -> tuple[str, ...]:
    """Formats of ``--formats``: keys or beginnings of keys, ``+`` adds to the default INT8 and INT4.

    Args:
        text: such as ``int8,int4``, ``+int3`` or ``int8_per_channel_sym,int4_group_64``.
        available: keys of the formats that were profiled.

    Returns:
        Keys, in the order of ``available``.

    Raises:
        InputError: an entry matches no available format.

    >>> parse_formats("int8_per_channel,+int3_group_32", ("int8_per_channel_sym", "int4_group_64", "int3_group_32"))
    ('int8_per_channel_sym', 'int3_group_32')
    """
    entries = [entry.strip() for entry in text.split(",")]
    chosen: set[str] = set(DEFAULT) if all(entry.startswith("+") for entry in entries) else set()
    for entry in entries:
        beginning = entry.removeprefix("+")
        matches = [key for key in available if beginning and (key == beginning or key.startswith(f"{beginning}_"))]
        if not matches:
            raise InputError(f"--formats: {entry!r} matches none of the profiled formats {', '.join(available)}")
        chosen.update(matches)
    return tuple(key for key in available if key in chosen)


def automatic(available: Sequence[str], smallest_bytes: int, budget_bytes: int) -> tuple[str, ...]:
    """INT8 and INT4; 3-bit groups too where the budget leaves hardly a choice between those.

    Args:
        available: keys of the formats that were profiled.
        smallest_bytes: of a file with the default formats.
        budget_bytes: for the file.
    """
    wide = budget_bytes < TIGHT * smallest_bytes
    return tuple(key for key in available if key in DEFAULT or (wide and key in INT3_GROUPS))
