"""What moving a calibration costs, as two fields of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.audit.transfer import Transfer
from analysis.report.charts.fonts import letters_of
from analysis.report.theme import DPI, FIELD_COLOURS
from analysis.report.wording import ENGLISH, Wording
from vggtkit.core.atomic import replacing
from vggtkit.core.escaping import plain_for_charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_transfer(transfer: Transfer, path: Path, say: Wording = ENGLISH) -> None:
    """Two heat maps: correlation of scores, and regret of plans.

    Args:
        transfer: what to draw.
        path: of the PNG.
        say: words, as `wording_of_charts` gives them.

    Raises:
        InputError: the file cannot be written.
    """
    with letters_of(say), replacing(path) as temporary:
        _figure(transfer, say).savefig(temporary, format="png", dpi=DPI)


def _figure(transfer: Transfer, say: Wording) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    calibrations = list(transfer.worst)
    figure = Figure(
        figsize=(5.0 + 2.4 * len(transfer.places), 2.6 + 0.6 * len(calibrations)), dpi=DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    correlations = _matrix(transfer, transfer.places, "correlation")
    _heat_map(
        left, correlations, transfer.places, transfer.places, say("Rank correlation of scores"), "{:.3f}", (0.5, 1.0)
    )
    regrets = _matrix(transfer, calibrations, "regret")
    worst = max(2.0, float(np.nanmax(regrets)))
    names = list(map(say.translated, calibrations))
    _heat_map(right, regrets, names, transfer.places, say("Regret of moved plans"), "{:.2f}", (1.0, worst))
    right.set_xlabel(say("judged on"))
    left.set_ylabel(say("scores, plan from"))
    return figure


def _matrix(transfer: Transfer, calibrations: Sequence[str], figure: str) -> NDArray[np.float64]:
    return np.array([[getattr(transfer.of(name, place), figure) for place in transfer.places] for name in calibrations])


def _heat_map(
    axes: Axes, values: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], title: str, form: str,
    limits: tuple[float, float],
) -> None:  # fmt: skip
    image = axes.imshow(values, cmap=FIELD_COLOURS, vmin=limits[0], vmax=limits[1], aspect="auto")
    middle = sum(limits) / 2
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > middle else "white"  # the colours grow lighter
        axes.text(column, row, form.format(value), ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(columns)), [plain_for_charts(name) for name in columns], rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), [plain_for_charts(name) for name in rows])
    axes.set_title(title, fontsize=11, fontweight="bold", loc="left")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
