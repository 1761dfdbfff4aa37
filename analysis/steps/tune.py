"""A plan and scenes -> the same plan with tuned weights: its checkpoint, and ``plan.json`` that says so."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from analysis.evaluation.evaluator import Evaluator
from analysis.report.document import Table
from analysis.steps.rounding import OF_PLAN, checkpoint_path, digest_of_plan, weights_of
from analysis.steps.run_folder import (
    PICTURE_DIGESTS,
    PLAN,
    PROFILE,
    SCENE_DIGESTS,
    check_writable,
    plan_of,
    scenes_for,
    subject_of_run,
    weights_of_plan,
)
from analysis.steps.view import View
from mixedprec import Plan, quantized_weights, save_plan, save_quantized
from mixedprec.evidence import output_weights, parse_weights
from mixedprec.tuning import QuantizedByLayer, Recipe, Tuned, TuningForecast, distil, forecast_tuning, tune_blocks
from sensitivity import Profile, open_profile
from vggtkit.core.atomic import replacing
from vggtkit.core.errors import InputError, check_number
from vggtkit.core.journal import Parts
from vggtkit.core.memory import bytes_of, free_bytes
from vggtkit.core.permits import check_permitted, permit
from vggtkit.core.program import command, setting
from vggtkit.core.provenance import Progress, Say, provenance, silent
from vggtkit.scenes import Scene, SceneSource, digest_pictures, fingerprint, picture_digests, pictures_of
from vggtkit.subject import INPUTS, Subject


@dataclass(frozen=True)
class Roles:
    """Scenes by what they are for; no picture has two roles.

    Attributes:
        tuning: whose FP32 outputs the weights are tuned towards.
        selection: on which the best weights are chosen; neither profiled nor tuned on.
        source: where they come from.
    """

    tuning: list[Scene]
    selection: list[Scene]
    source: SceneSource


def make_tuned(
    run: Path,
    choose_scenes: Callable[[SceneSource], SceneSource] = lambda profiled: profiled,
    *,
    recipe: Recipe,
    select: int,
    weights_for: str | None = None,
    device: str = "auto",
    model_name: str | None = None,
    progress: Progress = silent,
    say: Say = lambda _: None,
) -> View:
    """Tune the weights of the run's plan; writes its checkpoint and ``plan.json``.

    The formats, and so the bytes, stay as they are. Can be stopped at any time; the same call goes on.

    Args:
        run: folder with ``profile.h5`` and ``plan.json``.
        choose_scenes: where scenes come from, given where those of the profile did; their calibration half is used.
        recipe: how weights are tuned.
        select: scenes to select on, of these.
        weights_for: what outputs count for, as plans take it; as in the plan by default.
        device: as `pick_device` takes it.
        model_name: what the user calls the run's model; a function runs only if it is named, or was for this folder.
        progress: called as the work goes on.
        say: told what it will take, and what is taken up.

    Raises:
        InputError: no plan, the files do not belong together, scenes have two roles, or memory does not suffice.
    """
    check_number("select", select, 1)
    check_writable(run)
    profile = open_profile(run / PROFILE)
    plan = plan_of(run, profile)
    weights = weights_of_plan(plan)
    if weights_for is not None:
        weights = output_weights(parse_weights(weights_for), tuple(plan.predicted_damage))
    progress("loading", 0, 1)
    subject = subject_of_run(run, profile, device, model_name, say).with_heads(plan.heads)
    roles = _roles(run, subject, profile, choose_scenes, select)
    recipe = _that_fits(subject, roles, recipe, say)
    start = weights_of(run, plan, profile, subject, progress=progress, say=say)
    start = quantized_weights(subject, plan.formats, plan.keep) if start is None else start
    evaluator = Evaluator(subject, roles.selection, weights, keep=plan.keep)

    def judge(candidate: QuantizedByLayer) -> float:
        return evaluator.measure_weights(candidate).damage

    purpose = {
        "plan": digest_of_plan(plan), "recipe": asdict(recipe), "weights": weights,
        "tuning": fingerprint(roles.tuning), "selection": fingerprint(roles.selection),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    parts, begun = Parts(checkpoint_path(run), purpose), time.perf_counter()
    if resumed := bool(parts.done()):
        say(f"tuning goes on where it stopped: {', '.join(parts.done()[:3])} and {len(parts.done())} parts in all")
    with parts.kept_if_any():
        tuned = _tuned(subject, start, roles, judge, recipe, weights, parts, progress)
    facts = _facts(roles, recipe, tuned, resumed=resumed, seconds=time.perf_counter() - begun)
    new = replace(plan, tuned=facts)
    _write(run, new, profile, subject, tuned.weights)
    parts.remove()
    return _view(run, new, tuned).of_weights(str(profile.facts["weights"]))


def _tuned(
    subject: Subject, weights: QuantizedByLayer, roles: Roles, judge: Callable[[QuantizedByLayer], float],
    recipe: Recipe, shares: Mapping[str, float], parts: Parts, progress: Progress,
) -> Tuned:  # fmt: skip
    """Both stages, each from the best before it."""
    damage = judge(weights)
    start = Tuned(weights, damage, damage)
    if recipe.block_steps:
        rebuilt = tune_blocks(subject, weights, roles.tuning, recipe, weights=shares, parts=parts, progress=progress)
        after = judge(rebuilt)
        start = replace(start, blocks=after)
        if after < damage:
            start = replace(start, weights=rebuilt, damage=after)
    return distil(subject, start, roles.tuning, judge, recipe, weights=shares, parts=parts, progress=progress)


def _roles(
    run: Path, subject: Subject, profile: Profile, choose: Callable[[SceneSource], SceneSource], select: int
) -> Roles:
    """Scenes to tune and to select on: those that were profiled may be tuned on, never selected on.

    Raises:
        InputError: too few, or a picture would have two roles.
    """
    profiled = SceneSource.from_dict(profile.facts["scene_source"])
    source = choose(profiled)
    if source.kind == INPUTS:
        if source.folder != profiled.folder:
            permit(run, source.folder or "")
        check_permitted(run, source.folder or "", setting("scenes", f"inputs:{source.folder}"))
    scenes = scenes_for(subject, source, "calibration")
    known = set(profile.facts.get(SCENE_DIGESTS, ()))
    fresh = [scene for scene in scenes if fingerprint([scene]) not in known]
    selection = fresh[-select:]
    chosen = {id(scene) for scene in selection}
    tuning = [scene for scene in scenes if id(scene) not in chosen]
    if len(selection) < select or not tuning:
        raise InputError(
            f"{len(scenes)} scenes to tune on, of which {len(scenes) - len(fresh)} were profiled: {select} others are "
            f"needed to select on, and one more; give more pictures ({setting('images')}, {setting('scenes')}), a "
            f"higher {setting('num_scenes')} or a lower {setting('select')}"
        )
    _check_apart(profiled, source, tuning, selection)
    return Roles(tuning, selection, source)


def _check_apart(
    profiled: SceneSource, source: SceneSource, tuning: Sequence[Scene], selection: Sequence[Scene]
) -> None:
    """Refuse pictures that are tuned and selected on, or tuned on and judged on."""
    seen = {digest: scene.name for scene in tuning for digest in _pictures(scene)}
    if shared := [(seen[d], scene.name) for scene in selection for d in _pictures(scene) if d in seen]:
        raise InputError(
            f"{len(shared)} pictures would be both tuned and selected on, one of {shared[0][0]} in {shared[0][1]}; "
            "remove the copies"
        )
    held_out = digest_pictures(pictures_of(profiled, "evaluation"))
    if both := sorted(set(held_out) & picture_digests(source, "calibration")):
        raise InputError(
            f"{len(both)} of the pictures to tune on are those that the run is evaluated on, "
            f"{held_out[both[0]].name!r} is one; give others with {setting('images')} or {setting('scenes')}"
        )


def _pictures(scene: Scene) -> set[str]:
    """Digests of a scene's pictures, as the model sees them."""
    return {hashlib.sha256(picture.contiguous().numpy().tobytes()).hexdigest() for picture in scene.images}


