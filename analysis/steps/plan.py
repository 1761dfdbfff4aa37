"""``profile.h5``, or a model without one, and a budget -> ``plan.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from analysis.evaluation.cost import changes, describe_cost
from analysis.report.charts.drawing import draw_plan
from analysis.report.document import Table, Tone
from analysis.report.plan_tables import alternatives_table, execution_sentence, plan_sentences, plan_tables
from analysis.search.quality_target import QualityTarget, Trial, find_smallest
from analysis.search.swaps import Refined, refine
from analysis.steps.kernels import completed
from analysis.steps.plan_rounding import (
    AUTO_ROUNDING,
    UNCALIBRATED,
    pick_rounding,
    rounding_sentences,
    uncalibrated,
    uncalibrated_table,
)
from analysis.steps.plan_source import PlanSource, plan_source
from analysis.steps.run_folder import PLAN, check_writable
from analysis.steps.selection import candidates_table, select
from analysis.steps.unseen import SELECTION
from analysis.steps.view import View
from mixedprec import SOLVED, FormatChoice, Planned, Request, read_budget, save_plan, solve_plan
from mixedprec.alternatives import alternatives_values, other_sizes
from mixedprec.evidence import SKETCH
from mixedprec.execution import TOLERATED, with_execution
from mixedprec.planner import layers_by_format
from mixedprec.timing import executions_by_count
from vggtkit.core.atomic import replacing_all
from vggtkit.core.errors import InputError, check_number
from vggtkit.core.executors import Workers
from vggtkit.core.program import command, setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant.rounding import NEAREST, ROUNDINGS
from vggtkit.runtime.backend import Backend
from vggtkit.runtime.backends import BACKENDS, REFERENCE
from vggtkit.scenes import SceneSource

DRAWING = "plan.png"
RUNNABLE_FORMATS = FormatChoice("runnable")
WORTH_SAYING = 0.8
"""The share of the damage that other formats must bring it down to."""


@dataclass(frozen=True)
class Extras:
    """What a plan may be asked for beyond the choice itself.

    Attributes:
        target: what the smallest file has to reach, in the place of a budget.
        refine: swaps to measure on the calibration scenes.
        draw: whether to draw the model with bits as colours.
        rounding: key of `vggtkit.quant.rounding.ROUNDINGS`, or `AUTO_ROUNDING`: the one that the profile scored,
            where it did.
        execute: key of the backend that the plan is made for; layers whose rounded inputs would do too much damage
            under it keep floating-point activations.
        inputs_add: what the others may add, as a share of the plan's predicted damage; by default a tenth.
        best_of: candidates to measure, of which the best is kept; 0 for one plan, unmeasured.
        select_on: scenes to measure them on; by default those after the profiled ones.
        workers: who rounds the candidates; this process by default.
    """

    target: QualityTarget | None = None
    refine: int = 0
    draw: bool = False
    rounding: str = AUTO_ROUNDING
    execute: str = REFERENCE
    inputs_add: float | None = None
    best_of: int = 0
    select_on: SceneSource | None = None
    workers: Workers | None = None


@dataclass
class _Said:
    """What is shown beside a plan's own tables."""

    tables: list[Table] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


