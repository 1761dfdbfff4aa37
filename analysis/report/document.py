"""What a report says, apart from how it is drawn: documents of sections, which hold texts, tables, charts and pictures.

What measures makes these values; `analysis.report.renderers` draws them. Numbers are words here already: a cell that
is sorted by something else than its text carries that number too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeAlias

Tone = Literal["", "strong", "best", "excellent", "good", "acceptable", "poor", "warning"]
"""How a cell, row or text is meant; what that looks like is the renderer's business."""
Mood = Literal["plain", "points", "code", "warning"]


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: what is read.
        value: the number that it is sorted by, where that is not in the text.
        tone: how it is meant.
        shade: its place on a scale of colours, from 0 to 1; None for none.
    """

    text: str
    value: float | None = None
    tone: Tone = ""
    shade: float | None = None


Row: TypeAlias = "tuple[str | Cell, ...]"


@dataclass(frozen=True)
class Table:
    """A table; columns are numbers, to the right, unless they are named as words.

    Attributes:
        title: above it.
        columns: their names.
        rows: as many cells in each as there are columns.
        caption: below it.
        wraps: name of a column that may take several lines in a narrow terminal.
        words: names of the columns that hold words beside the first, which always does.
        tones: of whole rows, by their number.
        ruled: numbers of the rows that a line is drawn below.

    >>> Table("Sizes", ("scheme", "MB"), [("FP32", Cell("40", 4e7))]).texts
    [('FP32', '40')]
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    caption: str = ""
    wraps: str = ""
    words: tuple[str, ...] = ()
    tones: Mapping[int, Tone] = field(default_factory=dict)
    ruled: tuple[int, ...] = ()

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """What the cells say."""
        return [tuple(as_cell(cell).text for cell in row) for row in self.rows]

    def is_words(self, column: int) -> bool:
        """Whether a column, by its number, holds words."""
        return column == 0 or self.columns[column] in self.words

    def titled(self, title: str) -> Table:
        """The same under another title."""
        return replace(self, title=title)


@dataclass(frozen=True)
class Text:
    """Sentences: a paragraph each, the points of a list, or lines of code.

    Attributes:
        lines: of it.
        mood: what they are.
    """

    lines: tuple[str, ...]
    mood: Mood = "plain"


@dataclass(frozen=True)
class Illustration:
    """A picture that lies beside the document.

    Attributes:
        path: of the file, as seen from the document.
        title: what it shows.
    """

    path: str
    title: str


class ChartPoint(NamedTuple):
    """A point of a scatter chart.

    Attributes:
        x: along the horizontal axis.
        y: along the vertical one.
        name: of what it stands for.
        note: what else there is to say of it.
        kind: of what it is one, as `Scatter.kinds` names them.
    """

    x: float
    y: float
    name: str
    note: str
    kind: str


@dataclass(frozen=True)
class Scatter:
    """Points on two logarithmic axes, and a line: through those that no other point beats, or where both are equal.

    Attributes:
        title: above it.
        x_label: of the horizontal axis.
        y_label: of the vertical one.
        points: all of them; what is not above 0 has no place on the axes.
        kinds: titles by kind, in the order of the legend.
        caption: below it.
        line: which.
    """

    title: str
    x_label: str
    y_label: str
    points: tuple[ChartPoint, ...]
    kinds: Mapping[str, str]
    caption: str = ""
    line: Literal["front", "equal"] = "front"


@dataclass(frozen=True)
class HeatMap:
    """A field of numbers on a logarithmic scale of colours.

    Attributes:
        title: above it.
        rows: names from the top down.
        columns: names from the left.
        values: a list for each row; None where there is no number.
        unit: of the numbers.
        groups: name of the group that each row is in, for the axis.
        marks: number of the marked column of each row; None for none.
        mark: what is marked.
        caption: below it.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Sequence[Sequence[float | None]]
    unit: str
    groups: tuple[str, ...] = ()
    marks: tuple[int | None, ...] = ()
    mark: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Bars:
    """Shares of a whole: a group of bars for each name, one a series.

    Attributes:
        title: above it.
        names: from the top down.
        series: as many shares, from 0 to 1, as there are names, by the series' title.
        unit: of the numbers.
        caption: below it.
    """

    title: str
    names: tuple[str, ...]
    series: Mapping[str, Sequence[float]]
    unit: str
    caption: str = ""


class SliderFrame(NamedTuple):
    """Pictures of one view: what was seen, and what models make of it.

    Attributes:
        name: of the view.
        picture: PNG of what was seen.
        reference: PNG of the reference's map.
        maps: PNG of every scheme's map, by the scheme's name.
        errors: PNG of every scheme's error against the reference, on one scale.
        worst: mean error of every scheme, in the unit of the map.
    """

    name: str
    picture: bytes
    reference: bytes
    maps: Mapping[str, bytes]
    errors: Mapping[str, bytes]
    worst: Mapping[str, float]


@dataclass(frozen=True)
class Slider:
    """Maps of schemes beside the reference, one over the other under a slider.

    Attributes:
        title: above it.
        frames: one a view.
        reference: what the reference is called.
        scale: what the colours mean.
        caption: below it.
    """

    title: str
    frames: tuple[SliderFrame, ...]
    reference: str
    scale: str
    caption: str = ""


Chart: TypeAlias = Scatter | HeatMap | Bars | Slider
Element: TypeAlias = Text | Table | Illustration | Chart


@dataclass(frozen=True)
class Section:
    """A part of a document.

    Attributes:
        title: above it.
        blocks: what it holds.
        key: its name in links; letters, digits and hyphens.
    """

    title: str
    blocks: tuple[Element, ...]
    key: str = ""


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: of it.
        sections: in their order.
        language: of its words, as HTML names it.

    >>> Document("Report", (Section("Sizes", (Text(("All fit.",)),)),)).of_kind(Text)
    [Text(lines=('All fit.',), mood='plain')]
    """

    title: str
    sections: tuple[Section, ...]
    language: str = "en"

    def blocks(self) -> Iterator[Element]:
        """All blocks, section by section."""
        for section in self.sections:
            yield from section.blocks

    def of_kind(self, kind: type[Element]) -> list[Element]:
        """The blocks of one type."""
        return [block for block in self.blocks() if isinstance(block, kind)]


def as_cell(cell: str | Cell) -> Cell:
    """A cell of whatever stands in a row.

    >>> as_cell("40")
    Cell(text='40', value=None, tone='', shade=None)
    """
    return Cell(cell) if isinstance(cell, str) else cell


def pareto_front(points: Sequence[ChartPoint]) -> list[ChartPoint]:
    """The points that no other beats in both coordinates, by the first.

    >>> points = [ChartPoint(x, y, f"{x}", "", "") for x, y in ((3, 1), (1, 5), (2, 6), (2, 2))]
    >>> [(point.x, point.y) for point in pareto_front(points)]
    [(1, 5), (2, 2), (3, 1)]
    """
    front: list[ChartPoint] = []
    for point in sorted(points, key=lambda one: (one.x, one.y)):
        if not front or point.y < front[-1].y:
            front.append(point)
    return front
