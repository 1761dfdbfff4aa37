"""Several plans of the same request, measured on scenes of their own: the best is kept.

Scenes have three roles, which are never mixed: those that roundings are calibrated and layers are scored with (the
profile's), those that the best plan is selected on, and those that it is judged on (`evaluate`). What a choice was made
by says too little damage of what was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from analysis.evaluation.evaluator import Evaluator
from analysis.report.document import Row, Table
from analysis.steps.plan_rounding import CALIBRATES, MADE_FOR, WHAT_IS_LEFT
from analysis.steps.plan_source import PlanSource
from analysis.steps.rounding import Calibration
from analysis.steps.run_folder import PICTURE_DIGESTS, SCENE_DIGESTS, check_not_profiled, scenes_for, subject_of_run
from analysis.steps.unseen import SELECTION
from mixedprec import Plan, Planned, Request, solve_plan
from mixedprec.evidence import output_weights
from sensitivity import Profile
from sensitivity.rounding_gain import CALIBRATED
from sensitivity.rounding_left import damage_left
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Workers
from vggtkit.core.permits import permit
from vggtkit.core.program import command, setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant import QuantizedTensor
from vggtkit.quant.rounding import NEAREST, ROUNDINGS
from vggtkit.scenes import Scene, SceneSource, digest_pictures, fingerprint, pictures_of
from vggtkit.scenes.source import Split
from vggtkit.subject import INPUTS, Subject

SELECT_SCENES = 8
"""Scenes that candidates are measured on, where there are as many."""
SPLIT: Split = "calibration"
"""The half of a source that they are of, so that its other half can be judged on."""
CANDIDATES: tuple[tuple[str, str, str], ...] = (
    ("auto", CALIBRATED, CALIBRATES),
    ("auto", CALIBRATED, "joint_descent"),
    ("auto", WHAT_IS_LEFT, "joint_descent"),
    ("auto", CALIBRATED, "output_descent"),
    ("joint", CALIBRATED, CALIBRATES),
    ("joint", CALIBRATED, "output_descent"),
    ("joint", NEAREST, CALIBRATES),
    ("optimal", NEAREST, CALIBRATES),
    ("auto", CALIBRATED, "gptq_bias"),
    ("joint", NEAREST, NEAREST),
    ("auto", CALIBRATED, "sequential_gptq"),
)
"""Policy, rounding that the plan is made for, and rounding: first what has been best most often (bundled network)."""


@dataclass(frozen=True)
class MeasuredPlan:
    """A plan, measured.

    Attributes:
        planned: with its rounding.
        damage: measured on the scenes of the selection.
        made_for: as in `CANDIDATES`.
        weights: as they were measured.
    """

    planned: Planned
    damage: float
    made_for: str
    weights: Mapping[str, QuantizedTensor] = field(repr=False)

    def as_facts(self) -> dict[str, Any]:
        """What a plan's file says of it."""
        plan = self.planned.plan
        made_for = WHAT_IS_LEFT if self.made_for == WHAT_IS_LEFT else plan.provenance.get("damage_of", NEAREST)
        return {
            "policy": plan.policy, "rounding": plan.rounding, "made_for": made_for, "predicted": plan.total_damage,
            "measured": self.damage,
        }  # fmt: skip


def select(
    source: PlanSource,
    request: Request,
    count: int,
    rounding: str | None,
    scenes: SceneSource | None = None,
    workers: Workers | None = None,
    progress: Progress = silent,
) -> tuple[Planned, list[MeasuredPlan]]:
    """Make and measure candidates; the best, with all scenes and measurements in its provenance, and all of them.

    Args:
        source: of the run, for rounding to the nearest.
        request: what is asked of a plan.
        count: candidates at most, from the first of `CANDIDATES` on; those that come out alike count once.
        rounding: the only one to try; None for all.
        scenes: to select on; by default those of the profile's source that come after the profiled ones.
        workers: who rounds; this process by default.
        progress: called as the work goes on.

    Raises:
        InputError: there is no profile, too many candidates are asked for, there are no scenes to select on, or they
            were profiled.
    """
    profile = source.profile
    if profile is None:
        raise InputError(
            f"{source.evidence.origin}: {setting('best_of', count)} measures on scenes; make a profile first with "
            f"`{command('profile')}`"
        )
    ways = _ways(request, rounding)
    if count > len(ways):
        raise InputError(f"{setting('best_of', count)}: there are {len(ways)} candidates; ask for no more")
    whole = subject_of_run(source.run, profile, source.device, source.subject.source)
    if scenes is not None and scenes.kind == INPUTS:
        permit(source.run, scenes.folder or "")
    chosen, facts = selection_scenes(whole, profile, scenes)
    subject = whole if request.heads is None else whole.with_heads(request.heads)
    outputs = tuple(source.evidence.with_heads(subject.heads).damage)
    evaluator = Evaluator(subject, chosen, output_weights(request.weights, outputs), keep=request.keep)
    calibration = Calibration(source.run, profile, subject, progress, workers)
    candidates: list[MeasuredPlan] = []
    for number, (policy, made_for, key) in enumerate(ways[:count]):
        progress(f"measuring candidate {number + 1}", number, count)
        own = replace(request, policy=policy, gives_biases=ROUNDINGS.pick(key).corrects_bias)
        evidence = _evidence_for(source, made_for, candidates, evaluator, int(profile.facts["seed"]), progress)
        planned = solve_plan(evidence.resolve(own))
        planned = replace(planned, plan=replace(planned.plan, rounding=key))
        if not any(_alike(planned.plan, other.planned.plan) for other in candidates):
            weights = calibration.rounded(planned.plan).weights
            candidates.append(MeasuredPlan(planned, evaluator.measure_weights(weights).damage, made_for, weights))
    least = min(candidates, key=lambda candidate: candidate.damage)
    best = least.planned
    calibrated = {name: profile.facts[name] for name in ("scenes", "scene_fingerprint")}
    known = {
        "calibrated_on": calibrated,
        SELECTION: facts,
        MADE_FOR: least.as_facts()["made_for"],
        "candidates": [candidate.as_facts() for candidate in candidates],
    }
    plan = replace(best.plan, provenance={**best.plan.provenance, **known})
    return replace(best, plan=plan), candidates


