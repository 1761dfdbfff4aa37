"""The trade-off between size and damage: optimal plans over all budgets, predicted and measured, beside the others."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from analysis.evaluation.evaluator import Evaluator, MeasuredDamage
from analysis.evaluation.results import null_if_not_finite
from analysis.report.document import Row, Table, Tone
from analysis.search.measuring import measured_all
from analysis.search.quality_target import front_budgets
from mixedprec import comparison
from mixedprec.plan import uniform_assignment
from mixedprec.planner import Planned, replanned
from vggtkit.core.executors import Workers
from vggtkit.core.provenance import Progress, silent
from vggtkit.metrics.geometry import GEOMETRY, HEADLINE, Estimate
from vggtkit.quant import UNIFORM_SCHEMES, get_format

PLAN, UNIFORM, BASELINE = "plan", "uniform", "baseline"


@dataclass(frozen=True)
class FrontPoint:
    """One model.

    Attributes:
        kind: ``"plan"``, ``"uniform"`` or ``"baseline"``.
        title: for people.
        size_bytes: of the file.
        predicted: estimated damage on the calibration scenes; a prior without a profile.
        bound: proven lower bound of any plan's predicted damage within these bytes; plans alone.
        measured: measured damage on held-out scenes; None where it was not run.
        geometry: figures on held-out scenes.
    """

    kind: str
    title: str
    size_bytes: int
    predicted: float
    bound: float | None = None
    measured: float | None = None
    geometry: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Pareto:
    """The front and what stands beside it.

    Attributes:
        model: its source.
        facts: provenance.
        scenes: names of the held-out scenes.
        fp32: figures of the FP32 model on them.
        fp32_bytes: size of the FP32 file.
        points: plans by size, then uniform schemes, then baselines.
        solve_seconds: for the whole front.
    """

    model: str
    facts: Mapping[str, Any]
    scenes: tuple[str, ...]
    fp32: Mapping[str, Estimate]
    fp32_bytes: int
    points: tuple[FrontPoint, ...]
    solve_seconds: float

    def of_kind(self, kind: str) -> list[FrontPoint]:
        """The points of a kind."""
        return [point for point in self.points if point.kind == kind]

    def beating(self) -> list[FrontPoint]:
        """Uniform schemes and baselines that a measured plan of no fewer bytes does not beat; should be none."""
        plans = [plan for plan in self.of_kind(PLAN) if plan.measured is not None]
        return [
            point
            for point in (*self.of_kind(UNIFORM), *self.of_kind(BASELINE))
            if point.measured is not None and any(_beaten(plan, point) for plan in plans)
        ]


def trace_pareto(
    start: Planned,
    evaluator: Evaluator | None,
    *,
    budgets: int,
    measure: int,
    facts: Mapping[str, Any],
    fp32_bytes: int,
    workers: Workers | None = None,
    progress: Progress = silent,
) -> Pareto:
    """Plans over the whole range of sizes, the uniform schemes, and the baselines at the bytes of ``start``.

    Args:
        start: a plan; its search space, its settings, and the bytes at which the baselines stand.
        evaluator: model and held-out scenes; None to predict only.
        budgets: points of the predicted front.
        measure: how many of them are measured, evenly spread; the others are predicted only.
        facts: provenance.
        fp32_bytes: size of the FP32 file.
        workers: who measures; this process by default.
        progress: called at every step.
    """
    begun = time.perf_counter()
    plans = [replanned(start, budget) for budget in front_budgets(start, budgets)]
    seconds = time.perf_counter() - begun
    evidence, overhead = start.search_space.evidence, start.plan.overhead_bytes
    chosen = {round(step * (len(plans) - 1) / max(1, measure - 1)) for step in range(measure)} if evaluator else set()
    others = {
        (UNIFORM, get_format(key).short_title): uniform_assignment(evidence.layers, key)
        for key in UNIFORM_SCHEMES
        if key in evidence.candidates
    } | {(BASELINE, title): formats for title, formats in comparison.other_assignments(start).items()}
    points: list[tuple[FrontPoint, Mapping[str, str] | None]] = []
    for number, planned in enumerate([*plans, replanned(start, start.plan.budget_bytes)]):
        plan = planned.plan
        title = f"plan {plan.size_bytes / 1e6:.2f} MB"
        point = FrontPoint(PLAN, title, plan.size_bytes, plan.total_damage, plan.bound)
        points.append((point, plan.formats if number in chosen or number == len(plans) else None))
    points.sort(key=lambda point: point[0].size_bytes)
    for (kind, title), formats in others.items():
        size = overhead + sum(start.search_space.layer_bytes(formats).values())
        points.append((FrontPoint(kind, title, size, start.search_space.damage(formats)), formats))
    to_run = [formats for _, formats in points if formats is not None]
    measured = iter(measured_all(evaluator, to_run, workers, progress) if evaluator else ())
    run = [point if formats is None or not evaluator else _with(point, next(measured)) for point, formats in points]
    return Pareto(
        model=start.plan.model,
        facts=facts,
        scenes=tuple(scene.name for scene in evaluator.scenes) if evaluator else (),
        fp32=evaluator.fp32().geometry if evaluator else {},
        fp32_bytes=fp32_bytes,
        points=tuple(run),
        solve_seconds=seconds,
    )


def pareto_table(result: Pareto) -> Table:
    """Every point with a measurement, and the others thinned out; what beats a plan of its size is warned of."""
    keys = [key for key in HEADLINE if key in result.fp32]
    beating = set(map(id, result.beating()))
    rows, tones = list[Row](), dict[int, Tone]()
    for point in result.points:
        if point.measured is None and result.scenes:
            continue
        tones[len(rows)] = "warning" if id(point) in beating else "strong" if point.kind == PLAN else ""
        cells = (
            f"{point.size_bytes / 1e6:.2f}",
            f"{point.size_bytes / result.fp32_bytes:.1%}",
            f"{point.predicted:.2e}",
            "" if point.measured is None else f"{point.measured:.2e}",
            *(f"{point.geometry[key].mean:.4f}" if key in point.geometry else "" for key in keys),
        )
        rows.append((point.title, *cells))
    columns = ("", "file MB", "of FP32", "predicted", "measured", *keys)
    return Table(f"Size against damage, {result.model}", columns, rows, tones=tones)


def pareto_to_json(result: Pareto) -> str:
    """Everything, as JSON."""
    values = asdict(result) | {"schema_version": 1, "beating_a_plan": [point.title for point in result.beating()]}
    values["fp32"] = {key: estimate._asdict() for key, estimate in result.fp32.items()}
    for point, entry in zip(result.points, values["points"], strict=True):
        entry["geometry"] = {key: estimate._asdict() for key, estimate in point.geometry.items()}
    return json.dumps(null_if_not_finite(values), indent=2, allow_nan=False) + "\n"


def pareto_from_values(values: Mapping[str, Any]) -> Pareto:
    """What `pareto_to_json` has written, read by ``json``; a number that JSON cannot hold is NaN.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    def figures(of: Mapping[str, Any]) -> dict[str, Estimate]:
        return {
            str(key): Estimate(number(each["mean"]), number(each["low"]), number(each["high"]), int(each["scenes"]))
            for key, each in of.items()
            if key in GEOMETRY
        }

    points = [
        FrontPoint(
            str(each["kind"]), str(each["title"]), int(each["size_bytes"]), number(each["predicted"]), each["bound"],
            None if each["measured"] is None else number(each["measured"]), figures(each["geometry"]),
        )
        for each in values["points"]
    ]  # fmt: skip
    return Pareto(
        str(values["model"]), dict(values["facts"]), tuple(map(str, values["scenes"])), figures(values["fp32"]),
        int(values["fp32_bytes"]), tuple(points), number(values["solve_seconds"]),
    )  # fmt: skip


def measured_plans(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """The plans that were run."""
    return [point for point in points if point.kind == PLAN and point.measured is not None]


def _beaten(plan: FrontPoint, other: FrontPoint) -> bool:
    """Whether a plan of no fewer bytes does more damage."""
    assert plan.measured is not None
    assert other.measured is not None
    return plan.size_bytes >= other.size_bytes and plan.measured > other.measured


def _with(point: FrontPoint, measured: MeasuredDamage) -> FrontPoint:
    return replace(point, measured=measured.damage, geometry=measured.geometry)
