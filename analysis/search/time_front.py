"""Size, time and damage: plans within several sizes and, at each, over all times that make a difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from analysis.report.document import Row, Table
from mixedprec import Resolved, solve_plan
from mixedprec.planner import least_seconds, with_time
from mixedprec.solver import Infeasible
from mixedprec.timing import TimeLimit, executions_by_count
from vggtkit.core.provenance import Progress, silent

SIZES = (1.0, 1.5, 2.0)
"""Budgets of bytes, over the one that was asked for."""
TIMES = 5
NEVER = TimeLimit("second", Fraction(10**6), "any")


@dataclass(frozen=True)
class TimedPoint:
    """One plan.

    Attributes:
        budget_bytes: that it was allowed.
        size_bytes: of its file.
        seconds: predicted of a pass.
        damage: predicted.
        bound: proven lower bound of any plan's within these bytes and this time.
        executions: how many layers run in each way.
    """

    budget_bytes: int
    size_bytes: int
    seconds: float
    damage: float
    bound: float
    executions: dict[str, int]


@dataclass(frozen=True)
class TimeFront:
    """The front over time.

    Attributes:
        points: the plans.
        fp32_seconds: predicted of a pass in FP32.
    """

    points: tuple[TimedPoint, ...]
    fp32_seconds: float

    def values(self) -> dict[str, Any]:
        """As a file holds it."""
        return {"time_front": [asdict(point) for point in self.points], "fp32_seconds": self.fp32_seconds}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> TimeFront:
        """What `values` has given, read by ``json``.

        Raises:
            KeyError, TypeError, ValueError: it is something else.

        >>> TimeFront.from_values(TimeFront((TimedPoint(9, 8, 0.5, 1e-4, 1e-5, {"int8": 3}),), 1.0).values()).points
        (TimedPoint(budget_bytes=9, size_bytes=8, seconds=0.5, damage=0.0001, bound=1e-05, executions={'int8': 3}),)
        """
        points = tuple(
            TimedPoint(
                int(each["budget_bytes"]), int(each["size_bytes"]), float(each["seconds"]), float(each["damage"]),
                float(each["bound"]), {str(name): int(count) for name, count in each["executions"].items()},
            )
            for each in values["time_front"]
        )  # fmt: skip
        return cls(points, float(values["fp32_seconds"]))


def trace_time(resolved: Resolved, *, times: int = TIMES, progress: Progress = silent) -> list[TimedPoint]:
    """Plans by budget, and from the least time of each to the time that more would not lower the damage.

    Args:
        resolved: a request with a kernel table among its conditions.
        times: points at each budget, at least 2.
        progress: called before every plan.
    """
    points: list[TimedPoint] = []
    for number, share in enumerate(SIZES):
        budget = int(share * resolved.budget_bytes)
        progress("size, time and damage", number * times, len(SIZES) * times)
        try:
            low = least_seconds(resolved, budget)
            free = _point(with_time(resolved, NEVER), budget)
        except Infeasible:
            continue
        steps = [low + (free.seconds - low) * step / (times - 1) for step in range(times - 1)]
        for step, seconds in enumerate(steps if free.seconds > low else []):
            progress("size, time and damage", number * times + step + 1, len(SIZES) * times)
            limit = TimeLimit("second", Fraction(seconds) + Fraction(1, 10**8), f"{seconds:.6f}s")
            points.append(_point(with_time(resolved, limit), budget))
        points.append(free)
    return points


def time_table(points: Sequence[TimedPoint], fp32_seconds: float) -> Table:
    """A row a plan, by budget and time."""
    rows: list[Row] = [
        (
            f"{point.size_bytes / 1e6:.2f}", f"{point.seconds:.4f}", f"{point.seconds / fp32_seconds:.2f}",
            f"{point.damage:.2e}", ", ".join(f"{count} {how}" for how, count in point.executions.items()),
        )
        for point in points
    ]  # fmt: skip
    columns = ("file MB", "seconds", "of FP32", "predicted", "layers run in")
    return Table("Size, time and predicted damage", columns, rows, words=columns[-1:])


def _point(resolved: Resolved, budget_bytes: int) -> TimedPoint:
    plan = solve_plan(resolved, budget_bytes).plan
    return TimedPoint(
        budget_bytes, plan.size_bytes, float(plan.takes["seconds"]), plan.total_damage, plan.bound,
        executions_by_count(plan.executions),
    )  # fmt: skip
