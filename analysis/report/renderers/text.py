"""Documents as plain text, and tables as aligned lines."""

from __future__ import annotations

import textwrap
import unicodedata

from analysis.report.document import Document, Element, Illustration, Table, Text
from analysis.report.renderers.base import RENDERERS, Renderer
from vggtkit.core.escaping import printable

WIDTH = 120


def render(document: Document) -> str:
    """A document as plain text, its lines at most 120 characters but for the rows of wide tables.

    >>> from analysis.report.document import Section
    >>> print(render(Document("Report", (Section("Sizes", (Text(("All fit.",)),)),))))
    Report
    ======
    <BLANKLINE>
    Sizes
    -----
    All fit.
    <BLANKLINE>
    """
    lines = [document.title, "=" * width_of(printable(document.title))]
    for section in document.sections:
        lines += ["", section.title, "-" * width_of(printable(section.title))]
        for number, block in enumerate(section.blocks):
            lines += [*([""] if number else []), *block_lines(block)]
    return "\n".join(map(printable, lines)) + "\n"


def block_lines(block: Element) -> list[str]:
    """One block; of a chart its title and what it is about."""
    if isinstance(block, Text):
        return _text(block)
    if isinstance(block, Table):
        return [*draw_table(block), *wrapped(block.caption)] if block.caption else draw_table(block)
    if isinstance(block, Illustration):
        return [f"{block.title}: {block.path}"]
    return wrapped(f"{block.title}. {block.caption}".strip())


def draw_table(table: Table) -> list[str]:
    """Its lines as plain text, the title underlined.

    >>> draw_table(Table("Sizes", ("scheme", "MB"), [("FP32", "40")]))
    ['Sizes', '-----', 'scheme  MB', 'FP32    40']
    """
    rows = [tuple(map(printable, row)) for row in (table.columns, *table.texts)]
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    lines = [table.title, "-" * width_of(table.title)]
    for row in rows:
        cells = [
            _padded(cell, width, left=number == 0 or table.columns[number] in table.words)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def wrapped(text: str, label: str = "") -> list[str]:
    """A text in lines behind a label.

    >>> wrapped("a b", "- ")
    ['- a b']
    """
    wrapper = textwrap.TextWrapper(WIDTH, label, " " * len(label), break_on_hyphens=False)
    return wrapper.wrap(text) or [label.rstrip()]


def width_of(text: str) -> int:
    """Columns that a text takes in a terminal: letters of Chinese take two.

    >>> width_of("int4"), width_of("量化")
    (4, 4)
    """
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _padded(text: str, width: int, *, left: bool) -> str:
    room = " " * (width - width_of(text))
    return text + room if left else room + text


def _text(text: Text) -> list[str]:
    if text.mood == "code":
        return [f"    {line}" for line in text.lines]
    label = {"points": "- ", "warning": "! "}.get(text.mood, "")
    return [line for each in text.lines for line in wrapped(each, label)]


RENDERERS.register("text", Renderer("text", ".txt", render))
