"""Documents as Markdown: GitHub's tables, and nothing of a name read as markup."""

from __future__ import annotations

import re

from analysis.report.document import Document, Element, Illustration, Table, Text, as_cell
from analysis.report.renderers.base import RENDERERS, Renderer
from vggtkit.core.escaping import printable

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def render(document: Document) -> str:
    r"""A document as Markdown.

    >>> from analysis.report.document import Section
    >>> print(render(Document("Report", (Section("Sizes", (Text(("a*b",), "points"),)),))))
    # Report
    <BLANKLINE>
    ## Sizes
    <BLANKLINE>
    - a\*b
    <BLANKLINE>
    """
    parts = [f"# {escaped(document.title)}"]
    for section in document.sections:
        parts += [f"## {escaped(section.title)}", *map(_block, section.blocks)]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    r"""A text in which nothing is markup.

    >>> escaped("a_b|<i>")
    'a\\_b\\|\\<i\\>'
    """
    return _MARKUP.sub(r"\\\1", printable(text))


def _block(block: Element) -> str:
    if isinstance(block, Text):
        return _text(block)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Illustration):
        path = "".join(letter for letter in block.path if letter not in "()<> \t\n")
        return f"![{escaped(block.title)}]({path})"
    return f"**{escaped(block.title)}** {escaped(block.caption)}".rstrip()


def _text(text: Text) -> str:
    if text.mood == "code":
        fence = "```"
        while any(fence in line for line in text.lines):
            fence += "`"
        return "\n".join([f"{fence}sh", *map(printable, text.lines), fence])
    lines = [escaped(line) for line in text.lines]
    if text.mood == "points":
        return "\n".join(f"- {line}" for line in lines)
    if text.mood == "warning":
        return "\n>\n".join(f"> **{line}**" for line in lines)
    return "\n\n".join(lines)


def _table(table: Table) -> str:
    sides = ["---" if table.is_words(number) else "---:" for number in range(len(table.columns))]
    lines = [f"**{escaped(table.title)}**", "", _row(map(escaped, table.columns)), _row(sides)]
    for number, row in enumerate(table.rows):
        cells = [escaped(as_cell(cell).text) for cell in row]
        strong = table.tones.get(number) == "strong"
        lines.append(_row(f"**{cell}**" if strong and cell else cell for cell in cells))
    return "\n".join([*lines, *(["", escaped(table.caption)] if table.caption else [])])


def _row(cells: object) -> str:
    assert hasattr(cells, "__iter__")
    return f"| {' | '.join(cells)} |"


RENDERERS.register("markdown", Renderer("markdown", ".md", render))