def _that_fits(subject: Subject, roles: Roles, recipe: Recipe, say: Say) -> Recipe:
    """The recipe without the stage that this model or memory does not allow; what it takes is said beforehand.

    Raises:
        InputError: neither stage fits.
    """
    outputs = bytes_of(subject.predict(roles.tuning[0], check=True))
    expected, free = forecast_tuning(subject, roles.tuning[0], len(roles.tuning), outputs), free_bytes(subject.device)
    if expected is None:
        say("How much memory tuning takes is not known: the model does not run by shapes alone.")
        return recipe if subject.segments_are_known else replace(recipe, block_steps=0)
    say(_sentence(expected, free, len(roles.tuning)))

    def fits(needed: int | None) -> bool:
        return needed is not None and (free is None or needed <= free)

    by_blocks = recipe.block_steps if fits(expected.blocks) else 0
    whole = recipe.steps if fits(expected.whole) else 0
    if whole or by_blocks:
        return replace(recipe, steps=whole, block_steps=by_blocks)
    stages = ((recipe.block_steps, expected.blocks), (recipe.steps, expected.whole))
    wanted = [needed for steps, needed in stages if steps and needed is not None]
    if free is None or not wanted:
        raise InputError(
            f"nothing to do: {setting('block_steps', recipe.block_steps)} and {setting('steps', recipe.steps)} leave "
            "no stage in which this model can be tuned"
        )
    raise InputError(
        f"tuning needs about {min(wanted) / 1e9:.1f} GB of memory beside the weights, {free / 1e9:.1f} GB are free: "
        f"give a lower {setting('num_scenes')}, {setting('views')} or {setting('max_images')}"
    )


