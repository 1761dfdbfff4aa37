"""What comes out of a file, made fit for a message: one line, no control characters, no endless values."""

from __future__ import annotations

import reprlib

LONGEST_NAME = 200
"""Characters of a name that a message shows."""

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 60


def escape(text: object) -> str:
    r"""A name or a sentence as a message may show it: what is not printable is written as in a Python string.

    >>> escape("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    >>> escape("träger")
    'träger'
    """
    shown = printable(str(text)[: LONGEST_NAME + 1])
    return shown if len(shown) <= LONGEST_NAME else f"{shown[:LONGEST_NAME]}..."


def printable(text: str) -> str:
    r"""The same for a text of any length: nothing in it moves a cursor, colours a terminal or turns a line around.

    >>> printable("a\x1b[2J\u202eb")
    'a\\x1b[2J\\u202eb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain_for_charts(text: str) -> str:
    r"""A text as matplotlib draws it letter by letter: between two dollars it would read TeX.

    >>> plain_for_charts("$x_1$ a\nb")
    '\\$x_1\\$ a\nb'
    """
    return "\n".join(printable(line) for line in text.split("\n")).replace("$", r"\$")


def short_repr(value: object) -> str:
    """A value as Python writes it, cut where it is long or deeply nested.

    >>> short_repr([[[[1]]], 2])
    '[[[...]], 2]'
    """
    return escape(_SHORT.repr(value))


def first_line(error: BaseException) -> str:
    r"""The first line of an error's text, or its type where it has none.

    >>> first_line(RuntimeError("no data.pkl\nframe #0: ..."))
    'no data.pkl'
    >>> first_line(EOFError())
    'EOFError'
    """
    return escape(str(error).splitlines()[0]) if str(error) else type(error).__name__


def in_one_line(error: BaseException) -> str:
    r"""All of an error's text with its line breaks as spaces, or its type where it has none.

    >>> in_one_line(OSError("cannot read\n  header")), in_one_line(EOFError())
    ('cannot read header', 'EOFError')
    """
    return " ".join(str(error).split()) or type(error).__name__
