"""Charts as figures of plotly.js: their data and their layout, in which a colour is the name of one of the page's own.

A figure is drawn in the browser by Plotly's script; `html` puts both into the page. Plotly reads a little HTML in what
it writes, so every name of a file is made literal here.

Source: Plotly, "Figure Reference", https://plotly.com/python/reference/.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

from analysis.report.charts.colours import field_stops
from analysis.report.document import Bars, Cell, ChartPoint, HeatMap, Row, Scatter, Table, pareto_front
from analysis.report.renderers.plain_json import finite
from analysis.report.renderers.point_names import sides
from vggtkit.core.escaping import printable

Drawn: TypeAlias = Scatter | HeatMap | Bars
"""Charts that are figures."""
Figure: TypeAlias = "dict[str, Any]"

MOST_NAMED = 12
"""Points, beyond which names beside them would be a thicket."""
SCATTER_HEIGHT = 430
POINT_MARKERS = {
    "plan": ("diamond", "var(--plan)"),
    "uniform": ("square", "var(--uniform)"),
    "baseline": ("circle-open", "var(--baseline)"),
}
"""Symbol and colour of a kind of points."""
OTHER_MARKERS = (
    ("circle", "var(--uniform)"), ("square", "var(--plan)"), ("diamond", "var(--good)"), ("cross", "var(--violet)"),
    ("triangle-up", "var(--quiet)"), ("x", "var(--accent)"), ("star", "var(--warning)"),
)  # fmt: skip
"""Those of other kinds, in their order."""
SERIES_COLOURS = ("var(--uniform)", "var(--plan)", "var(--good)", "var(--violet)")
LOWEST_SHARE = 0.02
"""Of a field's numbers, which all have the lowest colour: a few that are almost zero would take the scale for them."""
_CLEAR = "rgba(0,0,0,0)"
_LINE_OF_TEXT = 14
"""Pixels."""


def literal(text: str) -> str:
    r"""A text that Plotly writes letter by letter, where it would read ``<b>``, ``<a href=...>`` or ``&amp;``.

    >>> literal("<b>a</b> & b")
    '&lt;b>a&lt;/b> &amp; b'
    """
    return printable(text).replace("&", "&amp;").replace("<", "&lt;")


def plotly_figure(chart: Drawn) -> Figure:
    """What Plotly draws of a chart.

    >>> point = ChartPoint(5.2, 1e-5, "plan", "5.2 MB", "plan")
    >>> drawn = plotly_figure(Scatter("Sizes", "MB", "damage", (point,), {"plan": "plans"}))
    >>> [(trace["type"], trace["x"], trace["y"]) for trace in drawn["data"]]
    [('scatter', [5.2], [1e-05])]
    """
    if isinstance(chart, Scatter):
        return _scatter(chart)
    return _bars(chart) if isinstance(chart, Bars) else _heat_map(chart)


def numbers(chart: Drawn, words: Sequence[str]) -> Table:
    """The same as a table, for whoever does not see the chart.

    Args:
        chart: of which.
        words: what the columns of a scatter chart's names and kinds are called.
    """
    if isinstance(chart, Scatter):
        rows: list[Row] = [
            (point.name, chart.kinds.get(point.kind, point.kind), _cell(point.x), _cell(point.y))
            for point in chart.points
        ]
        return Table(chart.title, (*words, chart.x_label, chart.y_label), rows, words=(words[1],))
    if isinstance(chart, Bars):
        shares = zip(chart.names, *chart.series.values(), strict=True)
        rows = [(name, *map(_share, row)) for name, *row in shares]
        return Table(chart.title, (words[0], *chart.series), rows)
    rows = [(name, *map(_cell, values)) for name, values in zip(chart.rows, chart.values, strict=True)]
    return Table(chart.title, (words[0], *chart.columns), rows)


def _cell(value: float | None) -> Cell:
    return Cell("n/a") if value is None or not math.isfinite(value) else Cell(f"{value:.3g}", value)


def _share(value: float) -> Cell:
    return Cell(f"{value:.1%}", value) if math.isfinite(value) else Cell("n/a")


def _layout(height: float, **more: object) -> Figure:
    """What all figures share: nothing drags or zooms, so that a finger scrolls the page."""
    return {
        "height": height, "dragmode": False, "hovermode": "closest", "paper_bgcolor": _CLEAR, "plot_bgcolor": _CLEAR,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--text)"},
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "hoverlabel": {
            "bgcolor": "var(--text)", "bordercolor": "var(--ground)", "font": {"color": "var(--ground)"},
            "align": "left",
        },
        "legend": {
            "orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemclick": False, "itemdoubleclick": False,
        },
        **more,
    }  # fmt: skip


