"""Figures for Plotly: the numbers of the chart, names that are letters only, and nothing that Plotly does not know."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from analysis.report.document import Bars, ChartPoint, HeatMap, Scatter
from analysis.report.renderers.figures import MOST_NAMED, Drawn, literal, numbers, plotly_figure
from analysis.report.renderers.point_names import sides

HOSTILE = "<b>x</b><a href='https://example.org'>y</a><br>&lt;i> \u202e"
POINTS = tuple(ChartPoint(5 + 0.4 * n, 10 ** -(2 + n % 4), f"{HOSTILE}{n}", "note", "plan") for n in range(10))
CHARTS = {
    "scatter": Scatter(HOSTILE, HOSTILE, HOSTILE, POINTS, {"plan": HOSTILE}, HOSTILE),
    "pairs": Scatter("", "", "", (*POINTS, ChartPoint(1.0, 2.0, "", "", "int4")), {"int4": HOSTILE}, "", "equal"),
    "nothing": Scatter("", "", "", (ChartPoint(0.0, 1.0, "", "", "plan"),), {}),
    "one point": Scatter("", "", "", POINTS[:1], {"plan": "plans"}),
    "field": HeatMap(HOSTILE, (HOSTILE, "b"), (HOSTILE, HOSTILE, "z"), [[0.5, None, 1e-9], [2.0, 0.0, math.inf]],
                     HOSTILE, (HOSTILE, HOSTILE), (1, None), HOSTILE),
    "broken bars": Bars("", ("a",), {"b": (math.nan,)}, ""),
    "empty field": HeatMap("", ("a",), ("b",), [[None]], ""),
    "bars": Bars(HOSTILE, (HOSTILE, "b"), {HOSTILE: (0.25, 0.75), "c": (1.0, 0.0)}, HOSTILE),
}  # fmt: skip


def strings(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        for value in part.values():
            yield from strings(value)
    elif isinstance(part, list):
        for value in part:
            yield from strings(value)


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
def test_plotly_knows_all_that_a_figure_asks_for(chart: Drawn) -> None:
    """Its own validators refuse names and values that its figures do not have."""
    graph_objects = pytest.importorskip("plotly.graph_objects")
    drawn = plotly_figure(chart)
    json.dumps(drawn, allow_nan=False)
    assert len(graph_objects.Figure(drawn).data) == len(drawn["data"])


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
def test_no_name_is_markup(chart: Drawn) -> None:
    for text in strings(plotly_figure(chart)):
        assert "<" not in text
        assert "\u202e" not in text


def test_points_keep_their_numbers_and_kinds() -> None:
    points = tuple(ChartPoint(1.0 + n, 1.0 / (1 + n), f"p{n}", "note", "ab"[n % 2]) for n in range(6))
    drawn = plotly_figure(Scatter("", "", "", (*points, ChartPoint(-1.0, 1.0, "", "", "a")), {"b": "B", "a": "A"}))
    _, b, a = drawn["data"]
    assert (b["name"], a["name"]) == ("B", "A")
    assert (b["x"], b["y"]) == ([p.x for p in points[1::2]], [p.y for p in points[1::2]])
    assert a["hovertext"] == [f"{p.name}: note" for p in points[::2]]
    assert a["marker"] != b["marker"]


def test_the_line_goes_through_what_no_other_point_beats() -> None:
    random = np.random.default_rng(0)
    points = [ChartPoint(*map(float, random.uniform(1, 2, 2)), f"{n}", "", "plan") for n in range(40)]
    line = plotly_figure(Scatter("", "", "", tuple(points), {}))["data"][0]
    best = sorted((p.x, p.y) for p in points if not any(o.x < p.x and o.y < p.y for o in points))
    assert list(zip(line["x"], line["y"], strict=True)) == best


def test_the_line_of_pairs_is_where_both_are_equal() -> None:
    line = plotly_figure(CHARTS["pairs"])["data"][0]
    assert line["x"] == line["y"]
    assert (line["x"][0], line["x"][1]) == (1e-5, max(p.x for p in POINTS))


@pytest.mark.parametrize(("low", "high"), [(5.0, 10.0), (1e-5, 2e-3), (1e-9, 1.0), (7.0, 7.0)])
def test_ticks_lie_within_the_axis_and_say_where(low: float, high: float) -> None:
    points = tuple(ChartPoint(value, value, "", "", "") for value in (low, high))
    layout = plotly_figure(Scatter("", "", "", points, {}))["layout"]
    for axis in (layout["xaxis"], layout["yaxis"]):
        assert [float(text) for text in axis["ticktext"]] == pytest.approx(axis["tickvals"])
        assert all(axis["range"][0] <= math.log10(value) <= axis["range"][1] for value in axis["tickvals"])
        assert 1 <= len(axis["tickvals"]) <= 12


def test_a_field_keeps_its_numbers_marks_and_columns() -> None:
    field, marks = plotly_figure(CHARTS["field"])["data"]
    assert field["z"] == [[math.log10(0.5), None, -9.0], [math.log10(2.0), None, None]]
    assert len(set(field["x"])) == 3
    assert (marks["x"], marks["y"]) == ([field["x"][1]], [0])
    assert field["hovertext"][1][2].endswith("inf")
    assert field["hovertext"][0][1] == literal(f"{HOSTILE}, {HOSTILE}: - ({HOSTILE})")


def test_names_of_groups_have_room() -> None:
    rows = tuple(map(str, range(300)))
    layout = plotly_figure(HeatMap("", rows, ("a",), [[1.0]] * 300, "", rows))["layout"]
    places = layout["yaxis"]["tickvals"]
    height = layout["height"] / 300
    assert min(np.diff(places)) * height >= 13
    assert [rows[place] for place in places] == layout["yaxis"]["ticktext"]


def test_numbers_are_those_of_the_chart() -> None:
    words = ("name", "kind")
    assert numbers(CHARTS["bars"], words).texts == [(HOSTILE, "25.0%", "100.0%"), ("b", "75.0%", "0.0%")]
    rows = numbers(CHARTS["scatter"], words).rows
    assert [(row[2].value, row[3].value) for row in rows] == [(p.x, p.y) for p in POINTS]
    assert numbers(CHARTS["field"], words).texts[1] == ("b", "2", "0", "n/a")
    assert numbers(CHARTS["broken bars"], words).texts == [("a", "n/a")]


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1e-3), (0.2, 0.6), (0.5, 0.5)])
def test_the_colours_of_a_field_have_numbers_beside_them(low: float, high: float) -> None:
    bar = plotly_figure(HeatMap("", ("a",), ("b", "c"), [[low, high]], ""))["data"][0]["colorbar"]
    assert len(bar["tickvals"]) >= 2
    assert [float(text) for text in bar["ticktext"]] == pytest.approx(
        [10**power for power in bar["tickvals"]], rel=0.05
    )


def test_names_beside_points_cover_neither_each_other_nor_points() -> None:
    points = [ChartPoint(5 + 0.05 * n, 10 ** -(2 + n % 4), f"scheme number {n}", "", "uniform") for n in range(10)]
    placed = sides(points, (math.log10(4.9), math.log10(5.6)), (-5.3, -1.7), points[:2])
    assert len(placed) >= 3
    crowd = [ChartPoint(5.0, 1.0, f"name {n}", "", "uniform") for n in range(MOST_NAMED)]
    assert len(sides(crowd, (0.0, 1.0), (-1.0, 1.0), ())) <= 8
    texts = plotly_figure(Scatter("", "", "", tuple(POINTS * 2), {}))["data"][-1]["text"]
    assert set(texts) == {""}
