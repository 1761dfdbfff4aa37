"""``profile.h5``, or a model without one, and a budget -> ``plan.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx
from rich.table import Table

from analysis.evaluation.cost import changes, describe_cost
from analysis.evaluation.evaluator import Evaluator
from analysis.report.drawing import draw_plan
from analysis.search.quality_target import Promise, Tried, parse_drops, smallest_keeping
from analysis.search.swaps import Refined, refine
from analysis.steps.run_folder import (
    PLAN,
    PROFILE,
    check_source_of_run,
    check_writable,
    held_out_scenes,
    profiled_scenes,
    subject_of_run,
)
from analysis.steps.view import View
from mixedprec import SOLVED, Evidence, Planned, Request, data_free, planned, save_plan
from mixedprec.alternatives import alternatives, alternatives_table, alternatives_values
from mixedprec.constraints import SHARED_INPUT
from mixedprec.evidence import parse_weights
from mixedprec.palette import ALL, AUTO
from mixedprec.planner import layers_by_format
from mixedprec.tables import plan_sentences, plan_tables
from sensitivity import Profile, open_profile
from vggtkit.core.errors import InputError, check_number
from vggtkit.core.provenance import Progress, silent
from vggtkit.model import resolve_source
from vggtkit.scenes import SceneSource
from vggtkit.scenes.source import Split
from vggtkit.subject import Subject, bare_subject, is_factory
from vggtkit.subject.graph import same_input

DRAWING = "plan.png"


@dataclass(frozen=True)
class Extras:
    """What a plan may be asked for beyond the choice itself.

    Attributes:
        max_drop: limits of geometry figures, as ``--max-drop`` takes them; the smallest file that keeps them is sought.
        max_damage: the same for measured damage.
        refine: swaps to measure on the calibration scenes.
        draw: whether to draw the model with bits as colours.
    """

    max_drop: str | None = None
    max_damage: float | None = None
    refine: int = 0
    draw: bool = False

    @property
    def promise(self) -> Promise | None:
        """What has to be kept, if anything."""
        if self.max_drop is None and self.max_damage is None:
            return None
        if self.max_damage is not None and not self.max_damage > 0:
            raise InputError(f"--max-damage {self.max_damage:g}: give a damage above 0, such as 0.001")
        return Promise(self.max_damage, parse_drops(self.max_drop) if self.max_drop else ())


@dataclass(frozen=True)
class Source:
    """What a plan is made from: evidence, the architecture, and the profile if there is one.

    Attributes:
        run: folder of the run.
        evidence: bytes and damage of the layers.
        subject: the architecture; with values only where it cannot be had without.
        profile: None without one.
    """

    run: Path
    evidence: Evidence
    subject: Subject
    profile: Profile | None

    def evaluator(self, request: Request, split: Split, device: str) -> Evaluator:
        """The real model on scenes of the profile's source.

        Raises:
            InputError: there is no profile, so neither scenes nor a measurement.
        """
        if self.profile is None:
            raise InputError(
                f"{self.evidence.origin}: --max-drop, --max-damage and --refine measure on scenes; make a profile "
                "first with `python cli.py profile`"
            )
        whole = subject_of_run(self.run, self.profile, device, self.subject.source)
        source = SceneSource.from_dict(self.profile.facts["scene_source"])
        if split == "evaluation":
            scenes = held_out_scenes(self.run, whole, self.profile, source)
        else:
            scenes = profiled_scenes(self.run, whole, self.profile)
        subject = whole if request.heads is None else whole.with_heads(request.heads)
        outputs = tuple(self.evidence.keep_heads(subject.heads).damage)
        weights = parse_weights(request.weights_for, outputs) if request.weights_for is not None else {}
        return Evaluator(subject, scenes, weights, keep=request.keep)


def plan_source(run: Path, model_name: str | None) -> Source:
    """The run's profile, or, where a model is named that it is not of, that model without a profile.

    Raises:
        InputError: neither a profile nor a model, or a function made it that the user has not named for this folder.
    """
    if model_name is None or (run / PROFILE).is_file():
        profile = open_profile(run / PROFILE)
        source = str(profile.facts["model"])
        if model_name is None or resolve_source(model_name) == source:
            check_source_of_run(run, source, model_name)
            subject = bare_subject(source, str(profile.facts["config"])).reading(profile.layers)
            return Source(run, Evidence.of(profile), subject, profile)
    assert model_name is not None
    if is_factory(model_name):
        raise InputError(
            f"--model {model_name}: without a profile only VGGTs can be planned; `python cli.py profile --model "
            f"{model_name} --inputs FUNCTION` makes one"
        )
    subject = bare_subject(model_name)
    return Source(run, data_free(resolve_source(model_name), subject), subject, None)


def make_plan(
    run: Path,
    request: Request,
    *,
    model_name: str | None = None,
    extras: Extras = Extras(),
    device: str = "auto",
    progress: Progress = silent,
) -> View:
    """Plan from the run's profile, or for a model without one; writes ``plan.json``.

    Args:
        run: folder of the run.
        request: what is asked of the plan.
        model_name: a model to plan for without a profile, unless the run's profile is of it.
        extras: a promise to keep, swaps to measure, a drawing.
        device: for measurements.
        progress: told about every step.

    Raises:
        InputError: no profile and no model, or as `planned`, `smallest_keeping` and `refine`.
    """
    check_number("--refine", extras.refine, 0)
    promise = extras.promise
    check_writable(run)
    progress("choosing formats", 0, 1)
    source = plan_source(run, model_name)
    if SHARED_INPUT in request.constraints.groups:
        request = replace(request, same_input=same_input(_graph(source, request, device)))
    tables: list[Table] = []
    lines: list[str] = []
    values: dict[str, Any] = {}
    if promise:
        found, tables, lines, values = _keeping(source, request, promise, device, progress)
    else:
        found = planned(source.evidence, source.subject, request)
        lines += _wider_sentence(source, request, found)
    if extras.refine:
        refined = refine(found, source.evaluator(request, "calibration", device), extras.refine, progress)
        found = refined.found
        lines.append(_refined_sentence(refined))
        values["refined"] = {
            "tried": refined.tried, "kept": len(refined.kept), "before": refined.before, "after": refined.after
        }  # fmt: skip
    save_plan(found.plan, run / PLAN)
    written = str(run / PLAN)
    if source.subject.heads and _wants_alternatives(source, found):
        rows = alternatives(source.evidence, source.subject, request)
        tables.append(alternatives_table(rows, found.plan.heads))
        values["alternatives"] = alternatives_values(rows)
    if extras.draw:
        draw_plan(found.plan, found.space.evidence.layers, _graph(source, request, device), run / DRAWING)
        written += f", {run / DRAWING}"
    lines = [*plan_sentences(found), *lines, f"written: {written}"]
    view = View(_values(found, run) | values, [*plan_tables(found), *tables], lines)
    return view.of_weights(str(source.evidence.facts["weights"]))


def _graph(source: Source, request: Request, device: str) -> nx.DiGraph:
    """Which layers feed which; of a model that shows it only by running, from a pass over a profiled scene."""
    subject = source.subject if request.heads is None else source.subject.with_heads(request.heads)
    if subject.description() or source.profile is None:
        return subject.graph()
    whole = subject_of_run(source.run, source.profile, device, subject.source)
    return whole.graph(profiled_scenes(source.run, whole, source.profile)[0])


WORTH_SAYING = 0.8
"""The share of the damage that other formats must bring it down to."""


def _wider_sentence(source: Source, request: Request, found: Planned) -> list[str]:
    """What all formats would do with the bytes of a plan of INT8 and INT4, where that is much less."""
    narrow = request.formats == AUTO and not request.strict and found.widened is None
    if not narrow or found.plan.policy not in SOLVED:
        return []
    wider = planned(source.evidence, source.subject, replace(request, formats=ALL)).plan
    before, after = (found.space.damage(formats) for formats in (found.plan.formats, wider.formats))
    if after > WORTH_SAYING * before:
        return []
    return [f"With --formats all the same budget would do {after / before:.0%} of this damage."]


def _wants_alternatives(source: Source, found: Planned) -> bool:
    """Where the size is the question: without a profile, without some heads, or below INT8 and INT4."""
    below = found.widened is not None and found.plan.budget_bytes < found.widened
    return source.profile is None or len(found.plan.heads) < len(source.subject.heads) or below


def _keeping(
    source: Source, request: Request, promise: Promise, device: str, progress: Progress
) -> tuple[Planned, list[Table], list[str], dict[str, Any]]:
    """The smallest plan that keeps a promise, and what was measured on the way."""
    formats = ALL if request.formats == AUTO and not request.strict else request.formats
    start = planned(source.evidence, source.subject, replace(request, budget="100%", formats=formats))
    evaluator = source.evaluator(request, "evaluation", device)
    best, tried = smallest_keeping(start, evaluator, promise, progress)
    fp32 = {key: estimate.mean for key, estimate in evaluator.fp32().geometry.items()}
    asked = [limit.text for limit in promise.drops]
    asked += [] if promise.damage is None else [f"damage {promise.damage:g} at most"]
    line = (
        f"Smallest file found that keeps the promise ({'; '.join(asked)}) on {len(evaluator.scenes)} held-out scenes: "
        f"{best.found.plan.size_bytes / 1e6:.2f} MB, measured damage {best.measured.damage:.2e}."
    )
    rows = [
        {
            "size_bytes": t.found.plan.size_bytes, "measured_damage": t.measured.damage, "broken": t.broken,
            "geometry": {key: estimate.mean for key, estimate in t.measured.geometry.items()},
        }
        for t in tried
    ]  # fmt: skip
    return best.found, [_tried_table(tried, best, fp32)], [line], {"promise": asked, "measured": rows}


def _tried_table(tried: list[Tried], best: Tried, fp32: Mapping[str, float]) -> Table:
    table = Table(title="Measured on held-out scenes", title_justify="left")
    for name in ("file MB", "predicted", "measured", "cost", "promise"):
        table.add_column(name, justify="left" if name in ("cost", "promise") else "right")
    for row in tried:
        plan = row.found.plan
        table.add_row(
            f"{plan.size_bytes / 1e6:.2f}",
            f"{plan.total_damage:.2e}",
            f"{row.measured.damage:.2e}",
            describe_cost(changes(fp32, {key: estimate.mean for key, estimate in row.measured.geometry.items()})),
            "broken: " + "; ".join(row.broken) if row.broken else "kept",
            style="bold" if row is best else "",
        )
    return table


def _refined_sentence(refined: Refined) -> str:
    before, after = (sum(pair) / 2 for pair in (refined.before, refined.after))
    return (
        f"Refined: {len(refined.kept)} of {refined.tried} swaps kept; damage measured on the calibration scenes "
        f"{before:.2e} -> {after:.2e}."
    )


def _values(found: Planned, run: Path) -> dict[str, Any]:
    plan = found.plan
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
        "optimal": plan.optimal,
        "widened": found.widened is not None,
        "layers_by_format": layers_by_format(plan),
    }
