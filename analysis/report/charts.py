"""The six charts of an evaluation in one PNG."""

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from analysis.evaluation.results import (
    Evaluation,
    SchemeResult,
    compression_ratio,
    format_mb,
    format_number,
    short_title,
    verdict,
)
from vggtkit.core.atomic import replacing
from vggtkit.core.escaping import plain_for_charts
from vggtkit.metrics.ratings import THRESHOLDS
from vggtkit.quant import FORMATS

SIZE_INCHES = (18.0, 11.5)
DPI = 110

# Okabe & Ito, "Color Universal Design", 2008: told apart with any colour vision.
_PLAN = "#D55E00"
_BY_BITS = {8: "#0072B2", 4: "#009E73", 3: "#CC79A7", 2: "#E69F00"}
_FLOAT = "#7F7F7F"
_WARNING = "#B00000"
_MARKERS = "osD^vp>hX<Pd"
_SMALLEST_SSIM_ERROR = 1e-6


def draw(evaluation: Evaluation, path: Path) -> None:
    """Write the six charts as a PNG of 1980 x 1265 pixels.

    File size, damage against size, NMSE and PSNR of every output, SSIM of the image outputs, inference time.
    What cannot be drawn (not timed, not finite, zero on a logarithmic axis) is said in the chart.

    Args:
        evaluation: what to draw.
        path: the file; it appears complete or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subfigures(2, 1, squeeze=False)[:, 0]
    charts = (_draw_sizes, _draw_tradeoff, _draw_heat_map, _draw_psnr, _draw_ssim, _draw_times)
    # The PSNR of all outputs needs more width than the SSIM of the image outputs.
    axes = [*top.subplots(1, 3), *bottom.subplots(1, 3, width_ratios=(1.3, 0.9, 0.9))]
    for chart, each in zip(charts, axes, strict=True):
        chart(each, evaluation)
    _write_heading(figure, evaluation)
    _add_legend(bottom, evaluation)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _write_heading(figure: Figure, evaluation: Evaluation) -> None:
    scenes = list(evaluation.scenes)
    named = ", ".join(scenes[:6]) + (f" and {len(scenes) - 6} more" if len(scenes) > 6 else "")
    lines = [f"{evaluation.model}: {evaluation.weights_note}", f"evaluation scenes: {named}"]
    lines += textwrap.wrap(verdict(evaluation).sentence, 150)
    warned = "random weights" in evaluation.weights_note.lower()
    figure.suptitle(plain_for_charts("\n".join(lines)), fontsize=12.5, color=_WARNING if warned else "black")


def _add_legend(figure: SubFigure, evaluation: Evaluation) -> None:
    handles = [
        Line2D([], [], **_marker(result, index), label=plain_for_charts(short_title(result)), linestyle="none")
        for index, result in enumerate(evaluation.quantized)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(handles)), frameon=False)


def _colour(result: SchemeResult) -> str:
    if result.key == "plan":
        return _PLAN
    known = FORMATS.get(result.key)
    return _BY_BITS.get(known.bits, _FLOAT) if known else _FLOAT


def _marker(result: SchemeResult, index: int, scale: float = 1.0) -> dict[str, Any]:
    is_plan = result.key == "plan"
    return {
        "marker": "*" if is_plan else _MARKERS[index % len(_MARKERS)],
        "markersize": scale * (16 if is_plan else 7),
        "color": _colour(result),
        "markeredgecolor": "white",
        "markeredgewidth": 0.5,
        "zorder": 5 if is_plan else 3,
    }


def _label_below(axes: Axes, text: str) -> None:
    """The name of the horizontal axis, or a remark, where it covers nothing."""
    axes.set_xlabel(plain_for_charts(textwrap.fill(text, 58)), fontsize=9)


def _tidy(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=12, fontweight="bold", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _bars(axes: Axes, results: Sequence[SchemeResult], values: Sequence[float], labels: Sequence[str]) -> None:
    """One horizontal bar per result, the first on top, its label behind its end."""
    rows = np.arange(len(results))
    axes.barh(rows, values, color=[_colour(result) for result in results], height=0.7)
    for row, value, label in zip(rows, values, labels, strict=True):
        axes.annotate(label, (value, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(rows, [plain_for_charts(short_title(result)) for result in results])
    for tick, result in zip(axes.get_yticklabels(), results, strict=True):
        tick.set_fontweight("bold" if result.key == "plan" else "normal")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * max(values) or 1)


def _draw_sizes(axes: Axes, evaluation: Evaluation) -> None:
    fp32 = evaluation.results[0]
    labels = [
        f"{format_mb(result.size_bytes)} MB" + ("" if result is fp32 else f"  ({compression_ratio(result, fp32):.1f}x)")
        for result in evaluation.results
    ]
    _bars(axes, evaluation.results, [result.size_bytes / 1e6 for result in evaluation.results], labels)
    _label_below(axes, "packed file, MB (how many times smaller than FP32)")
    _tidy(axes, "1  File size")


def _draw_times(axes: Axes, evaluation: Evaluation) -> None:
    results = evaluation.results
    times = [result.seconds or 0.0 for result in results]
    spreads = [result.seconds_spread or (time, time) for result, time in zip(results, times, strict=True)]
    _bars(axes, results, times, [""] * len(results))
    ends = [max(time, high) for time, (_, high) in zip(times, spreads, strict=True)]
    errors = [(max(0.0, t - low), max(0.0, high - t)) for t, (low, high) in zip(times, spreads, strict=True)]
    axes.errorbar(
        times,
        range(len(results)),
        xerr=np.transpose(errors),
        fmt="none",
        ecolor="#333333",
        capsize=3,
        linewidth=1,
    )
    for row, (result, end) in enumerate(zip(results, ends, strict=True)):
        ratio = "" if result.speed_ratio is None else f"  ({result.speed_ratio:.2f}x)"
        label = "not timed" if result.seconds is None else f"{format_number(result.seconds)} s{ratio}"
        axes.annotate(label, (end, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_xlim(0, 1.45 * max(ends) or 1)
    if not any(ends):
        axes.set_xticks([])
    executed = textwrap.shorten(evaluation.executed, 150, placeholder=" ...")
    _label_below(axes, f"seconds: median, min - max (speed against FP32); {executed}")
    _tidy(axes, "6  Inference time")


def _draw_tradeoff(axes: Axes, evaluation: Evaluation) -> None:
    drawn = [(i, r) for i, r in enumerate(evaluation.quantized) if math.isfinite(r.damage) and r.damage > 0]
    left_out = [result for result in evaluation.quantized if result not in [r for _, r in drawn]]
    axes.set_ylabel("damage: mean NMSE of the outputs (log)")
    _tidy(axes, "2  Damage against size: lower left is better")
    _label_below(axes, "packed file, MB" + _not_drawn([(r, format_number(r.damage)) for r in left_out]))
    if not drawn:
        return
    axes.set_yscale("log")
    _set_limits(axes, [result for _, result in drawn])
    for index, result in drawn:
        axes.plot(result.size_bytes / 1e6, result.damage, **_marker(result, index))
    plan = next((result for _, result in drawn if result.key == "plan"), None)
    if plan is not None:
        _shade_beaten(axes, plan)
    middle = sum(axes.get_xlim()) / 2
    _label_points(axes, [r for _, r in drawn if r.size_bytes / 1e6 <= middle], on_left=True)
    _label_points(axes, [r for _, r in drawn if r.size_bytes / 1e6 > middle], on_left=False)


def _set_limits(axes: Axes, results: Sequence[SchemeResult]) -> None:
    """Room around the points: for the labels at both sides, and so that a single point has a scale."""
    sizes = [result.size_bytes / 1e6 for result in results]
    damages = [result.damage for result in results]
    width = max(max(sizes) - min(sizes), 0.1 * max(sizes))
    limits = min(sizes) - width, max(sizes) + width
    axes.set_xlim(limits)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick >= 0])  # the room may reach below zero
    axes.set_xlim(limits)
    axes.set_ylim(min(damages) / 6, max(damages) * 3)


def _shade_beaten(axes: Axes, plan: SchemeResult) -> None:
    (_, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    size = plan.size_bytes / 1e6
    corner = (size, plan.damage)
    axes.add_patch(Rectangle(corner, right - size, top - plan.damage, color=_PLAN, alpha=0.08, linewidth=0))
    axes.text(
        0.99, 0.985, "larger and worse than the plan", transform=axes.transAxes, ha="right", va="top",
        fontsize=9, color=_PLAN, style="italic",
    )  # fmt: skip


def _label_points(axes: Axes, results: Sequence[SchemeResult], *, on_left: bool) -> None:
    """Names in a column at the side of the chart, each joined to its point, none over another."""
    to_axes = axes.transData + axes.transAxes.inverted()
    points = [(r.size_bytes / 1e6, r.damage) for r in results]
    heights = _spread([float(to_axes.transform(point)[1]) for point in points], 0.055, 0.06, 0.93)
    for result, point, height in zip(results, points, heights, strict=True):
        axes.annotate(
            plain_for_charts(short_title(result)),
            point,
            xytext=(0.015 if on_left else 0.985, height),
            textcoords="axes fraction",
            ha="left" if on_left else "right",
            va="center",
            fontsize=9,
            fontweight="bold" if result.key == "plan" else "normal",
            color=_colour(result),
            arrowprops={
                "arrowstyle": "-",
                "color": _colour(result),
                "linewidth": 0.7,
                "relpos": (1 if on_left else 0, 0.5),
            },
        )


def _spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights in the same order, moved as little as needed to be a gap apart within the limits."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    moved = list(heights)
    for rank, index in enumerate(order):
        floor = low if rank == 0 else moved[order[rank - 1]] + gap
        moved[index] = max(heights[index], floor)
    for rank, index in enumerate(reversed(order)):
        moved[index] = min(moved[index], high - rank * gap)
    return moved


def _draw_heat_map(axes: Axes, evaluation: Evaluation) -> None:
    results, outputs = evaluation.quantized, evaluation.outputs
    axes.set_title("3  NMSE of every output, log10", fontsize=12, fontweight="bold", loc="left")
    if not results or not outputs:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no outputs were compared", transform=axes.transAxes, ha="center")
        return
    nmse = [[r.outputs[name].nmse if name in r.outputs else math.nan for name in outputs] for r in results]
    exponents = np.array([[_log10(value) for value in row] for row in nmse])
    finite = exponents[np.isfinite(exponents)]
    limits = Normalize(finite.min() if finite.size else -1.0, finite.max() if finite.size else 0.0)
    axes.imshow(np.ma.masked_invalid(exponents), cmap="cividis", norm=limits, aspect="auto")
    axes.set_facecolor("#DDDDDD")
    for row, column in np.ndindex(exponents.shape):
        value = exponents[row, column]
        text = f"{value:.1f}" if math.isfinite(value) else format_number(nmse[row][column])
        bright = not math.isfinite(value) or limits(value) > 0.5
        axes.text(column, row, text, ha="center", va="center", color="black" if bright else "white", fontsize=10)
    axes.set_xticks(
        range(len(outputs)),
        [plain_for_charts(name) for name in outputs],
        rotation=30,
        ha="right",
        rotation_mode="anchor",
    )
    axes.set_yticks(range(len(results)), [plain_for_charts(short_title(result)) for result in results])
    for tick, result in zip(axes.get_yticklabels(), results, strict=True):
        tick.set_fontweight("bold" if result.key == "plan" else "normal")


def _log10(value: float) -> float:
    return math.log10(value) if math.isfinite(value) and value > 0 else math.nan


def _draw_psnr(axes: Axes, evaluation: Evaluation) -> None:
    axes.set_ylabel("PSNR, dB")
    _tidy(axes, "4  PSNR of every output: higher is better")
    _draw_metric(axes, evaluation, "psnr_db", lambda value: value)


def _draw_ssim(axes: Axes, evaluation: Evaluation) -> None:
    axes.set_ylabel("SSIM (finer steps towards 1, up to 0.999999)")
    _tidy(axes, "5  SSIM of the image outputs: higher is better")
    axes.set_yscale("log")
    # The distance from 1, upside down: values of 0.99 and 0.9999 are told apart.
    drawn = _draw_metric(axes, evaluation, "ssim", lambda value: max(1 - value, _SMALLEST_SSIM_ERROR))
    if drawn:
        worst, best = max(drawn), min(drawn)
        axes.set_ylim(worst * 2, best / 2)
        steps = (1,) if worst > 30 * best else (1, 2, 5)
        ticks = [step * 10.0**-power for power in range(8) for step in steps]
        shown = [tick for tick in ticks if best / 2 <= tick <= worst * 2]
        axes.set_yticks(shown, [f"{1 - tick:.6g}" for tick in shown])
        axes.set_yticks([], minor=True)


def _draw_metric(axes: Axes, evaluation: Evaluation, metric: str, place: Callable[[float], float]) -> list[float]:
    """One column of markers per output that has the metric, and the limits of its ratings; what was drawn."""
    results = evaluation.quantized
    outputs = [
        name
        for name in evaluation.outputs
        if any(name in r.outputs and getattr(r.outputs[name], metric) is not None for r in results)
    ]
    shifts = np.linspace(-0.38, 0.38, len(results)) if len(results) > 1 else np.zeros(1)
    drawn: list[float] = []
    missing: list[tuple[SchemeResult, str]] = []
    for index, result in enumerate(results):
        values = [getattr(result.outputs[name], metric) if name in result.outputs else None for name in outputs]
        finite = [(c, place(v)) for c, v in enumerate(values) if v is not None and math.isfinite(v)]
        for column, height in finite:
            axes.plot(column + shifts[index], height, **_marker(result, index, scale=0.8))
        drawn += [height for _, height in finite]
        if others := sorted({format_number(v) for v in values if v is not None and not math.isfinite(v)}):
            missing.append((result, "/".join(others)))
    axes.set_xticks(
        range(len(outputs)),
        [plain_for_charts(name) for name in outputs],
        rotation=20,
        ha="right",
        rotation_mode="anchor",
    )
    _draw_columns(axes, len(outputs))
    _draw_limits(axes, metric, place, drawn)
    _label_below(axes, _not_drawn(missing).lstrip("; ") if outputs else "no output has this metric")
    return drawn


def _not_drawn(missing: Sequence[tuple[SchemeResult, str]]) -> str:
    """What a chart leaves out and why, to follow on its axis's name; nothing for nothing."""
    listed = ", ".join(f"{short_title(result)} ({value})" for result, value in missing)
    return f"; not drawn: {listed}" if listed else ""


def _draw_columns(axes: Axes, count: int) -> None:
    axes.set_xlim(-0.5, max(count, 1) - 0.5)
    for column in range(0, count, 2):
        axes.axvspan(column - 0.5, column + 0.5, color="#F3F3F3", zorder=0)


def _draw_limits(axes: Axes, metric: str, place: Callable[[float], float], drawn: Sequence[float]) -> None:
    thresholds = THRESHOLDS[metric]
    for level in ("excellent", "good", "acceptable"):
        height = place(getattr(thresholds, level))
        if drawn and min(drawn) <= height <= max(drawn):
            axes.axhline(height, color="#999999", linewidth=0.9, linestyle="--", zorder=1)
            axes.annotate(
                level, (1.0, height), xycoords=("axes fraction", "data"), xytext=(3, 0),
                textcoords="offset points", va="bottom", fontsize=8, color="#666666",
            )  # fmt: skip