def make_plan_of_run(
    run: Path,
    request: Request,
    *,
    model_name: str | None = None,
    score: str = SKETCH,
    extras: Extras = Extras(),
    device: str = "auto",
    progress: Progress = silent,
) -> View:
    """Plan from the run's profile, or for a model without one; writes ``plan.json``.

    Args:
        run: folder of the run.
        request: what is asked of the plan.
        model_name: a model to plan for without a profile, unless the run's profile is of it.
        score: key of the score that damage is taken from.
        extras: a quality target, swaps to measure, a drawing.
        device: for measurements.
        progress: called at every step.

    Raises:
        InputError: no profile and no model, or as `resolve`, `solve_plan`, `find_smallest` and `refine`.
    """
    check_number("refine", extras.refine, 0)
    check_number("best_of", extras.best_of, 0)
    backend = BACKENDS.pick(extras.execute)
    check_writable(run)
    progress("choosing formats", 0, 1)
    source = plan_source(run, model_name, score=score, device=device)
    request = _with_conditions(run, request, source, extras)
    beside = _Said(lines=list(source.notes))
    rounding = pick_rounding(source, extras.rounding, measures=extras.target is not None or extras.refine > 0)
    source = source if extras.best_of else source.planned_for(rounding.key)
    request = replace(request, gives_biases=rounding.corrects_bias)
    if extras.best_of:
        planned = _best(source, request, extras, progress, beside)
        rounding = ROUNDINGS.pick(planned.plan.rounding)
        source = source.planned_for(planned.plan.provenance.get("damage_of", NEAREST))
    elif extras.target:
        planned = _smallest(source, request, extras.target, progress, beside)
    else:
        planned = solve_plan(source.resolve(request))
        beside.lines += _wider_sentence(source, request, planned)
    if extras.refine:
        planned = _refined(source, request, planned, extras.refine, progress, beside)
    if extras.execute != REFERENCE and request.conditions is None:  # which decide how layers run themselves
        tolerated = TOLERATED if extras.inputs_add is None else extras.inputs_add
        planned = _executed(source, planned, backend, tolerated, beside)
    elif extras.inputs_add is not None:
        raise InputError(
            f"{setting('inputs_add')} is for {setting('execute', 'int8')} without limits of time or memory"
        )
    planned = replace(planned, plan=replace(planned.plan, rounding=rounding.key))
    planned = _with_reasons(source, planned, beside)
    beside.lines += rounding_sentences(source, planned, run)
    paths = [run / PLAN, *([run / DRAWING] if extras.draw else [])]
    with replacing_all(paths) as (into, *drawing):
        save_plan(planned.plan, into)
        for place in drawing:
            draw_plan(planned.plan, planned.search_space.evidence.layers, source.graph(request), place)
    if source.subject.heads and _wants_alternatives(source, planned):
        rows = other_sizes(source.evidence, source.subject, request)
        beside.tables.append(alternatives_table(rows, planned.plan.heads))
        beside.values["alternatives"] = alternatives_values(rows)
    written = ", ".join(map(str, paths))
    lines = [*plan_sentences(planned), *beside.lines, f"written: {written}"]
    view = View(_values(planned, run) | beside.values, [*plan_tables(planned), *beside.tables], lines)
    return view.of_weights(str(source.evidence.facts["weights"]))


def _with_reasons(source: PlanSource, planned: Planned, beside: _Said) -> Planned:
    """The plan with the layers that cannot be calibrated, and why; they are shown beside it."""
    reasons = uncalibrated(source, planned)
    if not reasons:
        return planned
    beside.tables.append(uncalibrated_table(planned, reasons))
    beside.values[UNCALIBRATED] = reasons
    known = {**planned.plan.provenance, UNCALIBRATED: reasons}
    return replace(planned, plan=replace(planned.plan, provenance=known))


def _with_conditions(run: Path, request: Request, source: PlanSource, extras: Extras) -> Request:
    """The request with what is known of time and memory, where one is limited."""
    if request.conditions is None:
        return request
    if extras.target or extras.refine:
        asked = setting("refine") if extras.refine else setting("max_drop")
        raise InputError(f"{asked} seeks among formats alone: plan within time and memory without it")
    heads = source.subject.heads if request.heads is None else request.heads
    return replace(request, conditions=completed(run, request.conditions, source.subject, heads))


def _wider_sentence(source: PlanSource, request: Request, planned: Planned) -> list[str]:
    """What all bits of an INT8 kernel would do with the bytes of a plan of INT8 and INT4, where that is much less."""
    narrow = request.formats.may_widen and planned.widened is None and request.conditions is None
    if not narrow or planned.plan.policy not in SOLVED:
        return []
    wider = solve_plan(source.resolve(replace(request, formats=RUNNABLE_FORMATS))).plan
    before, after = (planned.search_space.damage(formats) for formats in (planned.plan.formats, wider.formats))
    if not before or after > WORTH_SAYING * before:
        return []
    return [f"With {setting('formats', 'runnable')} the same budget would do {after / before:.0%} of this damage."]


def _wants_alternatives(source: PlanSource, planned: Planned) -> bool:
    """Where the size is the question: without a profile, without some heads, or below INT8 and INT4."""
    below = planned.widened is not None and planned.plan.budget_bytes < planned.widened
    return source.profile is None or len(planned.plan.heads) < len(source.subject.heads) or below


def _smallest(
    source: PlanSource, request: Request, target: QualityTarget, progress: Progress, beside: _Said
) -> Planned:
    """The smallest plan that meets a quality target; what was measured on the way is said beside it."""
    formats = RUNNABLE_FORMATS if request.formats.may_widen else request.formats
    start = solve_plan(source.resolve(replace(request, budget=read_budget("100%"), formats=formats)))
    evaluator = source.evaluator(request, "evaluation")
    best, trials = find_smallest(start, evaluator, target, progress)
    fp32 = {key: estimate.mean for key, estimate in evaluator.fp32().geometry.items()}
    beside.tables.append(_trials_table(trials, best, fp32))
    beside.lines.append(
        f"Smallest file that meets the quality target ({'; '.join(target.text)}) on {len(evaluator.scenes)} held-out "
        f"scenes: {best.planned.plan.size_bytes / 1e6:.2f} MB, measured damage {best.measured.damage:.2e}."
    )
    beside.values["quality_target"] = target.text
    beside.values["measured"] = [
        {
            "size_bytes": trial.planned.plan.size_bytes,
            "measured_damage": trial.measured.damage,
            "broken": trial.broken,
            "geometry": {key: estimate.mean for key, estimate in trial.measured.geometry.items()},
        }
        for trial in trials
    ]
    return best.planned


def _trials_table(trials: list[Trial], best: Trial, fp32: Mapping[str, float]) -> Table:
    rows = []
    for trial in trials:
        plan, geometry = trial.planned.plan, trial.measured.geometry
        rows.append(
            (
                f"{plan.size_bytes / 1e6:.2f}",
                f"{plan.total_damage:.2e}",
                f"{trial.measured.damage:.2e}",
                describe_cost(changes(fp32, {key: estimate.mean for key, estimate in geometry.items()})),
                "missed: " + "; ".join(trial.broken) if trial.broken else "met",
            )
        )
    tones: dict[int, Tone] = {number: "strong" for number, trial in enumerate(trials) if trial is best}
    columns = ("file MB", "predicted", "measured", "cost", "quality target")
    return Table("Measured on held-out scenes", columns, rows, words=columns[3:], tones=tones)


def _best(source: PlanSource, request: Request, extras: Extras, progress: Progress, beside: _Said) -> Planned:
    """The best of several plans, measured; all of them are shown beside it."""
    if extras.target or extras.refine:
        asked = setting("refine") if extras.refine else f"{setting('max_drop')} or {setting('max_damage')}"
        raise InputError(f"{setting('best_of')} chooses among plans of one budget: leave out {asked}")
    only = None if extras.rounding == AUTO_ROUNDING else extras.rounding
    planned, candidates = select(source, request, extras.best_of, only, extras.select_on, extras.workers, progress)
    facts = planned.plan.provenance
    beside.tables.append(candidates_table(candidates, planned.plan))
    beside.lines.append(
        f"Selected on {len(facts[SELECTION]['scenes'])} scenes that were neither profiled nor will be accepted by "
        f"`{command('evaluate')}`: {', '.join(facts[SELECTION]['scenes'][:3])}, ..."
    )
    beside.values["candidates"] = facts["candidates"]
    return planned


def _refined(
    source: PlanSource, request: Request, planned: Planned, count: int, progress: Progress, beside: _Said
) -> Planned:
    """The plan with the swaps that measurements speak for; these are said beside it."""
    refined = refine(planned, source.evaluator(request, "calibration"), count, progress)
    beside.lines.append(_refined_sentence(refined))
    beside.values["refined"] = {
        "tried": refined.tried, "accepted": len(refined.accepted), "before": refined.before, "after": refined.after
    }  # fmt: skip
    return refined.planned


def _executed(source: PlanSource, planned: Planned, backend: Backend, tolerated: float, beside: _Said) -> Planned:
    """The plan as a backend is to execute it; what that does is said beside it.

    Raises:
        InputError: there is no profile, or as `with_execution`.
    """
    if source.profile is None:
        raise InputError(
            f"{setting('execute', backend.key)}: what rounded activations do is known from a profile alone; make one "
            f"with `{command('profile')}`"
        )
    planned, choice = with_execution(planned, source.profile, backend, tolerated)
    beside.lines.append(execution_sentence(choice))
    beside.values["execution"] = asdict(choice)
    return planned


def _refined_sentence(refined: Refined) -> str:
    before, after = (sum(pair) / 2 for pair in (refined.before, refined.after))
    return (
        f"Refined: {len(refined.accepted)} of {refined.tried} swaps accepted; damage measured on the calibration "
        f"scenes {before:.2e} -> {after:.2e}."
    )


def _values(planned: Planned, run: Path) -> dict[str, Any]:
    plan = planned.plan
    return {
        "path": str(run / PLAN),
        "model": plan.model,
        "policy": plan.policy,
        "score": plan.score,
        "heads": list(plan.heads),
        "size_bytes": plan.size_bytes,
        "budget_bytes": plan.budget_bytes,
        "predicted_damage": plan.total_damage,
        "bound": plan.bound,
        "gap": (0.0 if plan.optimal else plan.total_damage - plan.bound) if plan.policy in SOLVED else None,
        "coupling": plan.coupling,
        "rounding": plan.rounding,
        "optimal": plan.optimal,
        "widened": planned.widened is not None,
        "layers_by_format": layers_by_format(plan),
        "executions": executions_by_count(plan.executions),
        "takes": plan.takes,
    }