def _evidence_for(
    source: PlanSource, made_for: str, candidates: Sequence[MeasuredPlan], evaluator: Evaluator, seed: int,
    progress: Progress,
) -> PlanSource:  # fmt: skip
    """What a candidate is planned from."""
    if made_for != WHAT_IS_LEFT:
        return source.planned_for(made_for)
    best, subject = min(candidates, key=lambda candidate: candidate.damage), evaluator.subject
    evidence, formats = best.planned.search_space.evidence, best.planned.plan.formats
    found = damage_left(
        subject, subject.layers, evaluator.scenes, best.weights, evidence.shares(), seed=seed, progress=progress
    )
    left = source.planned_for(best.planned.plan.rounding)
    own = replace(left.evidence.with_heads(subject.heads), weights=evidence.weights)
    return replace(left, evidence=own.corrected(formats, found))


def selection_scenes(
    subject: Subject, profile: Profile, asked: SceneSource | None = None
) -> tuple[list[Scene], dict[str, Any]]:
    """Scenes that were not profiled, to select on, and what is to be known of them.

    Raises:
        InputError: there are none, or one of them, or one of their pictures, was profiled.
    """
    profiled = SceneSource.from_dict(profile.facts["scene_source"])
    pictures = set(profile.facts.get(PICTURE_DIGESTS, ()))
    if asked is not None:
        scenes, digests = scenes_for(subject, asked, SPLIT), set(digest_pictures(pictures_of(asked, SPLIT)))
        if shared := digests & pictures:
            raise InputError(
                f"{setting('select_on')}: {len(shared)} of its pictures were profiled; a plan is selected on others"
            )
        check_not_profiled(profile, scenes)
    else:
        scenes, digests = _further(subject, profile, profiled)
        digests -= pictures
    names = [scene.name for scene in scenes]
    return scenes, {
        "scenes": names, "scene_fingerprint": fingerprint(scenes), PICTURE_DIGESTS: sorted(digests),
        SCENE_DIGESTS: [fingerprint([scene]) for scene in scenes],
    }  # fmt: skip


def candidates_table(candidates: Sequence[MeasuredPlan], best: Plan) -> Table:
    """The candidates, predicted and measured."""
    rows: list[Row] = []
    for candidate in candidates:
        facts = candidate.as_facts()
        is_best = candidate.planned.plan.formats == best.formats and candidate.planned.plan.rounding == best.rounding
        cells = (f"{facts['predicted']:.2e}", f"{facts['measured']:.2e}", "kept" if is_best else "")
        rows.append((facts["policy"], facts["made_for"], facts["rounding"], *cells))
    columns = ("policy", "made for", "rounding", "predicted", "measured", "")
    return Table("Measured on scenes of their own", columns, rows, words=(*columns[:3], columns[-1]))


def _ways(request: Request, rounding: str | None) -> list[tuple[str, str, str]]:
    """The candidates that a request leaves open."""
    ways = [
        (policy if request.policy == "auto" else request.policy, made_for, rounding or key)
        for policy, made_for, key in CANDIDATES
    ]
    return list(dict.fromkeys(ways))


def _alike(plan: Plan, other: Plan) -> bool:
    return plan.formats == other.formats and plan.rounding == other.rounding


def _further(subject: Subject, profile: Profile, profiled: SceneSource) -> tuple[list[Scene], set[str]]:
    """Scenes of the profile's own half that come after those that were profiled."""
    wider, count = replace(profiled, count=profiled.count + SELECT_SCENES), len(profile.facts["scenes"])
    scenes = [] if profiled.kind == INPUTS else scenes_for(subject, wider, SPLIT)
    if fingerprint(scenes[:count]) != profile.facts["scene_fingerprint"] or len(scenes) == count:
        raise InputError(
            f"no scenes are left to select on beyond the {count} that were profiled: name others with "
            f"{setting('select_on')}"
        )
    check_not_profiled(profile, scenes[count:])
    return scenes[count:], set(digest_pictures(pictures_of(wider, SPLIT)))
