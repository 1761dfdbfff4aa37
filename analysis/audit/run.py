"""The audit: measure true damage, compute every cheap score, compare, plan, and attribute the damage."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from analysis.audit.plans import SPREAD, Market, PlanRule, Regret, additivity_plans, baseline_scores, regrets
from analysis.audit.ranks import Agreement, rank_agreement, rank_correlation
from analysis.audit.results import JOINT, Audit, ScoreResult, local_outputs, output_groups
from analysis.audit.rounding_or_bits import beside_noise
from analysis.audit.stability import Sketcher, stability
from analysis.audit.truth import GEOMETRY_SCENES, LAYERS_AT_ONCE, Truth, measure_truth, steps_of_truth
from analysis.report.profile_tables import COARSE, FINE
from sensitivity import Profile
from sensitivity.damage import memory_of_damage
from sensitivity.jacobian_sketch import DEFAULT_PROBES
from sensitivity.scores import SCORES, ScoringContext
from sensitivity.token_classes import ClassDamage, class_damage
from sensitivity.weight_errors import WeightErrors
from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Executor, Workers, demand_of, workers_for
from vggtkit.core.journal import Parts
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.scenes import Scene, SceneSource
from vggtkit.subject import Subject

Scores = Mapping[str, Mapping[str, Array]]

STABILITY_SCENES = 6


def audit(
    subject: Subject,
    profile: Profile,
    calibration: Sequence[Scene],
    held_out: Sequence[Scene],
    judges: Sequence[Scene],
    *,
    facts: Mapping[str, object],
    with_stability: bool = False,
    workers: Workers | None = None,
    journal: Path | None = None,
    progress: Progress = silent,
) -> Audit:
    """Compare every score of `SCORES` with true damage.

    Args:
        subject: the profiled one.
        profile: of it.
        calibration: the scenes that were profiled.
        held_out: others, on which damage is measured.
        judges: yet others, on which whole plans are measured, since a plan from true damage is made for the scenes
            that it was measured on.
        facts: provenance.
        with_stability: repeat the sketch on other scenes, views and sizes too.
        workers: who measures true damage; by default processes, one a core, where the network is small.
        journal: of the file in the making, where what is measured of true damage is kept until `discard`.
        progress: told about every step.

    Raises:
        InputError: no held-out scenes, or no room for the workers.
    """
    _check_scenes(held_out, judges)
    context = ScoringContext(profile, subject, calibration, DEFAULT_PROBES, int(profile.facts["seed"]))
    layers, schemes = context.layers, context.schemes
    step = _Steps(progress)
    truth = _true_damage(context, held_out, facts, workers, journal, step)
    tell = step("cheap scores", len(SCORES))
    scores: dict[str, Mapping[str, Array]] = {}
    for key, score in SCORES.items():
        scores[key] = score.compute(context)
        tell()
    results = _results(context, Market(subject, profile, judges), truth, scores, step)
    market = Market(subject, profile, held_out)
    tell = step("whole plans", len(SPREAD) + len(SPREAD[1::2]) + len(schemes))
    plans = additivity_plans(market, context.sketched, truth.per_output, tell)
    step("damage by token class", 1)
    shown = tuple(key for key in (COARSE, FINE) if key in schemes)
    errors = WeightErrors(subject.model, layers, shown)
    classes = class_damage(subject, layers, errors, calibration[0], probes=DEFAULT_PROBES, seed=context.seed)
    repeated = None
    if with_stability:
        sketcher = Sketcher(subject, layers, shown, DEFAULT_PROBES)
        source = SceneSource.from_dict(profile.facts["scene_source"])
        count = itertools.count()
        repeated = stability(sketcher, source, STABILITY_SCENES, lambda stage: progress(stage, next(count), 20))
    return Audit(
        facts=dict(facts),
        layers=layers,
        schemes=schemes,
        scenes=[scene.name for scene in held_out],
        judges=[scene.name for scene in judges],
        calibration_scenes=[scene.name for scene in calibration],
        scores=results,
        ceiling=_ceilings(truth),
        damage=truth.per_output,
        sketched=context.sketched,
        responses=context.responses,
        worse={key: np.asarray(values.mean(0)) for key, values in truth.worse.items()},
        fp32=truth.fp32,
        plans=plans,
        classes=_by_class(classes),
        trunk=classes.layers if classes else (),
        class_schemes=shown,
        stability=repeated,
        noise=beside_noise(profile, COARSE),
    )


def _true_damage(
    context: ScoringContext, scenes: Sequence[Scene], facts: Mapping[str, object], workers: Workers | None,
    journal: Path | None, step: _Steps,
) -> Truth:  # fmt: skip
    """Measured by the workers that were asked for, or by as many as a small network is worth."""
    subject = context.subject
    needed = memory_of_damage(subject, scenes[0])
    demand = demand_of(subject.model, needed)
    automatic = workers_for(subject.model, demand) if subject.recorded_whole else Workers()
    executor = (workers or automatic).executor(demand)
    parts = _journal(journal, context, facts, scenes, executor) if journal is not None else None
    stage = f"true damage, {executor.title}, memory {executor.workers} x {needed / 1e9:.1f} GB"
    counted = step(stage, steps_of_truth(len(context.layers), len(scenes)))
    return measure_truth(subject, context.layers, context.schemes, scenes, executor=executor, parts=parts, step=counted)


def _journal(
    path: Path, context: ScoringContext, facts: Mapping[str, object], scenes: Sequence[Scene], executor: Executor
) -> Parts:
    """Where true damage is kept piece by piece: by all that decides its bits."""
    decides = ("model_fingerprint", "scene_fingerprint", "tool_version", "torch")
    return Parts(
        path,
        {name: facts.get(name) for name in decides}
        | {
            "layers": [layer.name for layer in context.layers],
            "schemes": list(context.schemes),
            "scenes": [scene.name for scene in scenes],
            "geometry_scenes": GEOMETRY_SCENES,
            "layers_at_once": LAYERS_AT_ONCE,
            "threads": executor.threads,
        },
    )


def _check_scenes(held_out: Sequence[Scene], judges: Sequence[Scene]) -> None:
    if not held_out or not judges:
        raise InputError(
            f"no scenes to measure damage on: give more photographs with {setting('images')}, or "
            f"{setting('scenes', 'synthetic')}"
        )


def _by_class(classes: ClassDamage | None) -> dict[str, Array]:
    """Damage by token class, and of all tokens together; nothing where tokens have no classes."""
    if classes is None:
        return {}
    return {**{name: part.numpy() for name, part in classes.parts.items()}, "all": classes.whole.numpy()}


class _Steps:
    """Counts the steps of one stage after another."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def __call__(self, stage: str, total: int) -> Callable[[], None]:
        done = itertools.count(1)
        self.progress(stage, 0, total)
        return lambda: self.progress(stage, next(done), total)


