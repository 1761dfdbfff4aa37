"""A table before it is drawn, and drawn as plain text."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn; the first column is text, the others are right-aligned.

    Attributes:
        title: above it.
        columns: their names.
        rows: cells, as many in each as there are columns.
        wraps: name of a column that may take several lines in a narrow terminal.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    wraps: str = ""


def draw_grid(grid: Grid) -> list[str]:
    """Its lines as plain text, the title underlined.

    >>> draw_grid(Grid("Sizes", ("scheme", "MB"), [("FP32", "40")]))
    ['Sizes', '-----', 'scheme  MB', 'FP32    40']
    """
    widths = [max(map(len, column)) for column in zip(grid.columns, *grid.rows, strict=True)]
    lines = [grid.title, "-" * len(grid.title)]
    for row in (grid.columns, *grid.rows):
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines
