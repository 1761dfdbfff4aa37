"""On which side of its point a name stands in a scatter chart, so that it covers no other and no point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

from analysis.report.document import ChartPoint

WIDTH, HEIGHT = 660, 340
"""Pixels of the field that a chart is taken to have; on a wider one there is more room."""
DOT, LINE, LETTER = 7, 15, 7.2
"""Half a point, a line of text, a letter, in pixels."""
SIDES = {
    "middle right": (1, 0), "middle left": (-1, 0), "top center": (0, -1), "bottom center": (0, 1),
    "top right": (1, -1), "top left": (-1, -1), "bottom right": (1, 1), "bottom left": (-1, 1),
}  # fmt: skip
"""As Plotly calls them, the best first: how far to the right and below."""
Ends: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]


def sides(
    points: Sequence[ChartPoint], x_ends: Ends, y_ends: Ends, front: Sequence[ChartPoint]
) -> dict[ChartPoint, str]:
    """The side on which a point's name stands, of those for which there is room; plans first, off the line if possible.

    Args:
        points: of the chart.
        x_ends: logarithms to base 10 of the horizontal axis's ends.
        y_ends: of the vertical one's.
        front: points that a line goes through.

    >>> points = [ChartPoint(x, 1.0, "name", "", "") for x in (1.0, 1.1)]
    >>> list(sides(points, (-1.0, 1.0), (-1.0, 1.0), ()).values())
    ['middle left', 'middle right']
    """

    def place(point: ChartPoint) -> tuple[float, float]:
        return _share(point.x, x_ends) * WIDTH, (1 - _share(point.y, y_ends)) * HEIGHT

    line = [_box(*spot, 1, 2) for spot in _along([place(point) for point in front])]
    taken = [_box(*place(point), 2 * DOT, 2 * DOT) for point in points]
    placed: dict[ChartPoint, str] = {}
    for more in (line, []):
        for point in sorted(points, key=lambda one: one.kind != "plan"):
            free = None if point in placed else _free_side(place(point), LETTER * len(point.name), [*taken, *more])
            if free is not None:
                placed[point], box = free
                taken.append(box)
    return placed


def _free_side(place: tuple[float, float], width: float, taken: Sequence[Box]) -> tuple[str, Box] | None:
    """The best side where a name of a width covers nothing, and where it is then; None where there is none."""
    for side, (aside, below) in SIDES.items():
        box = _box(place[0] + aside * (DOT + width / 2), place[1] + below * (DOT + LINE / 2), width, LINE)
        inside = box[0] >= 0 and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT
        if inside and not any(_overlap(box, other) for other in taken):
            return side, box
    return None


def _share(value: float, ends: Ends) -> float:
    return (math.log10(value) - ends[0]) / (ends[1] - ends[0])


def _along(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spots along a line from corner to corner, half a letter apart at most."""
    spots = []
    for (x, y), (further, lower) in pairwise(corners):
        steps = max(1, math.ceil(math.hypot(further - x, lower - y) / (LETTER / 2)))
        shares = (number / steps for number in range(steps + 1))
        spots += [(x + share * (further - x), y + share * (lower - y)) for share in shares]
    return spots


def _box(x: float, y: float, width: float, height: float) -> Box:
    """Around a middle: left, top, right, bottom."""
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