def _results(context: ScoringContext, market: Market, truth: Truth, scores: Scores, step: _Steps) -> list[ScoreResult]:
    """Every score, the truth and the baselines: agreement and regret."""
    local = local_outputs(truth.damage)
    totals = {key: _mean(values, tuple(values)) for key, values in scores.items()}
    shuffled = baseline_scores(totals["sketch"], context.seed)
    compared = from_scores(market, {**totals, "truth": truth.total(), **shuffled})
    compared[JOINT] = partial(market.plan_jointly, tuple(context.sketched))
    local_scores = {key: _mean(values, local) for key, values in scores.items()} | {"truth": truth.total(local)}
    local_scores |= baseline_scores(local_scores["sketch"], context.seed)
    local_ways = from_scores(market, local_scores) | {JOINT: partial(market.plan_jointly, local)}
    by_way = regrets(
        market,
        compared,
        halves(truth, None),
        local_ways,
        halves(truth, local),
        step("plans", 3 * len(compared)),
    )
    results = [
        ScoreResult(
            key, SCORES[key].title, SCORES[key].passes(context), _agreements(values, truth, context.seed), by_way[key]
        )
        for key, values in scores.items()
    ]
    results.append(ScoreResult(JOINT, "sketch, joint plan", SCORES["sketch"].passes(context), {}, by_way[JOINT]))
    passes = float(truth.total().size * len(next(iter(truth.damage.values()))))
    results.append(ScoreResult("truth", "true damage itself", passes, {}, by_way["truth"]))
    draws = [key for key in shuffled if key != "inverted"]
    results.append(
        ScoreResult(
            "random",
            f"sketch of wrong layers ({len(draws)} draws)",
            0.0,
            _agreements(context.everywhere(shuffled[draws[0]]), truth, context.seed),
            [_average([by_way[key][budget] for key in draws]) for budget in range(len(by_way[draws[0]]))],
        )
    )
    inverted = _agreements(context.everywhere(shuffled["inverted"]), truth, context.seed)
    return [*results, ScoreResult("inverted", "sketch upside down", 0.0, inverted, by_way["inverted"])]


def from_scores(market: Market, scores: Mapping[str, Array]) -> dict[str, PlanRule]:
    """Planning from scores ``[layers, formats]``, each the least summed one."""
    return {key: partial(market.plan, score) for key, score in scores.items()}


def _average(draws: Sequence[Regret]) -> Regret:
    damages = tuple(np.mean([one.damages for one in draws], axis=0).tolist())
    measured, summed, local = (
        float(np.mean([getattr(one, name) for one in draws])) for name in ("measured", "summed", "local")
    )
    return Regret(draws[0].budget, damages, measured, summed, local)


def _agreements(values: Mapping[str, Array], truth: Truth, seed: int) -> dict[str, Agreement]:
    return {
        group: rank_agreement(_mean(values, outputs), truth.total(outputs), seed)
        for group, outputs in output_groups(truth.damage).items()
    }


def _mean(values: Mapping[str, Array], outputs: Sequence[str]) -> Array:
    return np.asarray(np.mean([values[name] for name in outputs], axis=0))


def halves(truth: Truth, outputs: Sequence[str] | None) -> list[tuple[Array, Array]]:
    """True damage of either half of the scenes, each to choose by and to judge by; of one scene, itself."""
    count = len(next(iter(truth.damage.values())))
    if count < 2:
        return [(truth.total(outputs), truth.total(outputs))]
    one, other = truth.total(outputs, slice(0, None, 2)), truth.total(outputs, slice(1, None, 2))
    return [(one, other), (other, one)]


def _ceilings(truth: Truth) -> dict[str, float]:
    """From the halves' agreement r: reliability of all scenes 2 r / (1 + r), whose root bounds any correlation.

    Source: Spearman, "Correlation calculated from faulty data", and Brown, "Some experimental results in the
    correlation of mental abilities", both British Journal of Psychology 3, 1910.
    """
    ceilings: dict[str, float] = {}
    several = len(next(iter(truth.damage.values()))) > 1  # one scene cannot say how noisy it is
    for group, outputs in output_groups(truth.damage).items() if several else ():
        first, second = halves(truth, outputs)[0]
        reached = (first > 0) & (second > 0)
        r = rank_correlation(first[reached], second[reached])
        ceilings[group] = float(np.sqrt(2 * r / (1 + r))) if r > 0 else float("nan")
    return ceilings
