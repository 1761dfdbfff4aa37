"""Charts of what schemes cost: size of the file, time and speed, and size against damage."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.evaluation.advice import front
from analysis.evaluation.results import (
    Evaluation,
    SchemeResult,
    compression_ratio,
    format_mb,
    format_number,
    short_title,
)
from analysis.report.charts.style import colour_of, label_below, marker_of, name_rows, not_drawn, title
from analysis.report.theme import PLAN, REFERENCE, TEXT_SIZE
from analysis.report.wording import Wording
from vggtkit.core.escaping import plain_for_charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure


PLATE = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
"""Behind numbers that a line may cross."""
LONGEST = 180
"""Characters of how schemes were executed, which stand below the seconds."""
MOST_SPREAD = 2.0
"""Times the longest median that the axis of seconds reaches; a repeat on a machine that stood still takes longer."""


def draw_sizes(place: SubFigure, evaluation: Evaluation, say: Wording) -> None:
    """The packed files, and how many times smaller than FP32 they are."""
    axes, fp32 = place.subplots(), evaluation.results[0]
    labels = [
        f"{format_mb(result.size_bytes)} MB" + ("" if result is fp32 else f"  ({compression_ratio(result, fp32):.1f}x)")
        for result in evaluation.results
    ]
    _bars(axes, evaluation.results, [result.size_bytes / 1e6 for result in evaluation.results], labels)
    label_below(axes, say("packed file, MB (how many times smaller than FP32)"))
    title(axes, f"1  {say('File size')}")


def draw_times(place: SubFigure, evaluation: Evaluation, say: Wording) -> None:
    """Seconds with their spread, and the speed against FP32."""
    left, right = place.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
    results = evaluation.results
    _draw_seconds(left, results, say)
    ratios = [result.speed_ratio or 0.0 for result in results]
    _bars(right, results, ratios, [""] * len(results))
    right.axvline(1, color=REFERENCE, linewidth=1, linestyle="--")
    for row, ratio in enumerate(ratios):  # in a column beyond the bars and the line
        right.annotate(
            f"{ratio:.2f}x" if ratio else "n/a", (1.0, row), xycoords=("axes fraction", "data"), xytext=(-4, 0),
            textcoords="offset points", ha="right", va="center", fontsize=TEXT_SIZE,
        )  # fmt: skip
    right.set_xlim(0, 1.45 * max(1.0, *ratios))
    label_below(right, say("speed against FP32"), 30)
    executed = textwrap.shorten(say.translated(evaluation.executed), LONGEST, placeholder=" ...")
    label_below(left, say("seconds: median, min - max; {executed}", executed=executed), 36)
    title(left, f"5  {say('Inference time and speed')}")
    right.spines[["top", "right"]].set_visible(False)


def _draw_seconds(axes: Axes, results: Sequence[SchemeResult], say: Wording) -> None:
    times = [result.seconds or 0.0 for result in results]
    spreads = [result.seconds_spread or (time, time) for result, time in zip(results, times, strict=True)]
    _bars(axes, results, times, [""] * len(results))
    ends = [max(time, high) for time, (_, high) in zip(times, spreads, strict=True)]
    errors = [(max(0.0, t - low), max(0.0, high - t)) for t, (low, high) in zip(times, spreads, strict=True)]
    axes.errorbar(
        times, range(len(results)), xerr=np.transpose(errors), fmt="none", ecolor=REFERENCE, capsize=3, linewidth=1
    )
    longest = MOST_SPREAD * max(times)
    for row, (result, end) in enumerate(zip(results, ends, strict=True)):
        label = say("not timed") if result.seconds is None else f"{format_number(result.seconds)} s"
        place = (min(end, longest), row)
        axes.annotate(
            label,
            place,
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=TEXT_SIZE,
            bbox=PLATE,
            zorder=5,
        )
    axes.set_xlim(0, 1.5 * min(max(ends), longest) or 1)
    if not any(ends):
        axes.set_xticks([])


def _bars(axes: Axes, results: Sequence[SchemeResult], values: Sequence[float], labels: Sequence[str]) -> None:
    """One horizontal bar per result, the first on top, its label behind its end."""
    rows = np.arange(len(results))
    axes.barh(rows, values, color=[colour_of(result) for result in results], height=0.7, zorder=2)
    for row, value, label in zip(rows, values, labels, strict=True):
        axes.annotate(
            label,
            (value, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=TEXT_SIZE,
            zorder=5,
            bbox=PLATE if label else None,
        )
    name_rows(axes, results)
    axes.set_xlim(0, 1.35 * max(values) or 1)


def draw_tradeoff(place: SubFigure, evaluation: Evaluation, say: Wording) -> None:
    """Damage against size, the plan marked, and a line through what no other beats in both."""
    axes = place.subplots()
    drawn = [(i, r) for i, r in enumerate(evaluation.quantized) if math.isfinite(r.damage) and r.damage > 0]
    kept = [result for _, result in drawn]
    left_out = [(result, format_number(result.damage)) for result in evaluation.quantized if result not in kept]
    axes.set_ylabel(say("damage: mean NMSE of the outputs (log)"))
    title(axes, f"6  {say('Accuracy against size: lower left is better')}")
    dashed = say("packed file, MB; dashed: no other scheme is both smaller and better")
    label_below(axes, dashed + not_drawn(left_out, say), 70)
    if not drawn:
        return
    axes.set_yscale("log")
    _set_limits(axes, kept)
    line = [result for result in front(evaluation) if result in kept]
    axes.plot(
        [r.size_bytes / 1e6 for r in line], [r.damage for r in line], color=REFERENCE, linewidth=1.2, linestyle="--"
    )
    for index, result in drawn:
        axes.plot(result.size_bytes / 1e6, result.damage, **marker_of(result, index))  # type: ignore[arg-type]
    plan = next((result for result in kept if result.key == "plan"), None)
    if plan is not None:
        _shade_beaten(axes, plan, say)
    middle = sum(axes.get_xlim()) / 2
    _label_points(axes, [r for r in kept if r.size_bytes / 1e6 <= middle], on_left=True)
    _label_points(axes, [r for r in kept if r.size_bytes / 1e6 > middle], on_left=False)


def _set_limits(axes: Axes, results: Sequence[SchemeResult]) -> None:
    """Room around the points: for the labels at both sides, and so that a single point has a scale."""
    import matplotlib.ticker as ticks

    sizes = [result.size_bytes / 1e6 for result in results]
    damages = [result.damage for result in results]
    width = max(max(sizes) - min(sizes), 0.1 * max(sizes))
    limits = min(sizes) - width, max(sizes) + width
    axes.set_xlim(limits)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick >= 0])  # the room may reach below zero
    axes.set_xlim(limits)
    axes.set_ylim(min(damages) / 6, max(damages) * 3)
    axes.yaxis.set_minor_formatter(ticks.NullFormatter())


def _shade_beaten(axes: Axes, plan: SchemeResult, say: Wording) -> None:
    from matplotlib.patches import Rectangle

    (_, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    size = plan.size_bytes / 1e6
    corner = (size, plan.damage)
    axes.add_patch(Rectangle(corner, right - size, top - plan.damage, color=PLAN, alpha=0.08, linewidth=0))
    axes.text(
        0.99, 0.985, say("larger and worse than the plan"), transform=axes.transAxes, ha="right", va="top",
        fontsize=TEXT_SIZE, color=PLAN, style="italic",
    )  # fmt: skip


def _label_points(axes: Axes, results: Sequence[SchemeResult], *, on_left: bool) -> None:
    """Names in a column at the side of the chart, each joined to its point, none over another."""
    to_axes = axes.transData + axes.transAxes.inverted()
    points = [(r.size_bytes / 1e6, r.damage) for r in results]
    heights = spaced([float(to_axes.transform(point)[1]) for point in points], 0.055, 0.06, 0.93)
    for result, point, height in zip(results, points, heights, strict=True):
        axes.annotate(
            plain_for_charts(short_title(result)),
            point,
            xytext=(0.015 if on_left else 0.985, height),
            textcoords="axes fraction",
            ha="left" if on_left else "right",
            va="center",
            fontsize=TEXT_SIZE,
            fontweight="bold" if result.key == "plan" else "normal",
            color=colour_of(result),
            arrowprops={
                "arrowstyle": "-",
                "color": colour_of(result),
                "linewidth": 0.7,
                "relpos": (1 if on_left else 0, 0.5),
            },
        )


def spaced(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights in the same order, moved as little as needed to be a gap apart within the limits.

    >>> [round(height, 3) for height in spaced([0.5, 0.5], 0.1, 0.0, 1.0)]
    [0.5, 0.6]
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    moved = list(heights)
    for rank, index in enumerate(order):
        floor = low if rank == 0 else moved[order[rank - 1]] + gap
        moved[index] = max(heights[index], floor)
    for rank, index in enumerate(reversed(order)):
        moved[index] = min(moved[index], high - rank * gap)
    return moved
