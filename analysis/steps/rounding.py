"""The weights of a plan that is not rounded to the nearest: calibrated once, and kept as its checkpoint."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from analysis.steps.run_folder import profiled_scenes, weights_of_plan
from mixedprec import Plan, save_quantized
from mixedprec.checkpoint import read_info, read_weights
from mixedprec.rounding import Rounded, rounded_weights
from mixedprec.rounding_by_workers import rounded_by_workers
from mixedprec.rounding_in_passes import rounded_in_passes
from mixedprec.rounding_in_sequence import sequentially_rounded
from sensitivity import Profile
from sensitivity.moments import (
    Moments,
    groups_of,
    input_moments,
    moment_bytes,
    output_moments,
    room_for_moments,
)
from sensitivity.output_factors import output_factors
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Executor, Workers, demand_of
from vggtkit.core.journal import Parts
from vggtkit.core.memory import LARGE, bytes_of
from vggtkit.core.program import command
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.core.seal import digest_of
from vggtkit.quant import Layer, QuantizedTensor
from vggtkit.quant.rounding import ROUNDINGS, Rounding
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

OF_PLAN = "plan_digest"
PIECES_OF_A_WORKER, WORKERS_EXPECTED = 2, 4
"""Pieces that layers are dealt in, each with passes of its own over the scenes; workers where nobody gave a number."""


def checkpoint_path(run: Path, scheme: str = "plan") -> Path:
    """Where the packed checkpoint of a run's plan, or of a scheme, is."""
    return run / f"model-{scheme}.safetensors"


