"""A scatter chart's points and axes as places on a drawing board, for SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import NamedTuple

from analysis.report.document import ChartPoint, Scatter

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 74, 16, 14, 50
DOT, LINE, LETTER = 7, 16, 7.2
"""Half a point, a line of text, a letter."""
SIDES = (
    (2 * DOT, 0, "start"), (-2 * DOT, 0, "end"), (0, -LINE, "middle"), (0, LINE, "middle"),
    (DOT, -LINE, "start"), (-DOT, -LINE, "end"), (DOT, LINE, "start"), (-DOT, LINE, "end"),
    (0, -2 * LINE, "middle"), (DOT, -2 * LINE, "start"), (-DOT, -2 * LINE, "end"),
)  # fmt: skip
"""Where a name stands beside its point: how far to the right and below, and which end of it; the best first."""
MOST_NAMED = 12
"""Points, beyond which names would be a thicket."""
AxisScale = Callable[[float], float]
STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)


class Tick(NamedTuple):
    """A mark on an axis: where, and what is written at it."""

    place: float
    text: str


class Label(NamedTuple):
    """A name beside a point: where, and which end of it stands there, as SVG says it."""

    text: str
    x: float
    y: float
    anchor: str


class Dot(NamedTuple):
    """A point on the board, with its name beside it where there is room."""

    x: float
    y: float
    point: ChartPoint
    label: Label | None


class Board(NamedTuple):
    """A drawn scatter chart.

    Attributes:
        dots: its points.
        x_ticks: along the bottom.
        y_ticks: along the left side.
        line: points of the front as SVG has them.
    """

    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    line: str


def board(chart: Scatter) -> Board:
    """The chart on a board of `WIDTH` by `HEIGHT`, both axes logarithmic.

    >>> points = (ChartPoint(1.0, 1e-4, "a", "", "k"), ChartPoint(10.0, 1e-5, "b", "", "k"))
    >>> drawn = board(Scatter("", "", "", points, {}))
    >>> [tick.text for tick in drawn.y_ticks], [dot.label.text for dot in drawn.dots]
    (['1e-5', '1e-4'], ['a', 'b'])
    """
    points = [point for point in chart.points if point.x > 0 and point.y > 0]
    if not points:
        return Board((), (), (), "")
    x_ends, y_ends = _ends([point.x for point in points]), _ends([point.y for point in points])

    def across(value: float) -> float:
        return round(LEFT + _share(value, x_ends) * (WIDTH - LEFT - RIGHT), 1)

    def down(value: float) -> float:
        return round(HEIGHT - BOTTOM - _share(value, y_ends) * (HEIGHT - TOP - BOTTOM), 1)

    front = [point for point in chart.front if point in points]
    labels = _labels(points, front, across, down) if len(points) <= MOST_NAMED else {}
    dots = tuple(Dot(across(p.x), down(p.y), p, labels.get(p)) for p in points)
    x_ticks = tuple(Tick(across(value), f"{value:g}") for value in _fine_ticks(*x_ends))
    y_ticks = tuple(Tick(down(10.0**power), f"1e{power}") for power in _powers(*y_ends))
    line = " ".join(f"{across(point.x)},{down(point.y)}" for point in front)
    return Board(dots, x_ticks, y_ticks, line)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Logarithms of the ends of an axis, with room at both."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.06 * (high - low), 0.05)
    return low - room, high + room


def _share(value: float, ends: tuple[float, float]) -> float:
    return (math.log10(value) - ends[0]) / (ends[1] - ends[0])


def _powers(low: float, high: float) -> list[int]:
    """Powers of ten between the ends, thinned out where there are many; at least one."""
    powers = list(range(math.ceil(low), math.floor(high) + 1)) or [round((low + high) / 2)]
    return powers[:: max(1, len(powers) // 8)]


def _fine_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends, finer where they are near each other."""
    steps = STEPS if high - low < 1.2 else (1.0, 2.0, 5.0)
    powers = range(math.floor(low), math.ceil(high) + 1)
    return [step * 10.0**power for power in powers for step in steps if low <= math.log10(step * 10.0**power) <= high]


def _labels(
    points: Sequence[ChartPoint], front: Sequence[ChartPoint], across: AxisScale, down: AxisScale
) -> dict[ChartPoint, Label]:
    """Names that can be written beside their points without covering one; plans first, and off the line if possible."""
    line = _along([(across(point.x), down(point.y)) for point in front])
    taken = [_box(across(point.x), down(point.y), 2 * DOT, "middle") for point in points]
    placed: dict[ChartPoint, Label] = {}
    for point in sorted(points, key=lambda one: one.kind != "plan"):
        x, y, width = across(point.x), down(point.y), LETTER * len(point.name)
        for covered, (aside, below, anchor) in product(([*taken, *line], taken), SIDES):
            box = _box(x + aside, y + below, width, anchor)
            inside = box[0] > LEFT and box[2] < WIDTH - RIGHT / 2 and box[1] > 0 and box[3] < HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in covered):
                placed[point] = Label(point.name, round(x + aside, 1), round(y + below + 4, 1), anchor)
                taken.append(box)
                break
    return placed


def _along(corners: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes along a line from corner to corner, half a letter apart at most."""
    boxes = []
    for (x, y), (further, lower) in pairwise(corners):
        steps = max(1, math.ceil(math.hypot(further - x, lower - y) / (LETTER / 2)))
        for share in (number / steps for number in range(steps + 1)):
            boxes.append(_box(x + share * (further - x), y + share * (lower - y), 1, "middle", height=2))
    return boxes


Box = tuple[float, float, float, float]


def _box(x: float, y: float, width: float, anchor: str, height: float = LINE) -> Box:
    left = {"start": x, "end": x - width, "middle": x - width / 2}[anchor]
    return left, y - height / 2, left + width, y + height / 2


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
