"""What moving a calibration costs, for people: tables, sentences, a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.audit.transfer import CORRELATION, EVERYTHING, OTHERS, TIMES_BETTER, Moved, Transfer
from analysis.report.document import Row, Table, Tone
from analysis.report.theme import DPI, FIELD_COLOURS
from vggtkit.core.atomic import replacing
from vggtkit.core.escaping import plain_for_charts


def transfer_tables(found: Transfer) -> list[Table]:
    """Every calibration on every place, and correlations by output."""
    rows, tones = list[Row](), dict[int, Tone]()
    for row in found.rows:
        tones[len(rows)] = "strong" if row.calibration == row.place else "" if _holds(found, row) else "warning"
        cells = (f"{row.damage:.2e}", f"{row.regret:.2f}", f"{row.times_better:.1f}")
        rows.append((row.calibration, row.place, *cells, f"{row.correlation:.3f}", f"{row.within:.3f}"))
    columns = ("plan from", "judged on", "damage", "regret", "times better", "correlation", "within formats")
    best = ", ".join(f"{place}: {title} {damage:.2e}" for place, (title, damage) in found.uniform.items())
    caption = f"times better: than the best uniform scheme of its bytes ({best})"
    moves = Table(
        f"Plans at {found.size_bytes / 1e6:.2f} MB, moved", columns, rows, caption, words=("judged on",), tones=tones
    )
    outputs = list(found.rows[0].by_output)
    pairs = [row for row in found.moved if found.places.index(row.calibration) < found.places.index(row.place)]
    correlations = Table(
        "Rank correlation of scores, by output",
        ("from", "to", "all", *outputs),
        [
            (row.calibration, row.place, *(f"{v:.3f}" for v in (row.correlation, *row.by_output.values())))
            for row in pairs
        ],
        words=("to",),
    )
    return [moves, correlations]


def transfer_sentences(found: Transfer) -> list[str]:
    """The gate, in words, and what calibration is safest."""
    gate = f"correlation at least {CORRELATION:g}, moved plan at least {TIMES_BETTER:g} times better than uniform"
    failing = [row for row in found.moved if not row.passes]
    if failing:
        reasons = "; ".join(
            f"{row.calibration} to {row.place}: correlation {row.correlation:.3f}, {row.times_better:.1f} times better"
            for row in failing
        )
        said = f"GATE FAILED by {len(failing)} of {len(found.moved)} moves ({gate}): {reasons}."
    else:
        said = f"Gate passed by all {len(found.moved)} moves ({gate})."
    worst = found.worst
    listed = ", ".join(f"{name} {value:.2f}" for name, value in sorted(worst.items(), key=lambda pair: pair[1]))
    return [said, f"Safest calibration: {found.safest} (worst regret over the places: {listed})."]


def transfer_values(found: Transfer) -> dict[str, Any]:
    """Everything, for machines."""
    return asdict(found) | {
        "gate": {"correlation": CORRELATION, "times_better": TIMES_BETTER, "passed": found.passes},
        "worst_regret": found.worst,
        "safest": found.safest,
    }


def draw_transfer(found: Transfer, path: Path) -> None:
    """Two heat maps: correlation of scores, and regret of plans.

    Raises:
        InputError: the file cannot be written.
    """
    calibrations = list(found.worst)
    figure = Figure(
        figsize=(5.0 + 2.4 * len(found.places), 2.6 + 0.6 * len(calibrations)), dpi=DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    correlations = _matrix(found, found.places, "correlation")
    _heat_map(left, correlations, found.places, found.places, "Rank correlation of scores", "{:.3f}", (0.5, 1.0))
    regrets = _matrix(found, calibrations, "regret")
    worst = max(2.0, float(np.nanmax(regrets)))
    _heat_map(right, regrets, calibrations, found.places, "Regret of moved plans", "{:.2f}", (1.0, worst))
    right.set_xlabel("judged on")
    left.set_ylabel("scores, plan from")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _holds(found: Transfer, row: Moved) -> bool:
    return row.passes or row.calibration in (EVERYTHING, OTHERS) or row not in found.moved


def _matrix(found: Transfer, calibrations: Sequence[str], figure: str) -> NDArray[np.float64]:
    return np.array([[getattr(found.of(name, place), figure) for place in found.places] for name in calibrations])


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
