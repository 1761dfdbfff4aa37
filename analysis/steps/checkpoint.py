"""A plan or a scheme -> the packed checkpoint."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from analysis.steps.rounding import checkpoint_path, weights_of
from analysis.steps.run_folder import PLAN, PROFILE, check_source_of_run, check_writable, plan_of, subject_of_run
from analysis.steps.view import View
from mixedprec import Plan, check_plan_size, format_bytes, load_plan, save_quantized, uniform_assignment
from sensitivity import Profile, open_profile
from vggtkit.core.executors import Workers
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.quant import get_format
from vggtkit.subject import Subject, open_subject

PLANNED = "plan"
"""What the run's plan is called among schemes."""


class OfRun(NamedTuple):
    """What is to be written of a run.

    Attributes:
        plan: the run's, if it is asked for.
        subject: its model with the plan's heads.
        profile: that it was made from; None of a plan without one.
        facts: what is known of weights and scenes.
    """

    plan: Plan | None
    subject: Subject
    profile: Profile | None
    facts: Mapping[str, Any]


def make_checkpoint(
    run: Path,
    scheme: str,
    progress: Progress = silent,
    *,
    weights: str = "pretrained",
    model_name: str | None = None,
    workers: Workers | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> View:
    """Write the packed checkpoint of the run's plan, or of a uniform scheme.

    A plan that was made without a profile is written with the weights of its model.

    Args:
        run: folder of the run.
        scheme: ``"plan"``, or a format for every layer.
        progress: called as the work goes on.
        weights: ``"random"`` to try a plan without a profile on random weights.
        model_name: what the user calls the run's model; a function runs only if it is named, or was for this folder.
        workers: who rounds a plan's weights, where that is left to do; this process by default.
        say: told what was done to make the model loadable.

    Raises:
        InputError: no profile and no plan, or the files do not belong together or to the model.
    """
    if scheme != "plan":
        get_format(scheme)
    check_writable(run)
    plan, subject, profile, facts = of_run(run, scheme, weights, progress, model_name, say)
    layers = subject.layers
    if plan:
        check_plan_size(subject, plan)
    written = itertools.count(1)

    def on_layer(_name: str) -> None:
        progress("writing", next(written), len(layers))

    path = checkpoint_path(run, scheme)
    if plan and profile and plan.only_in_checkpoint:
        weights_of(run, plan, profile, subject, workers=workers, progress=progress, say=say)
        size = path.stat().st_size
    else:
        size = save_quantized(
            subject,
            plan.formats if plan else uniform_assignment(layers, scheme),
            path,
            keep=plan.keep if plan else "fp16",
            executions=plan.executions if plan else None,
            note=provenance(
                weights=facts["weights"], scene_fingerprint=facts["scene_fingerprint"], seed=facts.get("seed")
            ),
            on_layer=on_layer,
        )
    build = "" if subject.description() else ", model=build"
    lines = [
        f"written: {path}, {format_bytes(size)} ({size:,} bytes)",
        f'load it with: from mixedprec import load_quantized; model = load_quantized("{path}"{build})',
    ]
    if build:
        lines.append(f"build is the function that makes the network, {subject.source}: the file holds no code.")
    random = "random" in (weights, facts["weights"])
    if random:
        lines.append("RANDOM WEIGHTS: this checkpoint predicts nothing.")
    known = "random" if random else str(facts["weights"])
    return View({"path": str(path), "size_bytes": size}, (), lines).of_weights(known)


def of_run(
    run: Path, scheme: str, weights: str, progress: Progress, named: str | None, say: Callable[[str], None]
) -> OfRun:
    """What is to be written of a run, see `OfRun`; arguments as of `make_checkpoint`."""
    free = load_plan(run / PLAN) if scheme == "plan" and (run / PLAN).is_file() else None
    if free is not None and free.for_any_weights:
        progress("loading", 0, 1)
        check_source_of_run(run, free.model, named)
        return OfRun(free, open_subject(free.model, weights, say=say).with_heads(free.heads), None, free.provenance)
    profile = open_profile(run / PROFILE)
    plan = plan_of(run, profile) if scheme == "plan" else None
    progress("loading", 0, 1)
    subject = subject_of_run(run, profile, "cpu", named, say)
    return OfRun(plan, subject.with_heads(plan.heads) if plan else subject, profile, profile.facts)
