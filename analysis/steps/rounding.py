"""The weights of a plan that is not rounded to the nearest: calibrated once, and kept as its checkpoint."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.steps.run_folder import profiled_scenes, weights_of_plan
from mixedprec import Plan, save_quantized
from mixedprec.checkpoint import read_info, read_weights
from mixedprec.rounding import Rounded, rounded_weights, sequentially_rounded
from sensitivity import Profile
from sensitivity.moments import Moments, input_moments, output_moments
from vggtkit.core.errors import InputError
from vggtkit.core.program import command
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.core.seal import digest_of
from vggtkit.quant import QuantizedTensor
from vggtkit.quant.rounding import ROUNDINGS, Rounding
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

OF_PLAN = "plan_digest"


def checkpoint_path(run: Path, scheme: str = "plan") -> Path:
    """Where the packed checkpoint of a run's plan, or of a scheme, is."""
    return run / f"model-{scheme}.safetensors"


def weights_of(
    run: Path,
    plan: Plan,
    profile: Profile,
    subject: Subject,
    *,
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
        if (
            (info := read_info(path)).executions or {}
        ) != plan.executions:  # planned again to run otherwise, the codes stay
            _write(path, plan, subject, ready, info.note)
        return ready
    if plan.tuned:
        raise InputError(
            f"{path}: not there, damaged, or of another plan, and the tuned weights are nowhere else; plan again with "
            f"`{command('plan', '--run', run)}`, then `{command('tune', '--run', run)}`"
        )
    rounded = Calibration(run, profile, subject, progress).rounded(plan)
    if rounded.fell_back:
        name, reason = next(iter(rounded.fell_back.items()))
        say(f"{len(rounded.fell_back)} layers are rounded without calibration, {name} is one: {reason}")
    note = provenance(
        weights=profile.facts["weights"], scene_fingerprint=profile.facts["scene_fingerprint"],
        seed=profile.facts.get("seed"), rounding=plan.rounding, **{OF_PLAN: digest},
    )  # fmt: skip
    _write(path, plan, subject, rounded.weights, note)
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
    """

    def __init__(self, run: Path, profile: Profile, subject: Subject, progress: Progress = silent) -> None:
        self.run, self.profile, self.subject, self.progress = run, profile, subject, progress
        self.moments: dict[str, Moments] = {}

    @cached_property
    def scenes(self) -> list[Scene]:
        """The profiled ones."""
        return profiled_scenes(self.run, self.subject, self.profile)

    def rounded(self, plan: Plan) -> Rounded:
        """A plan's weights as its rounding makes them.

        Raises:
            InputError: the profiled scenes are no longer the same, or as `rounded_weights`.
        """
        rounding, written = ROUNDINGS.pick(plan.rounding), itertools.count(1)

        def on_layer(_name: str) -> None:
            self.progress(f"rounding by {rounding.key}", next(written), len(plan.formats))

        if rounding.needs == "sequence":
            return sequentially_rounded(
                self.subject, plan.formats, rounding, self.scenes, keep=plan.keep, on_layer=on_layer
            )
        moments = self._moments(rounding, plan) if rounding.needs else None
        return rounded_weights(self.subject, plan.formats, rounding, moments, keep=plan.keep, on_layer=on_layer)

    def _moments(self, rounding: Rounding, plan: Plan) -> Moments:
        if rounding.needs not in self.moments:
            if rounding.needs == "inputs":
                made = input_moments(self.subject, self.subject.layers, self.scenes, self.progress)
            else:
                made = output_moments(
                    self.subject, self.subject.layers, self.scenes, weights=weights_of_plan(plan) or None,
                    seed=int(self.profile.facts["seed"]), progress=self.progress,
                )  # fmt: skip
            self.moments[rounding.needs] = made
        return self.moments[rounding.needs]
