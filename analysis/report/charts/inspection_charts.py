"""One layer from close by, as a PNG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.inspection.layer import OUTLIER_DEVIATIONS, Distribution, Inspection
from analysis.report.charts.fonts import letters_of
from analysis.report.profile_tables import task_title
from analysis.report.theme import DPI, MARKERS
from analysis.report.theme import SERIES as COLOURS
from analysis.report.wording import ENGLISH, Wording
from vggtkit.core.atomic import replacing
from vggtkit.core.escaping import plain_for_charts
from vggtkit.quant import get_format

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_inspection(inspection: Inspection, path: Path, say: Wording = ENGLISH) -> None:
    """Two histograms, damage by format and task, damage against bytes; 1540 x 1100 pixels.

    Args:
        inspection: what to draw.
        path: of the PNG.
        say: words, as `wording_of_charts` gives them.

    Raises:
        InputError: the file cannot be written.
    """
    with letters_of(say), replacing(path) as temporary:
        _figure(inspection, say).savefig(temporary, format="png", dpi=DPI)


def _figure(inspection: Inspection, say: Wording) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.0, 10.0), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plain_for_charts(inspection.layer.name), fontsize=13)
    axes = figure.subplots(2, 2)
    _draw_values(axes[0, 0], inspection.weight, f"1  {say('Weights')}", say)
    if inspection.activation:
        _draw_values(axes[0, 1], inspection.activation, f"2  {say('Outputs in FP32, sampled')}", say)
    else:
        axes[0, 1].set_axis_off()
    _draw_errors(axes[1, 0], inspection, say)
    _draw_bytes(axes[1, 1], inspection, say)
    return figure


def _draw_values(axes: Axes, values: Distribution, title: str, say: Wording) -> None:
    axes.stairs(values.histogram, values.edges, fill=True, color=COLOURS[0])
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    for side in (-1, 1):
        limit = values.mean + side * OUTLIER_DEVIATIONS * values.deviation
        if values.edges[0] <= limit <= values.edges[-1]:
            axes.axvline(limit, color=COLOURS[1], linewidth=1)
    beyond = say(
        "{outliers} of {count} beyond {deviations} deviations",
        outliers=f"{values.outliers:,}", count=f"{values.count:,}", deviations=f"{OUTLIER_DEVIATIONS:g}",
    )  # fmt: skip
    _title(axes, f"{title}: {beyond}")


def _draw_errors(axes: Axes, inspection: Inspection, say: Wording) -> None:
    _title(axes, f"3  {say('Sketched damage at the outputs, by task')}")
    places = np.arange(len(inspection.formats))
    tasks = list(inspection.formats[0].damage) if inspection.formats else []
    for number, task in enumerate(tasks):
        values = [row.damage[task] if row.damage[task] > 0 else math.nan for row in inspection.formats]
        shift = 0.2 * (number - (len(tasks) - 1) / 2)
        label = plain_for_charts(say.translated(task_title(task)))
        axes.bar(places + shift, values, 0.18, color=COLOURS[number % len(COLOURS)], label=label)
    if any(value > 0 for row in inspection.formats for value in row.damage.values()):
        axes.set_yscale("log")
    axes.set_xticks(places, [get_format(row.key).short_title for row in inspection.formats], rotation=30, ha="right")
    axes.legend(fontsize=9)


def _draw_bytes(axes: Axes, inspection: Inspection, say: Wording) -> None:
    _title(axes, f"4  {say('Damage against bytes: lower left is better')}")
    axes.set_xlabel(say("kB in a file"))
    axes.set_ylabel(say("sketched damage, mean over outputs"))
    shown = [row for row in inspection.formats if row.total > 0]
    for number, row in enumerate(shown):
        marker, colour = MARKERS[number % len(MARKERS)], COLOURS[number % len(COLOURS)]
        label = get_format(row.key).short_title
        axes.plot(row.size_bytes / 1e3, row.total, marker, color=colour, label=label, alpha=0.8)
    if shown:
        axes.set_yscale("log")
        axes.margins(x=0.1, y=0.1)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=11, fontweight="bold", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