def weights_of(
    run: Path,
    plan: Plan,
    profile: Profile,
    subject: Subject,
    *,
    workers: Workers | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Mapping[str, QuantizedTensor] | None:
    """The plan's weights as its rounding makes them; None for rounding to the nearest, which needs no calibration.

    They are those of the checkpoint in the run's folder where that is of this plan; else they are made from the
    profiled scenes, and that checkpoint is written. So what is evaluated is what is exported.

    Args:
        run: folder of the run.
        plan: of the run.
        profile: of the run.
        subject: the run's model with the plan's heads.
        workers: who rounds; this process with all of its threads by default.
        progress: called as the work goes on.
        say: told where layers are rounded without calibration.

    Raises:
        InputError: the profiled scenes are no longer the same, the checkpoint cannot be written, or it held tuned
            weights and is gone.
    """
    if not plan.only_in_checkpoint:
        return None
    path, digest = checkpoint_path(run), digest_of_plan(plan)
    if (ready := _ready(path, digest, subject)) is not None:
        info = read_info(path)
        if (info.executions or {}) != plan.executions:  # planned again to run otherwise, the codes stay
            _write(path, plan, subject, ready, info.note)
        return ready
    if plan.tuned:
        raise InputError(
            f"{path}: not there, damaged, or of another plan, and the tuned weights are nowhere else; plan again with "
            f"`{command('plan', '--run', run)}`, then `{command('tune', '--run', run)}`"
        )
    calibration = Calibration(run, profile, subject, progress, workers)
    parts = Parts(path, {"plan": digest, "threads": calibration.threads})
    if done := len(parts.done()):
        say(f"rounding goes on where it stopped: {done} of {len(plan.formats)} layers are done")
    for line in calibration.forecast(plan):
        say(line)
    with parts.kept_if_any():
        rounded = calibration.rounded(plan, parts)
    for name, reason in rounded.fell_back.items():
        say(f"{name} is rounded to the nearest: {reason}")
    if rounded.few_rows:
        name, (rows, inputs) = min(rounded.few_rows.items(), key=lambda row: row[1][0] / row[1][1])
        say(
            f"{len(rounded.few_rows)} layers are calibrated on fewer rows than they have inputs, {name} on {rows} of "
            f"{inputs}: damping holds what no row speaks of; more scenes would say more"
        )
    note = provenance(
        weights=profile.facts["weights"], scene_fingerprint=profile.facts["scene_fingerprint"],
        seed=profile.facts.get("seed"), rounding=plan.rounding, **{OF_PLAN: digest},
    )  # fmt: skip
    _write(path, plan, subject, rounded.weights, note)
    parts.remove()
    return rounded.weights


def _write(
    path: Path, plan: Plan, subject: Subject, weights: Mapping[str, QuantizedTensor], note: dict[str, Any]
) -> None:
    told = plan.executions
    save_quantized(subject, plan.formats, path, keep=plan.keep, rounded=weights, executions=told, note=note)


def digest_of_plan(plan: Plan) -> str:
    """Of what decides a plan's weights."""
    return digest_of(
        {
            "formats": plan.formats, "keep": plan.keep, "rounding": plan.rounding, "heads": list(plan.heads),
            "model": plan.model_fingerprint, "scenes": plan.provenance.get("scene_fingerprint"),
            "weights_for": plan.provenance.get("weights_for"),
        }
        | ({"tuned": plan.tuned} if plan.tuned else {})
    )  # fmt: skip


def _ready(path: Path, digest: str, subject: Subject) -> Mapping[str, QuantizedTensor] | None:
    """What is in the checkpoint, if it is of the plan and whole."""
    try:
        if read_info(path).note.get(OF_PLAN) != digest:
            return None
        return read_weights(path, subject)
    except InputError:
        return None


class Calibration:
    """What the roundings of a run need of the profiled scenes; each is made once, when it is first asked for.

    Args:
        run: folder of the run.
        profile: of it.
        subject: its model with the heads of the plans.
        progress: called as the work goes on.
        workers: who rounds; this process by default.
    """

    def __init__(
        self, run: Path, profile: Profile, subject: Subject, progress: Progress = silent, workers: Workers | None = None
    ) -> None:
        self.run, self.profile, self.subject, self.progress = run, profile, subject, progress
        self.workers = workers
        self.last: tuple[object, Moments] | None = None

    @cached_property
    def scenes(self) -> list[Scene]:
        """The profiled ones."""
        return profiled_scenes(self.run, self.subject, self.profile)

    @property
    def threads(self) -> int:
        """That layers are rounded with."""
        return (self.workers.threads if self.workers else 0) or torch.get_num_threads()

    def forecast(self, plan: Plan) -> list[str]:
        """What rounding a plan takes, where it is more than seconds, to be said beforehand."""
        rounding = ROUNDINGS.pick(plan.rounding)
        if self.subject.parameters <= LARGE or not rounding.needs:
            return []
        if rounding.needs == "sequence":
            passes = 2 * len(self.scenes) * len(plan.formats)
            return [
                f"{rounding.key} runs the model up to every layer twice on every scene: {passes} passes. Layers that "
                "are done are kept beside the checkpoint; a stopped job goes on with the next."
            ]
        sizes = moment_bytes(self.subject, self.subject.layers)
        groups = groups_of(sizes, self._room(rounding))
        most = max(sum(sizes[name] for name in group) for group in groups)
        return [
            f"Second moments of {len(sizes)} layers take {sum(sizes.values()) / 1e9:.1f} GB, {most / 1e9:.1f} GB at a "
            f"time: {len(groups)} times over {len(self.scenes)} scenes. Layers that are done are kept beside the "
            "checkpoint; a stopped job goes on with the next."
        ]

    def rounded(self, plan: Plan, parts: Parts | None = None) -> Rounded:
        """A plan's weights as its rounding makes them.

        Args:
            plan: of the run.
            parts: where layers that are done are kept, and taken from.

        Raises:
            InputError: the profiled scenes are no longer the same, or as `rounded_in_passes`.
        """
        rounding, written = ROUNDINGS.pick(plan.rounding), itertools.count(1)

        def on_layer(_name: str) -> None:
            self.progress(f"rounding by {rounding.key}", next(written), len(plan.formats))

        if not rounding.needs:
            return rounded_weights(self.subject, plan.formats, rounding, keep=plan.keep, on_layer=on_layer)
        if rounding.needs == "sequence":
            return sequentially_rounded(
                self.subject, plan.formats, rounding, self.scenes, keep=plan.keep, parts=parts, progress=self.progress
            )
        if self.workers is not None:
            return rounded_by_workers(
                self.subject, plan.formats, rounding, self._moments_for(rounding, plan),
                self._executor(rounding, self.workers), keep=plan.keep, room=self._room(rounding), parts=parts,
                progress=self.progress,
            )  # fmt: skip
        return rounded_in_passes(
            self.subject, plan.formats, rounding, partial(self._moments, rounding, plan), keep=plan.keep,
            room=partial(self._room, rounding), parts=parts, progress=self.progress,
        )  # fmt: skip

    def _room(self, rounding: Rounding) -> int | None:
        """Bytes of moments at a time; a pass back holds those of the scene beside those of all.

        Workers share what one process has, and take `PIECES_OF_A_WORKER` pieces each.
        """
        held = 0 if self.last is None else bytes_of(self.last[1].sums)
        room = room_for_moments(self.subject, copies=_copies(rounding))
        room = None if room is None else room + held
        if self.workers is None:
            return room
        count = self.workers.count or WORKERS_EXPECTED
        share = -(-sum(moment_bytes(self.subject, self.subject.layers).values()) // (PIECES_OF_A_WORKER * count))
        return share if room is None else min(share, room // count)

    def _executor(self, rounding: Rounding, workers: Workers) -> Executor:
        """Whose workers have the model and the moments of a piece in memory."""
        sizes = moment_bytes(self.subject, self.subject.layers)
        most = max((sum(sizes[name] for name in group) for group in groups_of(sizes, self._room(rounding))), default=0)
        weights = bytes_of(list(self.subject.model.parameters()))
        return workers.executor(demand_of(self.subject.model, weights + _copies(rounding) * most))

    def _moments_for(self, rounding: Rounding, plan: Plan) -> MomentsOfScenes:
        weights = None if rounding.needs == "inputs" else weights_of_plan(plan) or None
        return MomentsOfScenes(self.subject, self.scenes, rounding.needs, weights, int(self.profile.facts["seed"]))

    def _moments(self, rounding: Rounding, plan: Plan, layers: Sequence[Layer]) -> Moments:
        """Of some layers; once more the last ones, if they are asked for again."""
        measure, names = self._moments_for(rounding, plan), [layer.name for layer in layers]
        asked = rounding.needs, names, measure.weights
        if self.last is not None and self.last[0] == asked:
            return self.last[1]
        self.last = None
        moments = measure(layers, self.progress)
        self.last = asked, moments
        return moments


def _copies(rounding: Rounding) -> int:
    """Of the moments, that measuring them holds."""
    return 1 if rounding.needs == "inputs" else 2


@dataclass(frozen=True)
class MomentsOfScenes:
    """Measures second moments, here or in a worker.

    Attributes:
        subject: the model.
        scenes: to calibrate with.
        needs: of the rounding.
        weights: how much each output counts; all the same by default.
        seed: of random combinations of outputs.
    """

    subject: Subject
    scenes: Sequence[Scene]
    needs: str
    weights: Mapping[str, float] | None
    seed: int

    def __call__(self, layers: Sequence[Layer], progress: Progress = silent) -> Moments:
        """Of some layers."""
        if self.needs == "inputs":
            return input_moments(self.subject, layers, self.scenes, progress)
        measure = output_factors if self.needs == "factors" else output_moments
        return measure(
            self.subject, self.subject.layers, self.scenes, only=layers, weights=self.weights, seed=self.seed,
            progress=progress,
        )  # fmt: skip
