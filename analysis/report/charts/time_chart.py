"""Damage against the time of a pass, a line for each size of the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.report.charts.fonts import letters_of
from analysis.report.theme import GRID, PLAN, REFERENCE, SERIES, UNIFORM
from analysis.report.wording import ENGLISH, Wording
from analysis.search.time_front import TimedPoint
from vggtkit.core.escaping import plain_for_charts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRINT_DPI = 200
# Okabe & Ito, "Color Universal Design", 2008.
_COLOURS, _MARKERS = (PLAN, UNIFORM, SERIES[2]), ("o", "s", "^")


def draw_time(
    points: Sequence[TimedPoint], model: str, fp32_seconds: float, path: Path, say: Wording = ENGLISH
) -> None:
    """Write the picture as PNG; the caller gives a temporary name.

    Args:
        points: of `trace_time`.
        model: for the title.
        fp32_seconds: of a pass in FP32, a line.
        path: of the PNG.
        say: words, as `wording_of_charts` gives them.
    """
    with letters_of(say):
        _figure(points, model, fp32_seconds, say).savefig(path, format="png", dpi=PRINT_DPI)


def _figure(points: Sequence[TimedPoint], model: str, fp32_seconds: float, say: Wording) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.3), dpi=PRINT_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    budgets = list(dict.fromkeys(point.budget_bytes for point in points))
    for number, budget in enumerate(budgets):
        mine = [point for point in points if point.budget_bytes == budget]
        axes.plot(
            [point.seconds for point in mine], [point.damage for point in mine], linewidth=1.4, markersize=4,
            color=_COLOURS[number % len(_COLOURS)], marker=_MARKERS[number % len(_MARKERS)],
            label=say("at most {mb} MB", mb=f"{budget / 1e6:.2f}"),
        )  # fmt: skip
    axes.axvline(fp32_seconds, color=REFERENCE, linewidth=1.0, linestyle="--", label="FP32")
    axes.set_yscale("log")
    axes.set_xlabel(say("predicted seconds of a pass"))
    axes.set_ylabel(say("predicted damage: NMSE of the outputs"))
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    title = say("{model}: what time and size cost", model=model)
    figure.suptitle(plain_for_charts(title), fontsize=11, x=0.01, ha="left")
    return figure
