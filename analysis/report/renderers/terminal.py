"""Documents and tables for the terminal, by rich."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich import box
from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table as RichTable
from rich.text import Text as RichText

from analysis.report.document import Cell, Document, Element, Table, Text, as_cell
from analysis.report.renderers.base import RENDERERS, Renderer
from analysis.report.renderers.text import WIDTH, block_lines
from vggtkit.core.escaping import printable

MOODS = {
    "": "",
    "strong": "bold",
    "best": "bold green",
    "excellent": "green",
    "good": "cyan",
    "acceptable": "yellow",
    "poor": "red",
    "warning": "red",
}

SHADES = ("grey23", "navy_blue", "dark_cyan", "green4", "gold3", "dark_orange3", "red3")
"""From the lowest to the highest place on a scale."""


def render(document: Document) -> str:
    """A document with the colours of a terminal.

    >>> from analysis.report.document import Section
    >>> "All fit." in render(Document("Report", (Section("Sizes", (Text(("All fit.",)),)),)))
    True
    """
    console = Console(file=io.StringIO(), record=True, width=WIDTH, force_terminal=True)
    for item in renderables(document):
        console.print(item)
    return console.export_text(styles=True)


def renderables(document: Document) -> Iterable[RenderableType]:
    """What rich prints for a document, block by block."""
    yield RichText(printable(document.title), style="bold underline")
    for section in document.sections:
        yield RichText(f"\n{printable(section.title)}", style="bold")
        for block in section.blocks:
            yield _block(block)


def rich_table(table: Table) -> RichTable:
    """A table as rich draws it; nothing of it is read as markup.

    >>> rich_table(Table("Sizes", ("scheme", "MB"), [("[FP32]", "40")])).row_count
    1
    """
    drawn = RichTable(
        title=RichText(printable(table.title)), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False,
        padding=(0, 1, 0, 0), caption=RichText(printable(table.caption)) if table.caption else None,
        caption_justify="left",
    )  # fmt: skip
    for number, column in enumerate(table.columns):
        side: JustifyMethod = "left" if table.is_words(number) else "right"
        is_long = column == table.wraps or column in table.words
        drawn.add_column(RichText(printable(column)), justify=side, no_wrap=not is_long, overflow="fold")
    for number, row in enumerate(table.rows):
        cells = (as_cell(cell) for cell in row)
        texts = (RichText(printable(cell.text), style=_style(cell)) for cell in cells)
        drawn.add_row(*texts, style=MOODS[table.tones.get(number, "")], end_section=number in table.ruled)
    return drawn


def _style(cell: Cell) -> str:
    if cell.shade is None:
        return MOODS[cell.tone]
    return f"white on {SHADES[round(min(max(cell.shade, 0.0), 1.0) * (len(SHADES) - 1))]}"


def _block(block: Element) -> RenderableType:
    if isinstance(block, Table):
        return rich_table(block)
    is_warning = isinstance(block, Text) and block.mood == "warning"
    return RichText("\n".join(map(printable, block_lines(block))), style=MOODS["warning"] if is_warning else "")


RENDERERS.register("terminal", Renderer("terminal", ".ansi", render))
