"""How far every scheme's depth and points are from FP32's on one scene, pixel by pixel, as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.evaluation.depth_maps import DepthMaps
from analysis.evaluation.results import Evaluation, short_title
from analysis.report.charts.colours import ERROR_DECADES, colour
from analysis.report.charts.fonts import letters_of
from analysis.report.theme import DPI, ERROR_COLOURS, TEXT_SIZE, TITLE_SIZE
from analysis.report.wording import ENGLISH, Wording
from vggtkit.core.arrays import Map
from vggtkit.core.escaping import plain_for_charts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST_COLUMNS = 5
SIDE = 1.9
"""Inches across a map."""
NAMES, HEADING, GAP = 0.5, 0.75, 0.12
"""Inches above a map, above all of them, and between them."""


def depth_shares(maps: DepthMaps) -> dict[str, Map]:
    """``|scheme - FP32| / median depth of FP32`` of the first view, by the key of a scheme."""
    reference = maps.depth[0, 0]
    typical = float(np.nanmedian(np.abs(reference))) or 1.0
    return {key: np.abs(maps.depth[number, 0] - reference) / typical for number, key in enumerate(maps.keys) if number}


def draw_differences(
    shares: Mapping[str, Map],
    picture: NDArray[np.uint8],
    evaluation: Evaluation,
    title: str,
    path: Path,
    say: Wording = ENGLISH,
) -> None:
    """Draw a map for every scheme beside the picture, all on one scale of colours.

    Args:
        shares: what each pixel is off ``[H, W]``, as a share of something typical, by the key of a scheme.
        picture: what was seen ``[H, W, 3]``.
        evaluation: says what schemes are called.
        title: above all.
        path: of the PNG.
        say: words, as `wording_of_charts` gives them.
    """
    with letters_of(say):
        _figure(shares, picture, evaluation, title, say).savefig(path, format="png")


def _figure(
    shares: Mapping[str, Map], picture: NDArray[np.uint8], evaluation: Evaluation, title: str, say: Wording
) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = {result.key: short_title(result) for result in evaluation.results}
    columns = min(MOST_COLUMNS, len(shares) + 1)
    rows = -(-(len(shares) + 1) // columns)
    height = SIDE * min(2.0, picture.shape[0] / picture.shape[1])
    figure = Figure(figsize=(SIDE * columns, (height + NAMES) * rows + HEADING), dpi=DPI)
    FigureCanvasAgg(figure)
    # One pair of axes, in inches from the upper left: each further one takes as long as all maps.
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    width, total = figure.get_size_inches()
    axes.set(xlim=(0, width), ylim=(total, 0))
    axes.set_axis_off()
    for number, (name, map_) in enumerate([(say("seen"), picture), *_named(shares, names, say)]):
        row, column = divmod(number, columns)
        left, top = column * SIDE, HEADING + row * (height + NAMES) + NAMES
        wide, high = _fitted(map_, SIDE - GAP, height)
        middle = left + SIDE / 2
        axes.imshow(
            map_, interpolation="nearest" if number else None, aspect="auto",
            extent=(middle - wide / 2, middle + wide / 2, top + high, top),
        )  # fmt: skip
        axes.text(middle, top - GAP / 2, name, fontsize=TEXT_SIZE, ha="center", va="bottom")
    axes.set(xlim=(0, width), ylim=(total, 0))
    scale = say("0.01 % is dark, 100 % is bright, in steps of ten")
    axes.text(GAP, GAP, plain_for_charts(f"{title}\n{scale}"), fontsize=TITLE_SIZE, ha="left", va="top")
    return figure


def _named(
    shares: Mapping[str, Map], names: Mapping[str, str], say: Wording
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """What is said above each map, and its colours."""
    for key, share in shares.items():
        mean = say("mean {share}", share=f"{np.mean(share):.2%}") if np.isfinite(share).all() else say("broken")
        with np.errstate(divide="ignore", invalid="ignore"):
            coloured = colour(np.log10(share), *ERROR_DECADES, ERROR_COLOURS)
        yield plain_for_charts(f"{names[key]}\n{mean}"), coloured


def _fitted(map_: NDArray[np.uint8], width: float, height: float) -> tuple[float, float]:
    """The largest size of a map within some inches, its proportions kept."""
    scale = min(width / map_.shape[1], height / map_.shape[0])
    return scale * map_.shape[1], scale * map_.shape[0]