def _axis(title: str = "", **more: object) -> Figure:
    return {
        "title": {"text": literal(title), "font": {"size": 13}}, "fixedrange": True, "automargin": True,
        "zeroline": False, "gridcolor": "var(--line)", "linecolor": "var(--line)", **more,
    }  # fmt: skip


def _scatter(chart: Scatter) -> Figure:
    points = [point for point in chart.points if _has_place(point)]
    if not points:
        return {"data": [], "layout": _layout(SCATTER_HEIGHT, xaxis=_axis(chart.x_label), yaxis=_axis(chart.y_label))}
    x_ends, y_ends = _ends([point.x for point in points]), _ends([point.y for point in points])
    line = _line_through(chart, points)
    named = sides(points, x_ends, y_ends, line) if len(points) <= MOST_NAMED else {}
    traces = [_dashed(line)] if len(line) > 1 else []
    for number, kind in enumerate(dict.fromkeys([*chart.kinds, *(point.kind for point in points)])):
        if of_kind := [point for point in points if point.kind == kind]:
            traces.append(_points(of_kind, chart.kinds.get(kind, kind), _marker(kind, number, len(points)), named))
    layout = _layout(
        SCATTER_HEIGHT,
        xaxis=_log_axis(chart.x_label, x_ends),
        yaxis=_log_axis(chart.y_label, y_ends),
        showlegend=True,
    )
    return {"data": traces, "layout": layout}


def _has_place(point: ChartPoint) -> bool:
    return math.isfinite(point.x) and math.isfinite(point.y) and point.x > 0 and point.y > 0


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Logarithms of the ends of an axis, with room at both."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.08 * (high - low), 0.05)
    return low - room, high + room


def _log_axis(title: str, ends: tuple[float, float]) -> Figure:
    """Ticks at powers of ten, and between them at round numbers as there is room."""
    decades = ends[1] - ends[0]
    steps = (1, 1.5, 2, 3, 4, 5, 6, 8) if decades < 1.2 else (1, 2, 5) if decades < 2.5 else (1,)
    every = max(1, round(decades / 8))
    powers = range(math.floor(ends[0]), math.ceil(ends[1]) + 1)
    round_numbers = [float(f"{step}e{power}") for power in powers if power % every == 0 for step in steps]
    ticks = [value for value in round_numbers if ends[0] <= math.log10(value) <= ends[1]]
    ticks = ticks or [float(f"{10 ** (sum(ends) / 2):.3g}")]
    texts = [f"{value:g}" if ends[0] > -1 and ends[1] < 5 else _power_text(value) for value in ticks]
    return _axis(title, type="log", range=list(ends), tickvals=ticks, ticktext=texts)


def _power_text(value: float) -> str:
    """A number as a power of ten with as many digits as it has.

    >>> _power_text(1e-5), _power_text(0.015)
    ('1e-5', '1.5e-2')
    """
    digits, _, power = f"{value:e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def _marker(kind: str, number: int, count: int) -> Figure:
    symbol, colour = POINT_MARKERS.get(kind) or OTHER_MARKERS[number % len(OTHER_MARKERS)]
    crowded = count > 10 * MOST_NAMED
    return {"symbol": symbol, "color": colour, "size": 5 if crowded else 11, "opacity": 0.6 if crowded else 1}


def _points(points: Sequence[ChartPoint], title: str, marker: Figure, named: dict[ChartPoint, str]) -> Figure:
    return {
        "type": "scatter", "mode": "markers+text", "name": literal(title), "marker": marker, "cliponaxis": False,
        "x": [point.x for point in points], "y": [point.y for point in points],
        "text": [literal(point.name) if point in named else "" for point in points],
        "textposition": [named.get(point, "middle right") for point in points],
        "hoverinfo": "text", "hovertext": [literal(f"{point.name}: {point.note}") for point in points],
    }  # fmt: skip


def _line_through(chart: Scatter, points: Sequence[ChartPoint]) -> list[ChartPoint]:
    """The corners of the chart's line."""
    if chart.line == "front":
        return pareto_front(points)
    both = [value for point in points for value in (point.x, point.y)]
    return [ChartPoint(end, end, "", "", "") for end in (min(both), max(both))]


