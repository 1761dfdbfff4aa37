"""What a size buys: with all heads and without some, in MB and in MiB."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.table import Table

from mixedprec.checkpoint import overhead_bytes
from mixedprec.evidence import Evidence
from mixedprec.palette import default_formats
from mixedprec.planner import Planned, Request, budget_in_bytes, planned, smallest_bytes
from mixedprec.solver import Infeasible
from vggtkit.model import HEADS
from vggtkit.quant import get_format
from vggtkit.subject import Subject

HEAD_SETS = (HEADS, ("camera", "depth", "point"), ("camera", "depth", "track"), ("camera", "depth"))
_BINARY = {"kb": "KiB", "mb": "MiB", "gb": "GiB"}


@dataclass(frozen=True)
class Alternative:
    """One way to read a budget and to choose heads.

    Attributes:
        heads: that are kept.
        budget: as it would be typed.
        budget_bytes: of the whole file.
        int8_int4_floor: bytes of the smallest file with INT8 and INT4 alone.
        found: the plan; None where none fits.
        int8_share: weights at 8 bits or more, of all weights in the layers.
        fewest_bits: of the plan's formats.
    """

    heads: tuple[str, ...]
    budget: str
    budget_bytes: int
    int8_int4_floor: int
    found: Planned | None
    int8_share: float
    fewest_bits: int | None

    @property
    def left_for_int8(self) -> int:
        """Bytes above the floor of INT8 and INT4, which raise layers from INT4; negative where it is not reached."""
        return self.budget_bytes - self.int8_int4_floor


def alternatives(evidence: Evidence, subject: Subject, request: Request) -> list[Alternative]:
    """Plans for the same size with all heads and without some, and for its binary namesake (MB, MiB).

    Args:
        evidence: of a model with all heads that are to be compared.
        subject: its architecture; stays as it is.
        request: whose budget and formats are taken; its constraints too, where they fit.
    """
    sets: list[tuple[str, ...]] = [heads for heads in HEAD_SETS if set(heads) <= set(subject.heads)]
    if request.heads is not None and request.heads not in sets:
        sets.append(request.heads)
    return [
        _alternative(evidence, subject.with_heads(heads), replace(request, heads=heads, budget=budget))
        for heads in sets
        for budget in _readings(request.budget)
    ]


def alternatives_table(rows: Sequence[Alternative], chosen: tuple[str, ...]) -> Table:
    """The alternatives side by side; the heads that were asked for in bold."""
    table = Table(title="What this size buys", title_justify="left")
    table.add_column("heads")
    for name in ("budget", "INT8+INT4 floor MB", "left for INT8 MB", "plan MB", "fewest bits", "weights at 8 bits"):
        table.add_column(name, justify="right")
    for row in rows:
        plan = row.found.plan if row.found else None
        table.add_row(
            "all" if row.heads == HEADS else ", ".join(row.heads),
            row.budget,
            f"{row.int8_int4_floor / 1e6:.1f}",
            f"{row.left_for_int8 / 1e6:+.1f}",
            f"{plan.size_bytes / 1e6:.2f}" if plan else "does not fit",
            str(row.fewest_bits or ""),
            f"{row.int8_share:.0%}" if plan else "",
            style="bold" if row.heads == chosen and row.budget == rows[0].budget else "",
        )
    return table


def alternatives_values(rows: Sequence[Alternative]) -> list[dict[str, object]]:
    """The same as plain values."""
    return [
        {
            "heads": list(row.heads),
            "budget": row.budget,
            "budget_bytes": row.budget_bytes,
            "int8_int4_floor_bytes": row.int8_int4_floor,
            "left_for_int8_bytes": row.left_for_int8,
            "size_bytes": row.found.plan.size_bytes if row.found else None,
            "fewest_bits": row.fewest_bits,
            "int8_share": row.int8_share,
        }
        for row in rows
    ]


def _readings(budget: str) -> list[str]:
    """The budget, and where it is in decimal units its binary namesake.

    >>> _readings("600MB"), _readings("4.2bpw")
    (['600MB', '600MiB'], ['4.2bpw'])
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*(kb|mb|gb)\s*", budget, re.IGNORECASE)
    return [budget, f"{match[1]}{_BINARY[match[2].lower()]}"] if match else [budget]


def _alternative(evidence: Evidence, bare: Subject, request: Request) -> Alternative:
    heads = bare.heads
    kept = evidence.keep_heads(heads)
    overhead = overhead_bytes(bare, request.keep)
    floor = overhead + smallest_bytes(kept, default_formats(kept.candidates))
    budget_bytes = budget_in_bytes(request.budget, kept, overhead)
    try:
        found = planned(kept, bare, request)
    except Infeasible:
        return Alternative(heads, request.budget, budget_bytes, floor, None, 0.0, None)
    formats = found.plan.formats
    weights = {layer.name: layer.weights for layer in kept.layers}
    high = sum(weights[name] for name, key in formats.items() if get_format(key).bits >= 8)
    fewest = min(get_format(key).bits for key in formats.values())
    share = high / sum(weights.values())
    return Alternative(heads, request.budget, budget_bytes, floor, found, share, fewest)
