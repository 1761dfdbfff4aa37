"""What plans are made from: the evidence of a run's profile by one of its scores, or of a model without a profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import networkx as nx
import numpy as np

from analysis.evaluation.evaluator import Evaluator
from analysis.steps.run_folder import (
    PROFILE,
    check_source_of_run,
    held_out_scenes,
    profiled_scenes,
    subject_of_run,
)
from mixedprec import Evidence, Request, Resolved, data_free, resolve
from mixedprec.constraints import SHARED_INPUT
from mixedprec.evidence import SKETCH, output_weights
from sensitivity import Profile, open_profile
from sensitivity.rounding_gain import CALIBRATED
from sensitivity.scores import SCORES, Score, ScoringContext, usable_score
from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.core.program import command, setting
from vggtkit.model import resolve_source
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.scenes import SceneSource
from vggtkit.scenes.source import Split
from vggtkit.subject import Subject, bare_subject, is_factory


@dataclass(frozen=True)
class PlanSource:
    """What a plan is made from: evidence, the architecture, and the profile if there is one.

    Attributes:
        run: folder of the run.
        evidence: bytes and damage of the layers.
        subject: the architecture; with values only where it cannot be had without.
        profile: None without one.
        device: for what has to be run.
        notes: what is worth knowing of the evidence.
    """

    run: Path
    evidence: Evidence
    subject: Subject
    profile: Profile | None
    device: str = "auto"
    notes: tuple[str, ...] = ()
    _graphs: dict[tuple[str, ...] | None, nx.DiGraph] = field(default_factory=dict, repr=False)

    def planned_for(self, rounding: str) -> PlanSource:
        """The same with the damage that is expected after a rounding: as far as the profile scored one."""
        needs_inputs = ROUNDINGS[rounding].needs and CALIBRATED in self.evidence.roundings
        return replace(self, evidence=self.evidence.rounded(CALIBRATED)) if needs_inputs else self

    def resolve(self, request: Request) -> Resolved:
        """A request for this model, see `mixedprec.resolve`."""
        graph = self.graph(request) if SHARED_INPUT in request.constraints.groups else None
        return resolve(request, self.evidence, self.subject, graph)

    def graph(self, request: Request) -> nx.DiGraph:
        """Which layers feed which; of a model that shows it only by running, from a pass over a profiled scene."""
        if request.heads not in self._graphs:
            subject = self.subject if request.heads is None else self.subject.with_heads(request.heads)
            if subject.description() or self.profile is None:
                self._graphs[request.heads] = subject.graph()
            else:
                whole = subject_of_run(self.run, self.profile, self.device, self.subject.source)
                self._graphs[request.heads] = whole.graph(profiled_scenes(self.run, whole, self.profile)[0])
        return self._graphs[request.heads]

    def evaluator(self, request: Request, split: Split) -> Evaluator:
        """The real model on scenes of the profile's source.

        Raises:
            InputError: there is no profile, so neither scenes nor a measurement.
        """
        if self.profile is None:
            raise InputError(
                f"{self.evidence.origin}: {setting('max_drop')}, {setting('max_damage')} and {setting('refine')} "
                f"measure on scenes; make a profile first with `{command('profile')}`"
            )
        whole = subject_of_run(self.run, self.profile, self.device, self.subject.source)
        if split == "evaluation":
            source = SceneSource.from_dict(self.profile.facts["scene_source"])
            scenes = held_out_scenes(self.run, whole, self.profile, source)
        else:
            scenes = profiled_scenes(self.run, whole, self.profile)
        subject = whole if request.heads is None else whole.with_heads(request.heads)
        outputs = tuple(self.evidence.with_heads(subject.heads).damage)
        return Evaluator(subject, scenes, output_weights(request.weights, outputs), keep=request.keep)


def plan_source(run: Path, model_name: str | None, *, score: str = SKETCH, device: str = "auto") -> PlanSource:
    """The run's profile, or, where a model is named that it is not of, that model without a profile.

    Args:
        run: folder of the run.
        model_name: what the user names, if anything.
        score: key of `SCORES` that damage is taken from.
        device: for what has to be run.

    Raises:
        InputError: neither a profile nor a model, an unknown score, or a function made the model that the user has not
            named for this folder.
    """
    chosen = SCORES.pick(score)
    if model_name is None or (run / PROFILE).is_file():
        profile = open_profile(run / PROFILE)
        source = str(profile.facts["model"])
        if model_name is None or resolve_source(model_name) == source:
            check_source_of_run(run, source, model_name)
            subject = bare_subject(source, str(profile.facts["config"])).reading(profile.layers)
            evidence, notes = _by_score(run, profile, subject, chosen, device)
            return PlanSource(run, evidence, subject, profile, device, notes)
    assert model_name is not None
    if score != SKETCH:
        raise InputError(
            f"{setting('score', score)}: {model_name} has no profile in {run}, so nothing was scored; make one with "
            f"`{command('profile', '--model', model_name, '--run', run)}`"
        )
    if is_factory(model_name):
        raise InputError(
            f"{setting('model', model_name)}: without a profile only VGGTs can be planned; "
            f"`{command('profile', '--model', model_name, '--inputs', 'FUNCTION')}` makes one"
        )
    subject = bare_subject(model_name)
    return PlanSource(run, data_free(resolve_source(model_name), subject), subject, None, device)


def _by_score(
    run: Path, profile: Profile, subject: Subject, score: Score, device: str
) -> tuple[Evidence, tuple[str, ...]]:
    """A profile as evidence by one of the scores, with what there is to say of it."""
    evidence = Evidence.of(profile)
    if score.key == SKETCH:
        return evidence, ()
    whole, scenes = subject, []
    if score.reads_model:
        whole = subject_of_run(run, profile, device, subject.source)
        scenes = profiled_scenes(run, whole, profile)
    context = ScoringContext(profile, whole, scenes, int(profile.facts["probes"]), int(profile.facts["seed"]))
    values = _checked(score, score.compute(context), evidence, context.schemes)
    notes = [
        f"The score {score.title!r} knows the {len(context.schemes)} uniform schemes alone: no other format is offered."
    ]
    absent = int(np.isnan(np.stack(list(values.values()))).any((0, 2)).sum())
    if absent:
        notes.append(f"It does not apply to {absent} of {len(profile.layers)} layers: they count as the median layer.")
    usable = {name: usable_score(array) for name, array in values.items()}
    return evidence.scored(score.key, usable, context.schemes), tuple(notes)


def _checked(score: Score, values: Mapping[str, Array], evidence: Evidence, schemes: Sequence[str]) -> dict[str, Array]:
    """A score's values where it is what it has to be: a plugin's may not be.

    Raises:
        InputError: an output is missing, or an array has another shape.
    """
    shape = (len(evidence.layers), len(schemes))
    arrays = {name: np.asarray(values[name], dtype=np.float64) for name in evidence.damage if name in values}
    wrong = {name: array.shape for name, array in arrays.items() if array.shape != shape}
    if wrong or len(arrays) < len(evidence.damage):
        name = next(iter(wrong), next((name for name in evidence.damage if name not in arrays), ""))
        what = f"gives {name} the shape {wrong[name]}" if wrong else f"gives nothing for {name}"
        raise InputError(
            f"{setting('score', score.key)}: {what}; {shape} (layers, schemes) is needed for each of "
            f"{', '.join(evidence.damage)}"
        )
    return arrays
