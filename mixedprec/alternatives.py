"""What a size buys: with all heads and without some, in MB and in MiB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mixedprec.evidence import Evidence
from mixedprec.palette import automatic_formats
from mixedprec.planner import Planned, solve_plan
from mixedprec.request import Request
from mixedprec.resolve import Resolved, resolve, smallest_bytes
from mixedprec.solver import Infeasible
from vggtkit.model import HEADS
from vggtkit.quant import get_format
from vggtkit.subject import Subject

HEAD_SETS = (HEADS, ("camera", "depth", "point"), ("camera", "depth", "track"), ("camera", "depth"))


@dataclass(frozen=True)
class Alternative:
    """One way to read a budget and to choose heads.

    Attributes:
        heads: that are kept.
        budget: as it would be typed.
        budget_bytes: of the whole file.
        int8_int4_floor: bytes of the smallest file with the INT8 and INT4 of an INT8 kernel alone.
        planned: the plan; None where none fits.
        int8_share: weights at 8 bits or more, of all weights in the layers.
        fewest_bits: of the plan's formats.
    """

    heads: tuple[str, ...]
    budget: str
    budget_bytes: int
    int8_int4_floor: int
    planned: Planned | None
    int8_share: float
    fewest_bits: int | None

    @property
    def left_for_int8(self) -> int:
        """Bytes above the floor of INT8 and INT4, which raise layers from INT4; negative where it is not reached."""
        return self.budget_bytes - self.int8_int4_floor


def other_sizes(evidence: Evidence, subject: Subject, request: Request) -> list[Alternative]:
    """Plans for the same size with all heads and without some, and for its binary namesake (MB, MiB).

    Args:
        evidence: of a model with all heads that are to be compared.
        subject: its architecture; stays as it is.
        request: whose budget and formats are taken; its constraints too.

    Raises:
        InputError: as `resolve`.
    """
    sets: list[tuple[str, ...]] = [heads for heads in HEAD_SETS if set(heads) <= set(subject.heads)]
    if request.heads is not None and request.heads not in sets:
        sets.append(request.heads)
    return [
        _alternative(resolve(replace(request, heads=heads, budget=budget), evidence, subject))
        for heads in sets
        for budget in (request.budget, request.budget.binary)
        if budget is not None
    ]


def alternatives_values(rows: Sequence[Alternative]) -> list[dict[str, object]]:
    """Alternatives as plain values."""
    return [
        {
            "heads": list(row.heads),
            "budget": row.budget,
            "budget_bytes": row.budget_bytes,
            "int8_int4_floor_bytes": row.int8_int4_floor,
            "left_for_int8_bytes": row.left_for_int8,
            "size_bytes": row.planned.plan.size_bytes if row.planned else None,
            "fewest_bits": row.fewest_bits,
            "int8_share": row.int8_share,
        }
        for row in rows
    ]


def _alternative(resolved: Resolved) -> Alternative:
    evidence, budget = resolved.evidence, resolved.request.budget.text
    floor = resolved.overhead_bytes + smallest_bytes(evidence, automatic_formats(evidence.candidates))
    try:
        planned = solve_plan(resolved)
    except Infeasible:
        return Alternative(resolved.heads, budget, resolved.budget_bytes, floor, None, 0.0, None)
    formats = planned.plan.formats
    weights = {layer.name: layer.weights for layer in evidence.layers}
    high = sum(weights[name] for name, key in formats.items() if get_format(key).bits >= 8)
    fewest = min(get_format(key).bits for key in formats.values())
    share = high / sum(weights.values())
    return Alternative(resolved.heads, budget, resolved.budget_bytes, floor, planned, share, fewest)
