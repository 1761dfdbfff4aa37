"""The profile: activations, errors per layer and scheme, and damage at the outputs, from calibration scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sensitivity.assembly import arrays_under, assemble
from sensitivity.footprint import GraphCounter, footprint
from sensitivity.input_rounding import InputErrors
from sensitivity.jacobian_sketch import DEFAULT_PROBES, foreseen_route, ignores_detach
from sensitivity.own_derivatives import check_derivatives
from sensitivity.profile_steps import (
    DAMAGE,
    REPEATED,
    ROUNDINGS,
    WEIGHT_BYTES,
    WEIGHTS,
    ProfileWork,
    stage_of,
)
from sensitivity.recorder import TokenSampling, plan_sampling
from sensitivity.rounding_gain import ON_OTHERS
from sensitivity.route import Route
from sensitivity.scrutiny import (
    DIGEST,
    check_unseen,
    known_beforehand,
    repeated,
    same_inputs,
    scrutinise,
    told_by,
)
from sensitivity.store import FP32, READ_PAST, Profile, open_profile
from sensitivity.survey import LayerVolume, survey, with_readers
from sensitivity.weight_errors import WeightErrors
from sensitivity.writer import writing_profile
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Demand, Executor, Workers
from vggtkit.core.journal import Parts
from vggtkit.core.memory import check_disk, check_memory, peak_resident_bytes, resident_bytes
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant import UNIFORM_SCHEMES, Layer, get_format
from vggtkit.quant import candidates as scored_formats
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, subject_of

DEFAULT_ACTIVATION_BYTES = 4 * 10**9
NO_ROUNDINGS = "what calibrated rounding brings is not scored: the second moments of all inputs do not fit into memory"
DECIDES = ("model_fingerprint", "scene_fingerprint", "tool_version", "torch", "config")
"""Facts that decide the numbers, beside what is measured and how."""


def profile(
    model: nn.Module | Subject,
    scenes: Sequence[Scene],
    path: Path,
    *,
    facts: Mapping[str, Any],
    layers: Sequence[Layer] | None = None,
    schemes: Sequence[str] = UNIFORM_SCHEMES,
    candidates: Sequence[str] | None = None,
    probes: int = DEFAULT_PROBES,
    seed: int = 0,
    activation_bytes: int = DEFAULT_ACTIVATION_BYTES,
    dtype: torch.dtype = torch.float32,
    gradient_dtype: torch.dtype = torch.float32,
    workers: Workers | None = None,
    calibrates: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Profile a model on calibration scenes and write ``profile.h5``.

    Every step (a scene in FP32, under one scheme, its damage) is on disk as soon as it is done. Where an earlier call
    with the same arguments was interrupted, its steps are not done again; the numbers are the same.

    Args:
        model: in eval mode, or a subject; unchanged afterwards.
        scenes: calibration scenes, all of one number of views and one size.
        path: of the file.
        facts: provenance to be written into it.
        layers: of `vggtkit.quant.find_layers`, which is asked by default.
        schemes: keys of the formats whose errors are captured layer by layer.
        candidates: keys of the formats whose bytes and damage are scored, for a planner to choose from; by default
            `vggtkit.quant.candidates`.
        probes: random vectors per output and scene, see `sensitivity.jacobian_sketch`.
        seed: of what is sampled and of the probes.
        activation_bytes: activations take no more than this on disk.
        dtype: that the model computes in, see `Subject.computing_in`.
        gradient_dtype: the same for the backward passes of the sketch.
        workers: who does the steps; this process with all of its threads by default. Any number of workers of as many
            threads gives the same bits.
        calibrates: score too what calibrated rounding leaves of the errors, see `sensitivity.rounding_gain`.
        progress: told about every step.
        say: told what is skipped because it was done before.

    Returns:
        The profile, as `open_profile` gives it.

    Raises:
        InputError: no scenes, scenes of several sizes, or a model that gives no finite outputs.
    """
    subject = subject_of(model)
    candidates = scored_formats() if candidates is None else candidates
    layers = subject.layers if layers is None else layers
    _check(scenes, layers)
    progress("counting layers and memory", 0, 1)
    with subject.computing_in(dtype):
        seen = _seen_before(subject, layers, scenes)
    gradient_dtype, route = _route(subject, layers, scenes[0], dtype, gradient_dtype, say)
    count, volumes, layers = _counted(subject, layers, scenes[0], route)
    sampling = plan_sampling(volumes, 1 + len(schemes), len(scenes), activation_bytes)
    expected = _foreseen(subject, layers, volumes, count, len(scenes), path, sampling, schemes, candidates, probes, say)
    inputs = list(InputErrors(subject.model, layers).formats)
    executor = (workers or Workers()).executor(Demand(expected, gpus=int(subject.device.type == "cuda")))
    purpose = {name: facts.get(name) for name in DECIDES} | {
        "scenes": [scene.name for scene in scenes], "layers": [layer.name for layer in layers], "probes": probes,
        "schemes": list(schemes), "candidates": list(candidates), "inputs": inputs, "seed": seed,
        "tokens": list(sampling.per_call), "dtype": str(dtype), "gradient_dtype": str(gradient_dtype),
        "threads": executor.threads,
    }  # fmt: skip
    parts = Parts(path, purpose | {"calibrates": calibrates, ON_OTHERS: len(scenes) > 1})
    work = ProfileWork(
        subject, layers, volumes, scenes, schemes, candidates, sampling, seed, dtype, probes, gradient_dtype,
        route.through_detach, calibrates,
    )  # fmt: skip
    steps = work.steps()
    _say_what_is_done(parts, steps, scenes, say)
    with parts.kept_if_any():
        _do_steps(work, executor, parts, steps, progress)
    if calibrates and not parts.load(ROUNDINGS):
        say(NO_ROUNDINGS)
    seen |= _told_by_steps(subject, scenes, parts, dtype)
    seen |= _without_effect(subject, layers, volumes, scenes, parts, candidates)
    progress("writing scores", len(steps), len(steps))
    facts = {**facts, **seen, **{name: purpose[name] for name in ("probes", "dtype", "gradient_dtype")}}
    facts |= _facts_of_capture(layers, sampling, expected) | {"threads": executor.threads}
    facts |= {ON_OTHERS: len(scenes) > 1} if calibrates else {}
    with writing_profile(path, layers, schemes, candidates, facts, inputs) as writer:
        writer.table(_weight_bytes(subject, layers, candidates, parts))
        assemble(writer, parts, layers, schemes, len(scenes))
    parts.remove()
    return open_profile(path)


