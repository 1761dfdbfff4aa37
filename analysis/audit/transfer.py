"""Does a sensitivity travel? Scores and plans of one kind of scenes, judged on another.

Every run gives its scores and scenes that it was not made from. Two questions of every pair of runs: do the scores of
one order layers and formats as those of the other do, and what does a plan that was made on one do on the scenes of the
other, beside the plan that was made there and the best uniform scheme of its bytes. The gate is said beforehand:
`CORRELATION` and `TIMES_BETTER`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.audit.ranks import rank_correlation
from analysis.evaluation.evaluator import Evaluator
from analysis.search.measuring import measured_all
from mixedprec import Evidence, Request, planned, uniform_assignment
from mixedprec.planner import Planned
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Workers
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant import UNIFORM_SCHEMES, get_format

CORRELATION, TIMES_BETTER = 0.9, 3.0
"""The gate: what scores must at least correlate, and how many times less damage than the best uniform scheme of its
bytes a plan from elsewhere must do."""
ALLOWANCE = 1.05
"""A uniform scheme counts as of a plan's bytes up to this many times as large: in its favour."""
EVERYTHING, OTHERS = "all of them", "all others"


@dataclass(frozen=True)
class SceneSide:
    """A kind of scenes.

    Attributes:
        name: of its run.
        evidence: from its profile.
        evaluator: model and scenes of the same source that were not profiled.
    """

    name: str
    evidence: Evidence
    evaluator: Evaluator


@dataclass(frozen=True)
class Moved:
    """A plan from one calibration, judged on the scenes of a place.

    Attributes:
        calibration: a place, `EVERYTHING`, or `OTHERS`, which leaves out the place that is judged on.
        place: whose scenes judge.
        damage: measured there.
        regret: over the damage of the plan that was made there.
        times_better: than the best uniform scheme of its bytes.
        correlation: of the calibration's scores with those of the place, all outputs together, Spearman over layers
            and formats.
        by_output: the same of every output.
        within: the same over the layers of one format, averaged over formats.
    """

    calibration: str
    place: str
    damage: float
    regret: float
    times_better: float
    correlation: float
    by_output: Mapping[str, float]
    within: float

    @property
    def passes(self) -> bool:
        """Whether it gets through the gate."""
        return self.correlation >= CORRELATION and self.times_better >= TIMES_BETTER


@dataclass(frozen=True)
class Transfer:
    """What was found.

    Attributes:
        places: their names.
        scenes: names of the scenes that judge, by place.
        budget: of all plans, as it was asked for.
        size_bytes: of the plan of every calibration, the largest.
        uniform: by place, title and damage of the best uniform scheme of these bytes.
        rows: every calibration on every place.
    """

    places: tuple[str, ...]
    scenes: Mapping[str, tuple[str, ...]]
    budget: str
    size_bytes: int
    uniform: Mapping[str, tuple[str, float]]
    rows: tuple[Moved, ...]

    def of(self, calibration: str, place: str) -> Moved:
        """One of the rows."""
        return next(row for row in self.rows if (row.calibration, row.place) == (calibration, place))

    @property
    def moved(self) -> list[Moved]:
        """From one place to another, which the gate is about."""
        return [row for row in self.rows if row.calibration in self.places and row.calibration != row.place]

    @property
    def passes(self) -> bool:
        """Whether every move gets through the gate."""
        return all(row.passes for row in self.moved)

    @property
    def safest(self) -> str:
        """The calibration whose worst regret is least; no place of its own counts for `OTHERS`."""
        return min(self.worst, key=lambda name: self.worst[name])

    @property
    def worst(self) -> dict[str, float]:
        """The largest regret of every calibration."""
        names = dict.fromkeys(row.calibration for row in self.rows)
        return {name: max(row.regret for row in self.rows if row.calibration == name) for name in names}


def transfer(
    places: Sequence[SceneSide], request: Request, *, workers: Workers | None = None, progress: Progress = silent
) -> Transfer:
    """Judge plans of every place, and of all together, on every place.

    Args:
        places: two or more, of one model; formats that not all of them scored are not offered.
        request: of the plans; its budget is one for all.
        workers: who measures; this process by default.
        progress: told about every measurement.

    Raises:
        InputError: fewer than two places, two of one name, or of several models.
    """
    places = _alike(places)
    evidences = {place.name: place.evidence for place in places}
    evidences[EVERYTHING] = mixed([place.evidence for place in places])
    rows: list[Moved] = []
    uniform: dict[str, tuple[str, float]] = {}
    plans = {name: planned(each, places[0].evaluator.subject, request) for name, each in evidences.items()}
    sizes = [plan.plan.size_bytes for plan in plans.values()]
    for place in places:
        own, others = dict(plans), dict(evidences)
        if len(places) > 2:
            others[OTHERS] = mixed([other.evidence for other in places if other is not place])
            own[OTHERS] = planned(others[OTHERS], place.evaluator.subject, request)
        schemes = _uniform_of(plans[place.name], max(sizes))
        assignments = [plan.plan.formats for plan in own.values()] + list(schemes.values())
        measured = measured_all(place.evaluator, assignments, workers, progress)
        damages = [each.damage for each in measured]
        uniform[place.name] = min(zip(schemes, damages[len(own) :], strict=True), key=lambda pair: pair[1])
        by_calibration = dict(zip(own, damages, strict=False))
        rows += [_moved(name, place, others[name], by_calibration, uniform[place.name][1]) for name in own]
    return Transfer(
        places=tuple(place.name for place in places),
        scenes={place.name: tuple(scene.name for scene in place.evaluator.scenes) for place in places},
        budget=request.budget.text,
        size_bytes=max(sizes),
        uniform=uniform,
        rows=tuple(rows),
    )


