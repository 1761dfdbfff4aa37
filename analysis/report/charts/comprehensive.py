"""The six charts of an evaluation, as the guide asks for them: in one picture, or one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from analysis.evaluation.results import Evaluation
from analysis.evaluation.verdict import Verdict, verdict
from analysis.report.charts.cost_panels import draw_sizes, draw_times, draw_tradeoff
from analysis.report.charts.error_panels import draw_absolute, draw_psnr, draw_similarity, output_colour
from analysis.report.charts.fonts import letters_of
from analysis.report.charts.style import folded_text
from analysis.report.theme import DPI, EDGE, WARNING
from analysis.report.wording import ENGLISH, Wording
from vggtkit.core.atomic import Write, replacing
from vggtkit.core.escaping import plain_for_charts

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


SIZE_INCHES = (18.0, 11.5)
PANEL_INCHES = (6.6, 5.2)
WIDTH_OF_HEADING, HEADING_SIZE = 170, 12
"""Columns of its lines; points."""
Panel: TypeAlias = "Callable[[SubFigure, Evaluation, Wording], None]"
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
ALL_CHARTS = "comprehensive_visualizations"
_UNDATED: dict[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
PICTURE_KINDS = tuple(_UNDATED)


def draw(evaluation: Evaluation, path: Path, answer: Verdict | None = None, say: Wording = ENGLISH) -> None:
    """Write the six charts as a PNG of 1980 x 1265 pixels.

    File size; MAE and MSE; PSNR; cosine and SSIM; time and speed; damage against size with the plan marked. What cannot
    be drawn (not timed, not finite, zero on a logarithmic axis) is said in the chart.

    Args:
        evaluation: what to draw.
        path: the file; it appears complete or not at all.
        answer: the verdict, made where nobody has it yet.
        say: words, as `wording_of_charts` gives them.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary, letters_of(say):
        _whole(evaluation, answer or verdict(evaluation), say).savefig(temporary, format="png", dpi=DPI)


def one_by_one(
    evaluation: Evaluation, folder: Path, answer: Verdict | None = None, say: Wording = ENGLISH
) -> dict[Path, Write]:
    """How the whole and every chart by itself are written as PNG, PDF and SVG, by where they belong.

    Args:
        evaluation: what to draw.
        folder: for the files.
        answer: as in `draw`.
        say: as in `draw`.
    """

    @lru_cache(maxsize=1)  # a figure is saved in all kinds before the next is drawn
    def figure(name: str) -> Figure:
        if name == ALL_CHARTS:
            return _whole(evaluation, answer or verdict(evaluation), say)
        return _alone(evaluation, name, say)

    def write(name: str, kind: str, path: Path) -> None:
        from matplotlib import rc_context

        with rc_context({"svg.hashsalt": ALL_CHARTS}), letters_of(say):
            # No date, so that the same numbers give the same files.
            figure(name).savefig(path, format=kind, dpi=DPI, metadata=_UNDATED[kind])

    names = product((ALL_CHARTS, *PANELS), PICTURE_KINDS)
    return {folder / f"{name}.{kind}": partial(write, name, kind) for name, kind in names}


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _whole(evaluation: Evaluation, answer: Verdict, say: Wording) -> Figure:
    figure = _figure(SIZE_INCHES)
    places = figure.subfigures(2, 3, squeeze=False, wspace=0.03, hspace=0.03).ravel()
    for place, panel in zip(places, PANELS.values(), strict=True):
        panel(place, evaluation, say)
    _write_heading(figure, evaluation, answer, say)
    _add_legend(figure, evaluation)
    return figure


def _alone(evaluation: Evaluation, name: str, say: Wording) -> Figure:
    figure = _figure(PANEL_INCHES)
    PANELS[name](figure.subfigures(1, 1, squeeze=False)[0, 0], evaluation, say)
    if name in OF_OUTPUTS:
        _add_legend(figure, evaluation)
    return figure


def _write_heading(figure: Figure, evaluation: Evaluation, answer: Verdict, say: Wording) -> None:
    scenes = list(evaluation.scenes)
    named = ", ".join(scenes[:6])
    more = len(scenes) - 6
    lines = [
        f"{evaluation.model}: {say.translated(evaluation.weights_note)}",
        say("evaluation scenes: {names}", names=named)
        if more <= 0
        else say("evaluation scenes: {names} and {more} more", names=named, more=more),
    ]
    lines += folded_text(" ".join(map(say.translated, answer.sentences)), WIDTH_OF_HEADING).split("\n")
    warned = "random weights" in evaluation.weights_note.lower()
    figure.suptitle(plain_for_charts("\n".join(lines)), fontsize=HEADING_SIZE, color=WARNING if warned else "black")


def _add_legend(figure: Figure, evaluation: Evaluation) -> None:
    """Which colour is which output."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", linestyle="none", color=output_colour(evaluation, name), markeredgecolor=EDGE,
               label=plain_for_charts(name))
        for name in evaluation.outputs
    ]  # fmt: skip
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), 8), frameon=False, fontsize=9
        )
