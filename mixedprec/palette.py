"""Which formats a plan may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.quant import get_format

AUTO, ALL = "auto", "all"
DEFAULT_BITS = (8, 4)
TIGHT = 1.1
"""Below this multiple of the smallest file of the default formats, all others are allowed too."""


@dataclass(frozen=True)
class FormatChoice:
    """The formats that a plan may use, before it is known which were scored.

    Attributes:
        which: ``"auto"`` is INT8 and INT4, and for policies that minimise damage all others too where the budget is
            tight; ``"all"`` is all that were scored; ``"named"`` those of ``beginnings``.
        beginnings: keys, or their first words: ``int4`` is every format of 4 bits, ``int4_group_128`` is one.
        added: the named ones come on top of INT8 and INT4.
        strict: ``"auto"`` never goes beyond INT8 and INT4.

    >>> str(parse_formats("+int3, +int2")), str(FormatChoice())
    ('+int3,+int2', 'auto')
    """

    which: Literal["auto", "all", "named"] = "auto"
    beginnings: tuple[str, ...] = ()
    added: bool = False
    strict: bool = False

    def __str__(self) -> str:
        """As `parse_formats` takes it."""
        if self.which != "named":
            return self.which
        return ",".join(f"+{name}" if self.added else name for name in self.beginnings)

    @property
    def may_widen(self) -> bool:
        """Whether it goes beyond INT8 and INT4 where these hardly leave a choice."""
        return self.which == AUTO and not self.strict

    def among(self, available: Sequence[str], origin: str | None = None) -> tuple[str, ...]:
        """The formats of the choice; INT8 and INT4 for ``"auto"``.

        Args:
            available: keys of the formats whose damage is known.
            origin: what asks for them, for messages; the setting ``formats`` by default.

        Returns:
            Keys, in the order of ``available``.

        Raises:
            InputError: a name matches no available format.

        >>> choice = parse_formats("int8_per_channel,+int3_group_32")
        >>> choice.among(("int8_per_channel_sym", "int4_group_64", "int3_group_32"))
        ('int8_per_channel_sym', 'int3_group_32')
        """
        if self.which == ALL:
            return tuple(available)
        chosen = set(default_formats(available)) if self.which == AUTO or self.added else set()
        for beginning in self.beginnings:
            matches = [key for key in available if beginning and (key == beginning or key.startswith(f"{beginning}_"))]
            if not matches:
                origin = setting("formats") if origin is None else origin
                shown = f"+{beginning}" if self.added else beginning
                raise InputError(f"{origin}: {shown!r} matches none of the scored formats {', '.join(available)}")
            chosen.update(matches)
        return tuple(key for key in available if key in chosen)


def parse_formats(text: str, *, strict: bool = False) -> FormatChoice:
    """Read a choice of formats.

    Args:
        text: ``auto``, ``all``, or keys or beginnings of keys, such as ``int8,int4`` or
            ``int8_per_channel_sym,int4_group_64``; with ``+``, as in ``+int3``, they are added to INT8 and INT4.
        strict: ``auto`` never goes beyond INT8 and INT4.
    """
    if text.strip() in (AUTO, ALL):
        return FormatChoice("all" if text.strip() == ALL else "auto", strict=strict)
    entries = [entry.strip() for entry in text.split(",")]
    added = all(entry.startswith("+") for entry in entries)
    return FormatChoice("named", tuple(entry.removeprefix("+") for entry in entries), added, strict)


def default_formats(available: Sequence[str]) -> tuple[str, ...]:
    """INT8 and INT4, in whatever granularity.

    >>> default_formats(["int8_per_channel_sym", "int4_two_level_64", "int3_group_64"])
    ('int8_per_channel_sym', 'int4_two_level_64')
    """
    return tuple(key for key in available if get_format(key).bits in DEFAULT_BITS)


def is_tight(smallest_bytes: int, budget_bytes: int) -> bool:
    """Whether a budget leaves hardly a choice between the default formats.

    Args:
        smallest_bytes: of a file with the default formats.
        budget_bytes: for the file.

    >>> is_tight(1000, 1099), is_tight(1000, 1100)
    (True, False)
    """
    return budget_bytes < TIGHT * smallest_bytes