def _seen_before(subject: Subject, layers: Sequence[Layer], scenes: Sequence[Scene]) -> dict[str, Any]:
    """Facts of a model before anything is made of it; of one that nobody knows, from passes that are compared."""
    return known_beforehand(subject, layers) if subject.segments_are_known else scrutinise(subject, layers, scenes)


def _counted(
    subject: Subject, layers: Sequence[Layer], scene: Scene, route: Route
) -> tuple[GraphCounter, list[LayerVolume], list[Layer]]:
    """One pass that counts bytes of graphs and what layers put out; the layers, with who reads them."""
    count = GraphCounter(subject, route.segments)
    volumes = survey(subject, layers, scene, count.watching())
    return count, volumes, with_readers(layers, volumes)


def _told_by_steps(subject: Subject, scenes: Sequence[Scene], parts: Parts, dtype: torch.dtype) -> dict[str, Any]:
    """Facts that the steps tell by the way.

    A model whose parts are known repeats itself where all parts gave the same bits when they were computed once more
    for the way back. Where they did not, two passes are held against each other; at full size parts are computed once
    more in another precision.

    Raises:
        InputError: two passes over the same scene differ.
    """
    first, gone_back = (parts.load(f"0-{what}") for what in (FP32, DAMAGE))
    others = (number for number, scene in enumerate(scenes) if not same_inputs(scenes[0], scene))
    other = next(others, None)
    facts = told_by(first, None if other is None else parts.load(f"{other}-{FP32}"))
    if REPEATED not in gone_back:
        return facts
    if gone_back[REPEATED]:
        names = [name.removeprefix(DIGEST) for name in first if name.startswith(DIGEST)]
        return facts | {"repeatability": dict.fromkeys(names, 0.0)}
    with torch.no_grad(), subject.computing_in(dtype):
        return facts | {"repeatability": repeated(subject.run(scenes[0]), subject.run(scenes[0]), scenes[0])}


def _do_steps(work: ProfileWork, executor: Executor, parts: Parts, steps: Sequence[str], progress: Progress) -> None:
    """What is missing of the steps, onto the disk."""
    missing = [step for step in steps if step not in parts.done()]
    where = f", {executor.title}" if executor.workers > 1 else ""

    def tell() -> None:
        done = set(parts.done())
        if left := [step for step in missing if step not in done]:
            progress(f"{stage_of(left[0])}{where}", len(steps) - len(left), len(steps))

    tell()
    with closing(executor.run(work, missing, [step.partition("-")[0] for step in missing])) as finished:
        for done in finished:
            parts.save(missing[done.number], done.value)
            tell()


def _facts_of_capture(layers: Sequence[Layer], sampling: TokenSampling, expected: int) -> dict[str, Any]:
    """What is to be known of how the numbers came about."""
    return {
        READ_PAST: [layer.name for layer in layers if layer.reader == ""],
        "activation_tokens": list(sampling.per_call),
        "expected_peak_bytes": expected,
        "peak_resident_bytes": peak_resident_bytes(),
    }


def _foreseen(
    subject: Subject, layers: Sequence[Layer], volumes: Sequence[LayerVolume], count: GraphCounter, scenes: int,
    path: Path, sampling: TokenSampling, schemes: Sequence[str], candidates: Sequence[str], probes: int,
    say: Callable[[str], None],
) -> int:  # fmt: skip
    """Say what memory and disk the profile will take, and refuse it where they are not there; the peak in bytes."""
    disk = 2 * sampling.size_bytes  # the steps, and the file made of them
    check_disk(disk, path.parent)
    sample = sampling.size_bytes // ((1 + len(schemes)) * scenes)
    needed = footprint(subject, layers, volumes, count, candidates=len(candidates), probes=probes, sample_bytes=sample)
    if needed is None:
        say(f"profiling takes about {disk / 1e6:.0f} MB of disk; this model's memory cannot be told beforehand")
        return 0
    peak = (resident_bytes() or 0) + needed.peak
    say(
        f"profiling takes about {peak / 1e9:.1f} GB of memory at its peak, weights included, and {disk / 1e6:.0f} MB "
        "of disk meanwhile"
    )
    check_memory(needed.peak, subject.device)
    return peak