def mixed(evidences: Sequence[Evidence]) -> Evidence:
    """Evidence of several profiles of one model, as if their scenes had been profiled together, as many of each.

    Damage is the mean over the profiles. Signed changes stand beside each other, those with fewer scenes scaled so that
    every profile counts alike.
    """
    first = evidences[0]
    damage = {name: np.mean([each.damage[name] for each in evidences], axis=0) for name in first.damage}
    changes = {}
    if all(each.changes for each in evidences):
        samples = [next(iter(each.changes.values())).shape[2] for each in evidences]
        # A mean over all scenes would count a profile by how many it has.
        factors = [np.sqrt(sum(samples) / (len(samples) * count)) for count in samples]
        fewest = min(values.shape[3] for each in evidences for values in each.changes.values())
        changes = {
            name: np.concatenate(
                [each.changes[name][..., :fewest] * np.float32(f) for each, f in zip(evidences, factors, strict=True)],
                axis=2,
            )
            for name in first.changes
        }
    facts = {**first.facts, "unreached": sorted(frozenset.intersection(*(each.unreached for each in evidences)))}
    return replace(first, facts=facts, damage=damage, changes=changes, uniform={}, estimate_checks={}, input_damage={})


def _alike(places: Sequence[SceneSide]) -> list[SceneSide]:
    """The places with the formats that all of them scored; refused where they are not of one model."""
    if len(places) < 2:
        raise InputError(f"{setting('transfer')}: give two runs or more, each profiled on scenes of its own")
    names = [place.name for place in places]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{setting('transfer')}: {twice} is named twice")
    first = places[0]
    for place in places[1:]:
        for what in ("model_fingerprint", "folding"):
            one, other = (each.evidence.facts.get(what) for each in (first, place))
            if one != other:
                raise InputError(
                    f"{setting('transfer')}: {first.name} and {place.name} are of different networks ({what} {one} and "
                    f"{other}); profile the same one on both"
                )
    shared = [key for key in first.evidence.candidates if all(key in place.evidence.candidates for place in places)]
    return [replace(place, evidence=_with_candidates(place.evidence, shared)) for place in places]


def _with_candidates(evidence: Evidence, keys: Sequence[str]) -> Evidence:
    if list(evidence.candidates) == list(keys):
        return evidence
    columns = [evidence.column(key) for key in keys]
    return replace(
        evidence,
        candidates=tuple(keys),
        size_bytes=evidence.size_bytes[:, columns],
        damage={name: values[:, columns] for name, values in evidence.damage.items()},
        changes={name: values[:, columns] for name, values in evidence.changes.items()},
    )


def _uniform_of(plan: Planned, size_bytes: int) -> dict[str, dict[str, str]]:
    """The uniform schemes of about a plan's bytes, by title; the smallest where none is."""
    evidence, overhead = plan.search_space.evidence, plan.plan.overhead_bytes
    known = {key: uniform_assignment(evidence.layers, key) for key in UNIFORM_SCHEMES if key in evidence.candidates}
    sizes = {key: overhead + sum(plan.search_space.layer_bytes(formats).values()) for key, formats in known.items()}
    fitting = [key for key, size in sizes.items() if size <= ALLOWANCE * size_bytes]
    return {get_format(key).short_title: known[key] for key in fitting or [min(sizes, key=lambda key: sizes[key])]}


def _moved(name: str, place: SceneSide, evidence: Evidence, damages: Mapping[str, float], uniform: float) -> Moved:
    here = place.evidence
    total = [rank_correlation(a, b) for a, b in zip(evidence.total_damage.T, here.total_damage.T, strict=True)]
    known = [value for value in total if np.isfinite(value)]
    return Moved(
        calibration=name,
        place=place.name,
        damage=damages[name],
        regret=damages[name] / damages[place.name] if damages[place.name] else float("nan"),
        times_better=uniform / damages[name] if damages[name] else float("inf"),
        correlation=rank_correlation(evidence.total_damage, here.total_damage),
        by_output={key: rank_correlation(evidence.damage[key], here.damage[key]) for key in here.damage},
        within=float(np.mean(known)) if known else float("nan"),
    )
