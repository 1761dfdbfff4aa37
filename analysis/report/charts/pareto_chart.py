"""The trade-off as a picture for a paper: damage, cameras and depth against the size of the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.report.charts.fonts import letters_of
from analysis.report.theme import BASELINE as BASELINE_COLOUR
from analysis.report.theme import GRID, REFERENCE
from analysis.report.theme import PLAN as PLAN_COLOUR
from analysis.report.theme import UNIFORM as UNIFORM_COLOUR
from analysis.report.wording import ENGLISH, Wording
from analysis.search.pareto import BASELINE, PLAN, UNIFORM, FrontPoint, Pareto, measured_plans
from mixedprec.plan import DATA_FREE
from vggtkit.core.atomic import replacing
from vggtkit.core.escaping import plain_for_charts
from vggtkit.metrics.geometry import GEOMETRY, HEADLINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PRINT_DPI = 200
_BASELINE_MARKERS = {"first and last layers": "v", "attention and heads": "^", "inverted score": "x", "random": "o",
                     "policy sensitive": "D"}  # fmt: skip


def draw_pareto(pareto: Pareto, path: Path, say: Wording = ENGLISH) -> None:
    """Write the picture: damage on a logarithmic axis, and the headline geometry figures where they were measured.

    Args:
        pareto: what to draw.
        path: of the PNG; it appears complete or not at all.
        say: words, as `wording_of_charts` gives them.
    """
    with letters_of(say), replacing(path) as temporary:
        _figure(pareto, say).savefig(temporary, format="png", dpi=PRINT_DPI)


def _figure(pareto: Pareto, say: Wording) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keys = [key for key in HEADLINE if key in pareto.fp32]
    figure = Figure(figsize=(4.6 + 3.4 * len(keys), 4.3), dpi=PRINT_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + len(keys), squeeze=False, width_ratios=(1.35, *(1.0 for _ in keys)))[0]
    _draw_damage(panels[0], pareto, say)
    for axes, key in zip(panels[1:], keys, strict=True):
        _draw_figure(axes, pareto, key, say)
    guessed = str(pareto.facts.get("score", "")).startswith(DATA_FREE)
    scenes = (
        say("{count} held-out scenes", count=len(pareto.scenes))
        if pareto.scenes
        else say("a guess")
        if guessed
        else say("predicted")
    )
    title = say("{model}: what a file size costs ({scenes})", model=pareto.model, scenes=scenes)
    figure.suptitle(plain_for_charts(title), fontsize=11, x=0.01, ha="left")
    handles = [handle for axes in panels[:2] for handle in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=5 if keys else 2, frameon=False, fontsize=8)
    return figure


def _draw_damage(axes: Axes, pareto: Pareto, say: Wording) -> None:
    plans = pareto.of_kind(PLAN)
    axes.plot(
        *_line(plans, _predicted), color=PLAN_COLOUR, linewidth=1.0, linestyle="--", label=say("plans, predicted")
    )
    if measured := measured_plans(plans):
        axes.plot(
            *_line(measured, _measured),
            color=PLAN_COLOUR,
            linewidth=1.6,
            marker="o",
            markersize=4,
            label=say("plans, measured"),
        )  # fmt: skip
    value = _measured_or_predicted if pareto.scenes else _predicted
    for point in pareto.of_kind(UNIFORM):
        axes.plot(
            _mb(point), value(point), color=UNIFORM_COLOUR, marker="s", markersize=5, linestyle="none",
            label=say("uniform schemes") if point is pareto.of_kind(UNIFORM)[0] else None,
        )  # fmt: skip
    _label_uniform(axes, pareto.of_kind(UNIFORM), value, say)
    named: set[str] = set()
    for point in pareto.of_kind(BASELINE):
        kind = next((name for name in _BASELINE_MARKERS if point.title.startswith(name)), point.title)
        axes.plot(
            _mb(point), value(point), color=BASELINE_COLOUR, marker=_BASELINE_MARKERS.get(kind, "P"), markersize=5,
            linestyle="none", fillstyle="none", label=None if kind in named else say.translated(kind),
        )  # fmt: skip
        named.add(kind)
    axes.set_yscale("log")
    if measured:  # far below what is measured a prediction is of no use
        axes.set_ylim(bottom=min(y for y in _line(measured, _measured)[1]) / 100)
    axes.set_ylabel(say("damage: NMSE of the outputs against FP32"))
    _tidy(axes, pareto, say)


def _draw_figure(axes: Axes, pareto: Pareto, key: str, say: Wording) -> None:
    fp32 = pareto.fp32[key]
    axes.axhline(fp32.mean, color=REFERENCE, linewidth=1.0, label=say("FP32; grey: 95% over scenes"))
    axes.axhspan(fp32.low, fp32.high, color=REFERENCE, alpha=0.08, linewidth=0)
    plans = [point for point in measured_plans(pareto.points) if key in point.geometry]
    axes.plot(*_line(plans, lambda p: p.geometry[key].mean), color=PLAN_COLOUR, linewidth=1.6, marker="o", markersize=4)
    for kind, colour, marker in ((UNIFORM, UNIFORM_COLOUR, "s"), (BASELINE, BASELINE_COLOUR, None)):
        for point in pareto.of_kind(kind):
            if key in point.geometry:
                name = next((name for name in _BASELINE_MARKERS if point.title.startswith(name)), "")
                axes.plot(
                    _mb(point), point.geometry[key].mean, color=colour, linestyle="none", markersize=5,
                    marker=marker or _BASELINE_MARKERS.get(name, "P"), fillstyle="full" if marker else "none",
                )  # fmt: skip
    metric = GEOMETRY[key]
    better = say("higher is better") if metric.higher_is_better else say("lower is better")
    axes.set_ylabel(f"{metric.title} ({better})")
    _tidy(axes, pareto, say)


def _label_uniform(
    axes: Axes, points: Sequence[FrontPoint], value: Callable[[FrontPoint], float], say: Wording
) -> None:
    """Names right of the uniform schemes; those of about the same size share one."""
    clusters: list[list[FrontPoint]] = []
    for point in sorted(points, key=lambda p: p.size_bytes):
        if clusters and point.size_bytes < 1.15 * clusters[-1][-1].size_bytes:
            clusters[-1].append(point)
        else:
            clusters.append([point])
    for cluster in clusters:
        last = cluster[-1]
        several = say("{bits}, {count} schemes", bits=last.title.split()[0], count=len(cluster))
        text = last.title if len(cluster) == 1 else several
        axes.annotate(
            text, (_mb(last), value(last)), xytext=(7, 0), textcoords="offset points", fontsize=8, color=UNIFORM_COLOUR,
            va="center",
        )  # fmt: skip


def _tidy(axes: Axes, pareto: Pareto, say: Wording) -> None:
    import matplotlib.ticker as ticks

    axes.set_xlabel(say("file size (MB); FP32 is {mb} MB", mb=f"{pareto.fp32_bytes / 1e6:.1f}"))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticks.LogLocator(base=10, subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
    axes.xaxis.set_major_formatter(ticks.StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(ticks.NullLocator())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _line(points: Sequence[FrontPoint], value: Callable[[FrontPoint], float | None]) -> tuple[list[float], list[float]]:
    drawn = [(point.size_bytes / 1e6, height) for point in points if (height := value(point))]
    return [x for x, _ in drawn], [y for _, y in drawn]


def _measured(point: FrontPoint) -> float | None:
    return point.measured


def _predicted(point: FrontPoint) -> float:
    return point.predicted


def _measured_or_predicted(point: FrontPoint) -> float:
    return point.predicted if point.measured is None else point.measured


def _mb(point: FrontPoint) -> float:
    return point.size_bytes / 1e6