def _sentence(expected: TuningForecast, free: int | None, scenes: int) -> str:
    by_blocks = (
        "block by block it cannot be done: what its blocks hand on is not known"
        if expected.blocks is None
        else f"block by block about {expected.blocks / 1e9:.1f} GB"
    )
    known = "" if free is None else f"; {free / 1e9:.1f} GB are free"
    too_much = ", so that stage is left out" if free is not None and expected.whole > free else ""
    return (
        f"Memory beside the weights, for {scenes} scenes: {by_blocks}, the whole model at once about "
        f"{expected.whole / 1e9:.1f} GB{known}{too_much}."
    )


def _facts(roles: Roles, recipe: Recipe, tuned: Tuned, *, resumed: bool, seconds: float) -> dict[str, Any]:
    """What a plan says of its tuning."""
    return {
        "on": roles.source.to_dict(), "scenes": len(roles.tuning), "selection_scenes": len(roles.selection),
        "recipe": asdict(recipe), "steps": tuned.steps, "stopped": tuned.stopped, "seconds": round(seconds, 1),
        "resumed": resumed, "damage_before": tuned.start, "damage_after_blocks": tuned.blocks,
        "damage_after": tuned.damage, "tuning_fingerprint": fingerprint(roles.tuning),
        "selection_fingerprint": fingerprint(roles.selection),
        SCENE_DIGESTS: [fingerprint([scene]) for scene in (*roles.tuning, *roles.selection)],
        PICTURE_DIGESTS: sorted(picture_digests(roles.source, "calibration")),
    }  # fmt: skip


def _write(run: Path, plan: Plan, profile: Profile, subject: Subject, weights: QuantizedByLayer) -> None:
    """The checkpoint, then its plan, which is on the disk by then: a crash in between leaves the old plan.

    That makes a checkpoint of its own.
    """
    shown = ("scenes", "selection_scenes", "steps", "damage_before", "damage_after", "selection_fingerprint")
    note = provenance(
        weights=profile.facts["weights"], scene_fingerprint=profile.facts["scene_fingerprint"],
        seed=profile.facts.get("seed"), rounding=plan.rounding, tuned={name: plan.tuned[name] for name in shown},
        **{OF_PLAN: digest_of_plan(plan)},
    )  # fmt: skip
    path, told = checkpoint_path(run), plan.executions
    with replacing(run / PLAN) as file:
        save_plan(plan, file)
        save_quantized(subject, plan.formats, path, keep=plan.keep, rounded=weights, executions=told, note=note)


def _view(run: Path, plan: Plan, tuned: Tuned) -> View:
    facts = plan.tuned
    rows = [("where it began, " + plan.rounding, f"{tuned.start:.3e}")]
    if tuned.blocks is not None:
        rows.append(("after the blocks", f"{tuned.blocks:.3e}"))
    rows += [(f"after {step} steps of the whole model", f"{damage:.3e}") for step, damage in tuned.history]
    rows += [("best of these, written", f"{tuned.damage:.3e}")]
    title = f"Damage on {facts['selection_scenes']} selection scenes"
    table = Table(title, ("weights", "damage"), rows, words=("weights",), tones={len(rows) - 1: "strong"})
    share = tuned.damage / tuned.start if tuned.start else 1.0
    lines = [
        f"Tuned on {facts['scenes']} scenes in {facts['seconds']:.0f} s: damage {tuned.start:.2e} -> "
        f"{tuned.damage:.2e} ({share:.0%}) at the same bytes. Only codes and scales were tuned; biases and "
        "norms are as they were.",
    ]
    if tuned.stopped:
        lines.append(f"STOPPED EARLY: {tuned.stopped}; the best weights before it are kept.")
    if tuned.damage >= tuned.start:
        lines.append("NOTHING GAINED: the weights are those of the start.")
    lines.append(f"written: {checkpoint_path(run)}, {run / PLAN}; judge it with `{command('evaluate', '--run', run)}`")
    values = {
        "path": str(checkpoint_path(run)), "size_bytes": plan.size_bytes, "history": list(tuned.history),
        **{name: value for name, value in facts.items() if name not in (SCENE_DIGESTS, PICTURE_DIGESTS)},
    }  # fmt: skip
    return View(values, [table], lines)
