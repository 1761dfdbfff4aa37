"""Which formats a plan may use.

What is chosen by itself is what one INT8 kernel runs: INT8 per channel, and groups of two levels of scales, which are
INT8 per channel bit for bit (`vggtkit.quant.two_level`); with FP16 for what bears neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.quant import get_format

AUTO = "auto"
INT8 = "int8_per_channel_sym"
DEFAULT_BITS, AUTOMATIC_BITS = (8, 4), (16, 8, 4)
TIGHT = 1.1
"""Below this multiple of the smallest file of the default formats, all others are allowed too."""


@dataclass(frozen=True)
class FormatChoice:
    """The formats that a plan may use, before it is known which were scored.

    Attributes:
        which: ``"auto"`` is INT8 and INT4 as one INT8 kernel runs them, and FP16; for policies that minimise damage the
            other bits of this kernel too where the budget is tight. ``"runnable"`` is all of these, ``"all"`` all that
            were scored, ``"named"`` those of ``beginnings``.
        beginnings: keys, or their first words: ``int4`` is every format of 4 bits, ``int4_group_128`` is one.
        added: the named ones come on top of INT8 and INT4 in whatever granularity.
        strict: ``"auto"`` never goes beyond INT8, INT4 and FP16.

    >>> str(parse_formats("+int3, +int2")), str(FormatChoice())
    ('+int3,+int2', 'auto')
    """

    which: Literal["auto", "runnable", "all", "named"] = "auto"
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
        """Whether it goes beyond INT8, INT4 and FP16 where these hardly leave a choice."""
        return self.which == AUTO and not self.strict

    def among(self, available: Sequence[str], origin: str | None = None) -> tuple[str, ...]:
        """The formats of the choice; for ``"auto"`` those of `automatic_formats`.

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
        match self.which:
            case "all":
                return tuple(available)
            case "runnable":
                return runnable_formats(available)
            case "auto":
                return automatic_formats(available)
        chosen = set(default_formats(available)) if self.added else set()
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
        text: ``auto``, ``runnable``, ``all``, or keys or beginnings of keys, such as ``int8,int4`` or
            ``int8_per_channel_sym,int4_group_64``; with ``+``, as in ``+int3``, they are added to INT8 and INT4.
        strict: ``auto`` never goes beyond INT8, INT4 and FP16.
    """
    match text.strip():
        case "auto" | "runnable" | "all" as which:
            return FormatChoice(which, strict=strict)
    entries = [entry.strip() for entry in text.split(",")]
    added = all(entry.startswith("+") for entry in entries)
    return FormatChoice("named", tuple(entry.removeprefix("+") for entry in entries), added, strict)


def default_formats(available: Sequence[str]) -> tuple[str, ...]:
    """INT8 and INT4, in whatever granularity.

    >>> default_formats(["int8_per_channel_sym", "int4_two_level_64", "int3_group_64"])
    ('int8_per_channel_sym', 'int4_two_level_64')
    """
    return tuple(key for key in available if get_format(key).bits in DEFAULT_BITS)


def runnable_formats(available: Sequence[str]) -> tuple[str, ...]:
    """What one INT8 kernel runs, and FP16; everything where that holds no groups, as of scores of the uniform schemes.

    >>> runnable_formats(["int8_per_channel_sym", "int4_group_64", "int3_two_level_16", "fp16"])
    ('int8_per_channel_sym', 'int3_two_level_16', 'fp16')
    """
    if not any(get_format(key).two_level for key in available):
        return tuple(available)
    return tuple(key for key in available if key in (INT8, "fp16") or get_format(key).two_level)


def automatic_formats(available: Sequence[str]) -> tuple[str, ...]:
    """INT8, INT4 and FP16 of `runnable_formats`.

    >>> automatic_formats(["int8_per_channel_sym", "int4_group_64", "int4_two_level_64", "int3_two_level_16", "fp16"])
    ('int8_per_channel_sym', 'int4_two_level_64', 'fp16')
    >>> automatic_formats(["int8_per_tensor_sym", "int4_group_64"])
    ('int8_per_tensor_sym', 'int4_group_64')
    """
    return tuple(key for key in runnable_formats(available) if get_format(key).bits in AUTOMATIC_BITS)


def is_tight(smallest_bytes: int, budget_bytes: int) -> bool:
    """Whether a budget leaves hardly a choice between the default formats.

    Args:
        smallest_bytes: of a file with the default formats.
        budget_bytes: for the file.

    >>> is_tight(1000, 1099), is_tight(1000, 1100)
    (True, False)
    """
    return budget_bytes < TIGHT * smallest_bytes
