"""A model -> its kernel table: passes in every execution, in turn, every layer and the rest timed where they run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from analysis.timing.clock import Clock, clocked_layers, now, stage_of_layers
from mixedprec import packed_with, quantized_weights, uniform_assignment
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.quant import QuantizedTensor, candidates, dequantize, quantize
from vggtkit.runtime.backend import EXECUTIONS, Options, Prepared
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.codes import expanded, is_int8
from vggtkit.runtime.int8 import runs_whole
from vggtkit.runtime.kernel_table import (
    BACKEND,
    FIXED,
    PLAIN,
    RESIDENT_AS,
    KernelTable,
    LayerRow,
    PassTimes,
    this_machine,
)
from vggtkit.runtime.kernels import choose, fastest
from vggtkit.runtime.runners import has_product
from vggtkit.runtime.stages import REST
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

TABLE_SECONDS = 90
"""For all passes; the first of every kind is taken whatever it takes."""
SHARES, LEAST_LEFT = (0.4, 0.3, 1.0), 0.25
"""Of the time that is left, for each number of pictures in turn; further numbers are left out below the other share."""
MOST_REPEATS = 15
FAR = 4
"""Passes over so many times the pictures are measured as well, where there is time."""
UNPACKED_ROWS, UNPACKED_COLUMNS = 256, 1024
"""Size of the weights that are unpacked in every format."""

ExecutionBlock = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class MeasuredModel:
    """What stands for the model.

    Attributes:
        subject: with values.
        depths: as in `KernelTable`.
        repeats: as in `KernelTable`.
    """

    subject: Subject
    depths: Mapping[str, int]
    repeats: Mapping[str, int]


def measure_kernels(
    model: MeasuredModel, scene: Scene, name: str, *, seconds: float = TABLE_SECONDS, progress: Progress = silent
) -> KernelTable:
    """Measure a model's layers in every execution that this machine has.

    Args:
        model: unchanged afterwards.
        scene: pictures; further numbers of pictures are made of noise.
        name: of the model, as the user says it.
        seconds: after which no further pass begins.
        progress: told of every pass.
    """
    subject = model.subject
    weights = quantized_weights(subject, uniform_assignment(subject.layers, RESIDENT_AS))
    until = time.perf_counter() + seconds
    unpacking = _unpacking()
    passes: list[PassTimes] = []
    for views, share in zip(_counts(scene), SHARES, strict=False):
        left = until - time.perf_counter()
        if passes and left <= LEAST_LEFT * seconds:
            break
        of_these = time.perf_counter() + share * left
        passes.append(_passes(subject, _of_views(scene, views), weights, of_these, progress))
    homes = stage_of_layers(subject)
    seen = passes[0].seconds
    return KernelTable(
        model=name,
        views=len(scene.images),
        size=(scene.images.shape[-2], scene.images.shape[-1]),
        heads=subject.heads,
        machine=this_machine(),
        kernels=BACKENDS["int8"].describe(),
        rows={
            each.name: LayerRow(each.kind, each.shape, homes[each.name]) for each in subject.layers if each.name in seen
        },
        depths=dict(model.depths),
        repeats=dict(model.repeats),
        unpacking=unpacking,
        passes=tuple(sorted(passes, key=lambda one: one.views)),
        provenance=provenance(),
    )


def _counts(scene: Scene) -> list[int]:
    """Numbers of pictures to measure, the one that is asked for first."""
    views = len(scene.images)
    if scene.inputs is not None:
        return [views]
    return [views, *sorted({1, FAR * views} - {views})]


def _of_views(scene: Scene, views: int) -> Scene:
    """The scene, or one of noise with another number of pictures."""
    if views == len(scene.images):
        return scene
    images = torch.rand((views, *scene.images.shape[1:]), generator=torch.Generator().manual_seed(0))
    return Scene(f"{views} pictures", images, scene.query_points)


@torch.no_grad()
def _passes(
    subject: Subject, scene: Scene, weights: Mapping[str, QuantizedTensor], until: float, progress: Progress
) -> PassTimes:
    """The least over the repeats of all ways to run, which take turns; the first turn warms up if there is time."""
    ways = _ways(subject, weights)
    turns: dict[str, list[Clock]] = {how: [] for how in ways}
    wholes: dict[str, list[float]] = {how: [] for how in ways}
    begun = time.perf_counter()
    for turn in range(MOST_REPEATS + 1):
        for number, (how, way) in enumerate(ways.items()):
            progress(f"{len(scene.images)} pictures, {how}", turn * len(ways) + number, (MOST_REPEATS + 1) * len(ways))
            with way():
                with clocked_layers(subject) as clock:
                    _run(subject, scene)
                turns[how].append(clock)
                # Clocks cost what small layers take; a pass without them says how much.
                wholes[how].append(_run(subject, scene) if clock.total < 1.0 else clock.total)
        passed = time.perf_counter() - begun
        if begun + passed + passed / (turn + 1) > until:
            break
    skip = 1 if len(turns[PLAIN]) > 1 else 0
    return _summed(subject, len(scene.images), {how: each[skip:] for how, each in turns.items()},
                   {how: each[skip:] for how, each in wholes.items()})  # fmt: skip


def _run(subject: Subject, scene: Scene) -> float:
    call = subject.arguments(scene, subject.device)
    begun = now()
    subject.call(call)
    return now() - begun


def _ways(subject: Subject, weights: Mapping[str, QuantizedTensor]) -> dict[str, ExecutionBlock]:
    """The FP32 model, and the packed one with all layers in one execution each, as far as they have it."""
    ways: dict[str, ExecutionBlock] = {PLAIN: nullcontext}
    choice = choose(torch.get_num_threads())
    usable = [how for how in EXECUTIONS if choice and (how != "bfloat16" or choice.has_bfloat16)] or ["fp32"]
    for how in usable:
        told = {layer.name: how for layer in subject.layers}
        with packed_with(subject, weights):
            prepared = BACKENDS["int8"].prepare(subject, Options(executions=told))
        ways[how] = partial(_executed, subject, weights, prepared)
    return ways


@contextmanager
def _executed(subject: Subject, weights: Mapping[str, QuantizedTensor], prepared: Prepared) -> Iterator[None]:
    with packed_with(subject, weights), prepared.running():
        yield


def _summed(
    subject: Subject, views: int, turns: Mapping[str, Sequence[Clock]], wholes: Mapping[str, Sequence[float]]
) -> PassTimes:
    """One pass from many: the least by layer and stage, and the rest such that the sum is the least without clocks.

    The least, as nothing makes a product faster than it is, and everything else on a machine makes it slower.
    """
    seconds: dict[str, dict[str, float]] = {}
    called = turns[PLAIN][0].calls
    for layer in subject.layers:
        if not called.get(layer.name):
            continue
        of_way = {how: min(clock.layers[layer.name] for clock in clocks) for how, clocks in turns.items()}
        seconds[layer.name] = _choices(subject, layer.name, of_way)
    rest: dict[str, dict[str, float]] = {}
    by_way = {}
    for how, clocks in turns.items():
        by_way[how] = {stage: min(clock.rest[stage] for clock in clocks) for stage in clocks[0].rest}
        layers = sum(min(clock.layers[name] for clock in clocks) for name in clocks[0].layers)
        by_way[how][REST] += min(wholes[how]) - layers - sum(by_way[how].values())
    rest[PLAIN] = by_way.pop(PLAIN)
    # What is no layer does not depend on how layers run; the median over the ways is the least noisy of it.
    rest[BACKEND] = {stage: statistics.median(one[stage] for one in by_way.values()) for stage in rest[PLAIN]}
    return PassTimes(views, seconds, {name: float(called[name]) for name in seconds}, rest)


def _choices(subject: Subject, name: str, of_way: Mapping[str, float]) -> dict[str, float]:
    """Of what was measured, what the layer really runs in."""
    layer = next(each for each in subject.layers if each.name == name)
    module = subject.model.get_submodule(name)
    plain = {PLAIN: of_way[PLAIN]}
    ways = {how: taken for how, taken in of_way.items() if how != PLAIN}
    if not layer.is_called or layer.aliases or not has_product(module):
        return plain | {FIXED: min(ways.values())}
    return plain | {how: taken for how, taken in ways.items() if runs_whole(module) or not how.startswith("int8")}


def _unpacking() -> dict[str, dict[str, float]]:
    """Seconds a weight from every format to INT8 and to FP32."""
    weight = torch.randn(UNPACKED_ROWS, UNPACKED_COLUMNS, generator=torch.Generator().manual_seed(0))
    jobs: dict[tuple[str, str], Callable[[], Any]] = {}
    for key in candidates():
        q = quantize(weight, key)
        jobs[key, "float"] = partial(dequantize, q)
        if is_int8(key):
            jobs[key, "int8"] = partial(expanded, q)
    seconds = fastest({f"{key} {kind}": job for (key, kind), job in jobs.items()}, repeats=5)
    per_weight: dict[str, dict[str, float]] = {}
    for key, kind in jobs:
        per_weight.setdefault(key, {})[kind] = seconds[f"{key} {kind}"] / weight.numel()
    return per_weight