def _dashed(line: Sequence[ChartPoint]) -> Figure:
    return {
        "type": "scatter", "mode": "lines", "x": [point.x for point in line], "y": [point.y for point in line],
        "line": {"color": "var(--quiet)", "width": 1.5, "dash": "5px,4px"}, "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip


def _bars(chart: Bars) -> Figure:
    traces = [
        {
            "type": "bar", "orientation": "h", "name": literal(title), "marker": {"color": colour},
            "x": list(map(finite, shares)), "y": list(range(len(chart.names))), "hoverinfo": "text",
            "hovertext": [
                literal(f"{name}, {title}: {_share(share).text}")
                for name, share in zip(chart.names, shares, strict=True)
            ],
        }
        for (title, shares), colour in zip(chart.series.items(), SERIES_COLOURS, strict=False)
    ]  # fmt: skip
    places = _axis(
        autorange="reversed", tickvals=list(range(len(chart.names))), ticktext=list(map(literal, chart.names))
    )
    height = 110 + len(chart.names) * (10 + _LINE_OF_TEXT * len(traces))
    across = _axis(chart.unit, tickformat=".0%", rangemode="tozero")
    return {"data": traces, "layout": _layout(height, xaxis=across, yaxis=places, bargap=0.3, showlegend=True)}


def _heat_map(chart: HeatMap) -> Figure:
    powers = [
        [math.log10(value) if value is not None and math.isfinite(value) and value > 0 else None for value in row]
        for row in chart.values
    ]
    known = sorted(power for row in powers for power in row if power is not None) or [0.0]
    low, high = known[int(LOWEST_SHARE * (len(known) - 1))], known[-1]
    columns = list(map(literal, _distinct(chart.columns)))
    row_height = max(3, min(18, 1000 // max(1, len(chart.rows))))
    gap = 1 if row_height > 5 else 0
    field = {
        "type": "heatmap", "z": powers, "x": columns, "zmin": low, "zmax": max(high, low + 1e-9), "xgap": 1,
        "ygap": gap, "colorscale": _colour_scale(), "colorbar": _colour_bar(chart.unit, low, high),
        "hoverinfo": "text", "hovertext": [_said(chart, row) for row in range(len(chart.rows))],
    }  # fmt: skip
    marked = [(columns[mark], row) for row, mark in enumerate(chart.marks) if mark is not None]
    marks = {
        "type": "scatter", "mode": "markers", "hoverinfo": "skip", "x": [x for x, _ in marked],
        "y": [y for _, y in marked], "marker": {"symbol": "square", "size": min(8, row_height), "color": "var(--mark)"},
        "showlegend": False,
    }  # fmt: skip
    places, names = _group_ticks(chart, row_height)
    height = row_height * len(chart.rows) + 8 * max(map(len, chart.columns), default=0) + 100
    layout = _layout(
        height,
        xaxis=_axis(type="category", side="top", tickangle=-65, showgrid=False, range=[-0.5, len(columns) - 0.5]),
        yaxis=_axis(
            range=[len(chart.rows) - 0.5, -0.5], tickvals=places, ticktext=names, showgrid=False, ticks="outside"
        ),
    )
    return {"data": [field, marks] if marked else [field], "layout": layout | {"plot_bgcolor": "var(--surface)"}}


def _distinct(names: Sequence[str]) -> list[str]:
    """Names of which each stands for one column.

    >>> _distinct(("a", "b", "a"))
    ['a', 'b', 'a (3)']
    """
    return [name if name not in names[:place] else f"{name} ({place + 1})" for place, name in enumerate(names)]


def _said(chart: HeatMap, row: int) -> list[str]:
    """What the fields of a row say."""
    mark = chart.marks[row] if chart.marks else None
    return [
        literal(
            f"{chart.rows[row]}, {name}: {'-' if value is None else f'{value:.2e}'}"
            f"{f' ({chart.mark})' if column == mark else ''}"
        )
        for column, (name, value) in enumerate(zip(chart.columns, chart.values[row], strict=True))
    ]


def _group_ticks(chart: HeatMap, row_height: int) -> tuple[list[int], list[str]]:
    """Where groups of rows begin, and their names; those for which there is room."""
    groups = chart.groups or chart.rows
    places: list[int] = []
    for row, name in enumerate(groups):
        is_first = row == 0 or name != groups[row - 1]
        if is_first and (not places or (row - places[-1]) * row_height >= _LINE_OF_TEXT):
            places.append(row)
    return places, [literal(groups[row]) for row in places]


def _colour_scale() -> list[list[Any]]:
    stops = field_stops(17)
    return [[place / (len(stops) - 1), f"rgb({r},{g},{b})"] for place, (r, g, b) in enumerate(stops)]


def _colour_bar(unit: str, low: float, high: float) -> Figure:
    step = max(1, math.ceil((high - low) / 6))
    powers: list[float] = list(range(math.ceil(low), math.floor(high) + 1, step))
    ticks = powers if len(powers) > 1 else [low, high]
    return {
        "orientation": "h", "thickness": 12, "len": 0.6, "x": 0, "xanchor": "left", "y": 0, "yanchor": "top",
        "title": {"text": literal(unit), "side": "bottom", "font": {"size": 13}}, "outlinewidth": 0, "tickvals": ticks,
        "ticktext": [_power_text(float(f"{10**power:.2g}")) for power in ticks],
    }  # fmt: skip
