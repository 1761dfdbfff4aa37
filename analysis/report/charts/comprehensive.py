"""The six charts of an evaluation, as the guide asks for them: in one picture, or one by one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from analysis.evaluation.results import Evaluation, verdict
from analysis.report.charts.cost_panels import draw_sizes, draw_times, draw_tradeoff
from analysis.report.charts.error_panels import draw_absolute, draw_psnr, draw_similarity, output_colour
from analysis.report.theme import DPI, WARNING
from vggtkit.core.atomic import replacing, replacing_all
from vggtkit.core.escaping import plain_for_charts

SIZE_INCHES = (18.0, 11.5)
PANEL_INCHES = (6.6, 5.2)
Panel = Callable[[SubFigure, Evaluation], None]
PANELS: dict[str, Panel] = {
    "1-file-size": draw_sizes,
    "2-mae-mse": draw_absolute,
    "3-psnr": draw_psnr,
    "4-cosine-ssim": draw_similarity,
    "5-time": draw_times,
    "6-accuracy-size": draw_tradeoff,
}
"""By the name of their files."""
OF_OUTPUTS = ("2-mae-mse", "3-psnr", "4-cosine-ssim")
"""Those with dots for outputs, which need a legend."""
WHOLE = "comprehensive_visualizations"
_UNDATED: dict[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
KINDS = tuple(_UNDATED)


def draw(evaluation: Evaluation, path: Path) -> None:
    """Write the six charts as a PNG of 1980 x 1265 pixels.

    File size; MAE and MSE; PSNR; cosine and SSIM; time and speed; damage against size with the plan marked. What cannot
    be drawn (not timed, not finite, zero on a logarithmic axis) is said in the chart.

    Args:
        evaluation: what to draw.
        path: the file; it appears complete or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        _whole(evaluation).savefig(temporary, format="png", dpi=DPI)


def draw_each(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the whole and every chart by itself, as PNG, PDF and SVG; all of them, or none.

    Args:
        evaluation: what to draw.
        folder: for the files; it is made where it is not there.

    Returns:
        The files.

    Raises:
        InputError: one cannot be written.
    """
    figures = {WHOLE: _whole(evaluation)} | {name: _alone(evaluation, name) for name in PANELS}
    paths = [folder / f"{name}.{kind}" for name in figures for kind in KINDS]
    with replacing_all(paths) as temporaries, rc_context({"svg.hashsalt": WHOLE}):
        written = iter(temporaries)
        for figure in figures.values():
            for kind in KINDS:
                # No date, so that the same numbers give the same files.
                figure.savefig(next(written), format=kind, dpi=DPI, metadata=_UNDATED[kind])
    return paths


def _figure(size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _whole(evaluation: Evaluation) -> Figure:
    figure = _figure(SIZE_INCHES)
    places = figure.subfigures(2, 3, squeeze=False, wspace=0.03, hspace=0.03).ravel()
    for place, panel in zip(places, PANELS.values(), strict=True):
        panel(place, evaluation)
    _write_heading(figure, evaluation)
    _add_legend(figure, evaluation)
    return figure


def _alone(evaluation: Evaluation, name: str) -> Figure:
    figure = _figure(PANEL_INCHES)
    PANELS[name](figure.subfigures(1, 1, squeeze=False)[0, 0], evaluation)
    if name in OF_OUTPUTS:
        _add_legend(figure, evaluation)
    return figure


def _write_heading(figure: Figure, evaluation: Evaluation) -> None:
    scenes = list(evaluation.scenes)
    named = ", ".join(scenes[:6]) + (f" and {len(scenes) - 6} more" if len(scenes) > 6 else "")
    lines = [f"{evaluation.model}: {evaluation.weights_note}", f"evaluation scenes: {named}"]
    lines += textwrap.wrap(verdict(evaluation).sentence, 150)
    warned = "random weights" in evaluation.weights_note.lower()
    figure.suptitle(plain_for_charts("\n".join(lines)), fontsize=12.5, color=WARNING if warned else "black")


def _add_legend(figure: Figure, evaluation: Evaluation) -> None:
    """Which colour is which output."""
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=output_colour(evaluation, name), markeredgecolor="#555555",
               label=plain_for_charts(name))
        for name in evaluation.outputs
    ]  # fmt: skip
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), 8), frameon=False, fontsize=9
        )
