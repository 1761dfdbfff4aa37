"""Text files of numbers, as the tools of many years and systems wrote them."""

from __future__ import annotations

import re
from pathlib import Path

from vggtkit.core.errors import InputError

# What the C libraries of Microsoft print for numbers that are none: 1.#INF, -1.#IND00, 1.#QNAN, -nan(ind).
_INFINITE = re.compile(r"\b1\.#INF\w*", re.IGNORECASE)
_NO_NUMBER = re.compile(r"\b1\.#(?:IND|QNAN|SNAN)\w*|\bnan\(\w+\)", re.IGNORECASE)


def read_lines(path: Path, what: str) -> list[str]:
    """Lines of a text file.

    Raises:
        InputError: the file is missing or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        state = f"cannot be read as text ({type(error).__name__})" if path.is_file() else "is missing"
        raise InputError(f"the {what} {str(path)!r} {state}: see docs/data.md for the layout") from error


def read_numbers(path: Path, what: str) -> list[tuple[int, list[float]]]:
    """Lines of a text file of numbers, with their line numbers; blank lines and ``#`` comments are left out.

    Raises:
        InputError: the file is missing or has something else in it.
    """
    rows = []
    for number, line in enumerate(read_lines(path, what), start=1):
        try:
            values = [float(word) for word in number_words(line)]
        except ValueError:
            raise InputError(f"{str(path)!r} line {number} is not all numbers: {line.strip()[:60]!r}") from None
        if values:
            rows.append((number, values))
    return rows


def number_words(line: str) -> list[str]:
    """Words of a line that holds numbers, between blanks or commas and before a ``#`` comment.

    >>> number_words("1.5, -1.#INF 2  # metres"), number_words("-nan(ind) 7")
    (['1.5', '-inf', '2'], ['-nan', '7'])
    """
    plain = _NO_NUMBER.sub("nan", _INFINITE.sub("inf", line))
    return plain.split("#")[0].replace(",", " ").split()
