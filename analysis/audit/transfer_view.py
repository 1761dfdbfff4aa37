"""What moving a calibration costs, for people: tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from analysis.audit.transfer import CORRELATION, EVERYTHING, OTHERS, TIMES_BETTER, Moved, Transfer
from analysis.report.document import Row, Table, Tone


def transfer_tables(transfer: Transfer) -> list[Table]:
    """Every calibration on every place, and correlations by output."""
    rows, tones = list[Row](), dict[int, Tone]()
    for row in transfer.rows:
        tones[len(rows)] = "strong" if row.calibration == row.place else "" if _holds(transfer, row) else "warning"
        cells = (f"{row.damage:.2e}", f"{row.regret:.2f}", f"{row.times_better:.1f}")
        rows.append((row.calibration, row.place, *cells, f"{row.correlation:.3f}", f"{row.within:.3f}"))
    columns = ("plan from", "judged on", "damage", "regret", "times better", "correlation", "within formats")
    best = ", ".join(f"{place}: {title} {damage:.2e}" for place, (title, damage) in transfer.uniform.items())
    caption = f"times better: than the best uniform scheme of its bytes ({best})"
    moves = Table(
        f"Plans at {transfer.size_bytes / 1e6:.2f} MB, moved", columns, rows, caption, words=("judged on",), tones=tones
    )
    outputs = list(transfer.rows[0].by_output)
    pairs = [row for row in transfer.moved if transfer.places.index(row.calibration) < transfer.places.index(row.place)]
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


def transfer_sentences(transfer: Transfer) -> list[str]:
    """The gate, in words, and what calibration is safest."""
    gate = f"correlation at least {CORRELATION:g}, moved plan at least {TIMES_BETTER:g} times better than uniform"
    failing = [row for row in transfer.moved if not row.passes]
    if failing:
        reasons = "; ".join(
            f"{row.calibration} to {row.place}: correlation {row.correlation:.3f}, {row.times_better:.1f} times better"
            for row in failing
        )
        said = f"GATE FAILED by {len(failing)} of {len(transfer.moved)} moves ({gate}): {reasons}."
    else:
        said = f"Gate passed by all {len(transfer.moved)} moves ({gate})."
    worst = transfer.worst
    listed = ", ".join(f"{name} {value:.2f}" for name, value in sorted(worst.items(), key=lambda pair: pair[1]))
    return [said, f"Safest calibration: {transfer.safest} (worst regret over the places: {listed})."]


def transfer_values(transfer: Transfer) -> dict[str, Any]:
    """Everything, for machines."""
    return asdict(transfer) | {
        "gate": {"correlation": CORRELATION, "times_better": TIMES_BETTER, "passed": transfer.passes},
        "worst_regret": transfer.worst,
        "safest": transfer.safest,
    }


def transfer_from_values(values: Mapping[str, Any]) -> Transfer:
    """What `transfer_values` gives, back from JSON; a number that this cannot hold is NaN.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    rows = tuple(
        Moved(
            str(row["calibration"]), str(row["place"]), number(row["damage"]), number(row["regret"]),
            number(row["times_better"]), number(row["correlation"]),
            {str(name): number(value) for name, value in row["by_output"].items()}, number(row["within"]),
        )
        for row in values["rows"]
    )  # fmt: skip
    uniform = {str(place): (str(title), number(damage)) for place, (title, damage) in values["uniform"].items()}
    scenes = {str(place): tuple(map(str, names)) for place, names in values["scenes"].items()}
    places = tuple(map(str, values["places"]))
    transfer = Transfer(places, scenes, str(values["budget"]), int(values["size_bytes"]), uniform, rows)
    for calibration in transfer.worst:
        for place in places:
            transfer.of(calibration, place)  # every calibration is judged everywhere
    return transfer


def _holds(transfer: Transfer, row: Moved) -> bool:
    return row.passes or row.calibration in (EVERYTHING, OTHERS) or row not in transfer.moved