def _without_effect(
    subject: Subject, layers: Sequence[Layer], volumes: Sequence[LayerVolume], scenes: Sequence[Scene], parts: Parts,
    candidates: Sequence[str],
) -> dict[str, list[str]]:  # fmt: skip
    """Layers that no output of any scene was seen to depend on: those that never run, and the others."""
    moved = np.zeros(len(layers), dtype=bool)
    for number in range(len(scenes)):
        for values in arrays_under(WEIGHTS, parts.load(f"{number}-{DAMAGE}")).values():
            moved |= (values != 0).any(axis=(1, 2))
    coarsest = min(candidates, key=lambda key: get_format(key).bits)
    check_unseen(subject, [la for la, matters in zip(layers, moved, strict=True) if not matters], scenes, coarsest)
    names: dict[str, list[str]] = {"unreached": [], "silent": []}
    for layer, volume, matters in zip(layers, volumes, moved, strict=True):
        if not matters:
            names["silent" if volume.calls or layer.reader != "" else "unreached"].append(layer.name)
    return names


def _weight_bytes(
    subject: Subject, layers: Sequence[Layer], candidates: Sequence[str], parts: Parts
) -> list[list[int]]:
    """Of every layer in every format; most were told where errors were made for the damage."""
    return WeightErrors(subject.model, layers, candidates).size_bytes(parts.load(f"0-{DAMAGE}").get(WEIGHT_BYTES))


def _say_what_is_done(parts: Parts, steps: Sequence[str], scenes: Sequence[Scene], say: Callable[[str], None]) -> None:
    done = [step for step in steps if step in parts.done()]
    if parts.replaced:
        say(f"{parts.folder} held an unfinished profile of something else; it is started anew")
    if parts.damaged:
        step, reason = next(iter(parts.damaged.items()))
        say(f"{len(parts.damaged)} steps in {parts.folder} are measured again, {step} is one: {reason}")
    if done:
        number, _, what = done[-1].partition("-")
        last = f"scene {scenes[int(number)].name}, {what}" if what else ROUNDINGS
        say(f"resuming: {len(done)} of {len(steps)} steps were done before and are skipped, the last is {last}")


def _route(
    subject: Subject,
    layers: Sequence[Layer],
    scene: Scene,
    dtype: torch.dtype,
    wanted: torch.dtype,
    say: Callable[[str], None],
) -> tuple[torch.dtype, Route]:
    """In what precision and how the sketch goes back through the model; what is not as it might be is said.

    Args:
        subject: that runs in ``dtype``.
        layers: whose weights get gradients.
        scene: what the model sees.
        dtype: what it falls back to.
        wanted: what is tried first; a model that nobody knows may hold operations that are not there in 16 bits.
        say: told.
    """
    try:
        route = _foreseen_route(subject, layers, scene, wanted)
    except InputError as error:
        if wanted in (dtype, torch.float32):
            raise
        say(f"gradients are taken in {dtype}, since the model does not run in {wanted}: {error}")
        wanted, route = dtype, _foreseen_route(subject, layers, scene, dtype)
    check_derivatives(subject, layers, scene, route, wanted)
    if route.unsound:
        name, reason = next(iter(route.unsound.items()))
        say(
            f"{len(route.unsound)} of {len(route.unsound) + len(route.segments)} blocks are differentiated with the "
            f"rest of the model, which takes more memory: {name} {reason}"
        )
    return wanted, route


def _foreseen_route(subject: Subject, layers: Sequence[Layer], scene: Scene, dtype: torch.dtype) -> Route:
    through = ignores_detach(subject, layers, scene, dtype)
    return foreseen_route(subject, layers, scene, dtype, through_detach=through)


def _check(scenes: Sequence[Scene], layers: Sequence[Layer]) -> None:
    if not layers:
        raise InputError("the model has no layer whose weight can be quantised (linear or convolutional)")
    if not scenes:
        raise InputError(f"no calibration scenes: give more photographs, or {setting('scenes', 'synthetic')}")
    first = scenes[0]
    for scene in scenes:
        shapes, expected = (_shapes(one.inputs) for one in (scene, first))
        for what, given, wanted in (
            ("size", list(scene.images.shape), list(first.images.shape)),
            ("number of query points", list(scene.query_points.shape), list(first.query_points.shape)),
            ("inputs", shapes, expected),
        ):
            if given != wanted:
                raise InputError(f"scenes must agree in {what}: {scene.name} is {given}, {first.name} is {wanted}")


def _shapes(inputs: object) -> list[list[int]]:
    return [list(value.shape) for value in tree_leaves(inputs) if isinstance(value, Tensor)]
