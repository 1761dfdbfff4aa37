"""Charts of what schemes do to the outputs: a row a scheme, a dot an output, their mean as a bar with its number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.evaluation.results import Evaluation, SchemeResult, format_number
from analysis.report.charts.style import colour_of, label_below, name_rows, not_drawn, title
from analysis.report.theme import EDGE, GREY, QUIET, SERIES, TEXT_SIZE
from analysis.report.wording import Wording
from vggtkit.metrics.ratings import LEVELS, THRESHOLDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure


SMALLEST = 1e-7
"""Distance from 1 that similarities are drawn at, at least."""
_MEAN_WIDTH = 0.32
_ROOM_FOR_LEVELS = 1.0
"""Rows above the first, for the names of the limits."""

ErrorsByScheme = dict[str, float]


def draw_absolute(place: SubFigure, evaluation: Evaluation, say: Wording) -> None:
    """MAE and MSE on logarithmic axes."""
    import matplotlib.ticker as ticks

    left, right = place.subplots(1, 2, sharey=True)
    names = say("MAE, output's unit (log)"), say("MSE, unit squared (log)")
    for axes, metric, name in ((left, "mae", names[0]), (right, "mse", names[1])):
        missing = _dots(axes, evaluation, metric, lambda value: value, _geometric_mean, format_number, say)
        if axes.dataLim.minposx < math.inf:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(ticks.LogLocator(base=10, numticks=4))
            axes.xaxis.set_minor_formatter(ticks.NullFormatter())
            low, high = axes.get_xlim()
            axes.set_xlim(low, high * (high / low) ** 0.45)  # room for the numbers
        label_below(axes, say("{name}; bar: geometric mean", name=name) + not_drawn(missing, say), 31)
        axes.spines[["top", "right"]].set_visible(False)
    title(left, f"2  {say('MAE and MSE: lower is better')}")


def draw_psnr(place: SubFigure, evaluation: Evaluation, say: Wording) -> None:
    """PSNR of every output, with the limits of its ratings."""
    axes = place.subplots()
    missing = _dots(axes, evaluation, "psnr_db", lambda value: value, _mean, lambda value: f"{value:.1f}", say)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.15 * (high - low))
    _limits(axes, "psnr_db", lambda value: value, say)
    label_below(axes, say("PSNR, dB; bar: mean of the outputs") + not_drawn(missing, say))
    title(axes, f"3  {say('PSNR: higher is better')}")


def draw_similarity(place: SubFigure, evaluation: Evaluation, say: Wording) -> None:
    """Cosine and SSIM by their distance from 1, so that 0.99 and 0.9999 are told apart."""
    left, right = place.subplots(1, 2, sharey=True)
    names = say("cosine similarity"), say("SSIM of the image outputs")
    for axes, metric, name in ((left, "cosine", names[0]), (right, "ssim", names[1])):
        missing = _dots(axes, evaluation, metric, _distance, _mean, lambda value: f"{value:.6f}", say)
        _scale_to_one(axes)
        _limits(axes, metric, _distance, say)
        label_below(axes, say("{name}, finer towards 1; bar: mean", name=name) + not_drawn(missing, say), 31)
        axes.spines[["top", "right"]].set_visible(False)
    title(left, f"4  {say('Cosine and SSIM: higher is better')}")


def output_colour(evaluation: Evaluation, name: str) -> str:
    """Of an output's dots."""
    return SERIES[evaluation.outputs.index(name) % len(SERIES)]


def _dots(
    axes: Axes,
    evaluation: Evaluation,
    metric: str,
    placed: Callable[[float], float],
    middle: Callable[[Sequence[float]], float],
    written: Callable[[float], str],
    say: Wording,
) -> list[tuple[SchemeResult, str]]:
    """A row of dots per scheme; returns what has nothing to draw."""
    results, missing = evaluation.quantized, []
    for row, result in enumerate(results):
        values = _values(result, metric)
        # What lies on one place is seen side by side.
        shifts = np.linspace(-0.22, 0.22, max(len(evaluation.outputs), 1))
        for name, value in values.items():
            height = row + shifts[evaluation.outputs.index(name)]
            axes.plot(
                placed(value), height, "o", markersize=5, color=output_colour(evaluation, name),
                markeredgecolor=EDGE, markeredgewidth=0.4, zorder=3,
            )  # fmt: skip
        if not values:
            missing.append((result, say("n/a or 0")))
            continue
        mean = middle(list(values.values()))
        axes.vlines(placed(mean), row - _MEAN_WIDTH, row + _MEAN_WIDTH, color=colour_of(result), linewidth=3, zorder=4)
        axes.annotate(
            written(mean), (1.0, row), xycoords=("axes fraction", "data"), xytext=(-4, 0), ha="right", va="center",
            textcoords="offset points", fontsize=TEXT_SIZE, fontweight="bold" if result.key == "plan" else "normal",
        )  # fmt: skip
    name_rows(axes, results)
    if not evaluation.outputs:
        axes.text(0.5, 0.5, say("no outputs were compared"), transform=axes.transAxes, ha="center")
    return missing


def _values(result: SchemeResult, metric: str) -> ErrorsByScheme:
    """The metric of every output that has it as a number; of errors, which have logarithmic axes, above 0."""
    by_output = {name: getattr(metrics, metric) for name, metrics in result.outputs.items()}
    known = {name: value for name, value in by_output.items() if value is not None and math.isfinite(value)}
    return {name: value for name, value in known.items() if value > 0} if metric in ("mae", "mse") else known


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _distance(similarity: float) -> float:
    return max(1 - similarity, SMALLEST)


def _scale_to_one(axes: Axes) -> None:
    """A logarithmic axis of distances from 1, written as similarities, the best on the right."""
    least, most = axes.dataLim.minposx, axes.dataLim.x1
    if not least < math.inf:
        axes.set_xticks([])
        return
    axes.set_xscale("log")
    low, high = math.log10(least) - 0.2, math.log10(most) + 0.2
    axes.set_xlim(10**high, 10 ** (low - 0.6 * (high - low)))  # room for the numbers
    powers = range(math.ceil(low), math.floor(high) + 1)
    shown = [10.0**power for power in powers] or [10 ** ((low + high) / 2)]
    every = -(-len(shown) // 2)  # what is near 1 has many digits
    axes.set_xticks(shown[::every], [f"{1 - distance:.6g}" for distance in shown[::every]])
    axes.set_xticks([], minor=True)


def _limits(axes: Axes, metric: str, placed: Callable[[float], float], say: Wording) -> None:
    """Where the ratings end, if that is in sight."""
    thresholds, (one, other), bottom = THRESHOLDS[metric], axes.get_xlim(), axes.get_ylim()[0]
    to_axes, before = axes.transData + axes.transAxes.inverted(), -1.0
    for level in reversed(LEVELS[:3]):
        limit = placed(getattr(thresholds, level))
        share = float(to_axes.transform((limit, 0))[0])
        if min(one, other) < limit < max(one, other) and share - before > 0.06:
            before = share
            axes.axvline(limit, color=GREY, linewidth=0.9, linestyle="--", zorder=1)
            axes.annotate(
                say(level), (limit, 0.98), xycoords=("data", "axes fraction"), xytext=(2, 0), rotation=90,
                textcoords="offset points", va="top", fontsize=7, color=QUIET,
            )  # fmt: skip
            axes.set_ylim(bottom, -0.5 - _ROOM_FOR_LEVELS)
