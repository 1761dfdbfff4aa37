"""How far every scheme's depth and points are from FP32's on one scene, pixel by pixel, as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.evaluation.depth_maps import DepthMaps
from analysis.evaluation.results import Evaluation, short_title
from analysis.report.charts.colours import ERROR_DECADES, colour
from analysis.report.charts.fonts import letters_of
from analysis.report.theme import DPI, ERROR_COLOURS, TEXT_SIZE, TITLE_SIZE
from analysis.report.wording import Wording
from vggtkit.core.escaping import plain_for_charts

Map = NDArray[np.float32]
MOST_COLUMNS = 5
SIDE = 1.9
ENGLISH = Wording("en")
"""Inches of a map."""


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
        shares: what each pixel is off, as a share of something typical, by the key of a scheme.
        picture: what was seen.
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
    names = {result.key: short_title(result) for result in evaluation.results}
    columns = min(MOST_COLUMNS, len(shares) + 1)
    rows = -(-(len(shares) + 1) // columns)
    tall = picture.shape[0] / picture.shape[1]
    figure = Figure(
        figsize=(SIDE * columns, (SIDE * min(2.0, tall) + 0.45) * rows + 1.0), dpi=DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    cells = list(np.atleast_1d(np.asarray(figure.subplots(rows, columns))).flat)
    for axes in cells:
        axes.set_axis_off()
    cells[0].imshow(picture)
    cells[0].set_title(say("seen"), fontsize=TEXT_SIZE)
    for axes, (key, share) in zip(cells[1:], shares.items(), strict=False):
        with np.errstate(divide="ignore", invalid="ignore"):
            axes.imshow(colour(np.log10(share), *ERROR_DECADES, ERROR_COLOURS), interpolation="nearest")
        mean = say("mean {share}", share=f"{np.mean(share):.2%}") if np.isfinite(share).all() else say("broken")
        axes.set_title(plain_for_charts(f"{names[key]}\n{mean}"), fontsize=TEXT_SIZE)
    scale = say("0.01 % is dark, 100 % is bright, in steps of ten")
    figure.suptitle(plain_for_charts(f"{title}\n{scale}"), fontsize=TITLE_SIZE, x=0.01, ha="left")
    return figure
