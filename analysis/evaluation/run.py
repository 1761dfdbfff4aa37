"""End-to-end evaluation: FP32, the uniform schemes and a plan, on scenes that the plan was not made from."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from analysis.evaluation.candidates import PLAN, Candidate, Rivals, compared_candidates
from analysis.evaluation.cost import cost_over_scenes
from analysis.evaluation.evaluator import SEED, Evaluator, MeasuredDamage
from analysis.evaluation.kept import Cost, Kept, SceneRow
from analysis.evaluation.results import Evaluation, SchemeResult, Stages
from analysis.evaluation.watch import Watch
from analysis.timing.activations import held_bytes
from mixedprec import (
    Plan,
    check_plan_size,
    overhead_bytes,
    packed_with,
)
from mixedprec.checkpoint import fp32_bytes
from mixedprec.evidence import SKETCH
from mixedprec.given_biases import without_bias
from mixedprec.planner import layers_by_format
from mixedprec.resolve import KEPT_BYTES
from sensitivity.store import FP32
from vggtkit.core.accelerator import wait_for
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.metrics.depth import Alignment
from vggtkit.metrics.geometry import over_scenes
from vggtkit.metrics.outputs import average, compare_outputs
from vggtkit.quant import QuantizedTensor
from vggtkit.runtime.backend import Backend, Options, Prepared, is_whole, not_run
from vggtkit.runtime.backends import BACKENDS, REFERENCE
from vggtkit.runtime.codes import PER_CHANNEL
from vggtkit.runtime.stages import clocked
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, subject_of


def evaluate(
    model: nn.Module | Subject,
    scenes: Sequence[Scene],
    plan: Plan | None,
    *,
    facts: Mapping[str, object],
    weights_note: str,
    output_weights: Mapping[str, float] | None = None,
    calibration_scenes: Sequence[str] = (),
    repeats: int = 3,
    execute: str = REFERENCE,
    options: Options | None = None,
    rounded: Mapping[str, QuantizedTensor] | None = None,
    rivals: Rivals | None = None,
    alignment: Alignment = "median",
    watch: Watch | None = None,
    kept: Kept | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate every candidate on every scene, packed as its checkpoint would run.

    Each candidate is quantised once; its size, its outputs and its times are those of the same packed weights.
    Times are of the first scene. After a warm-up, each repeat of a scheme stands right next to one of FP32, and
    a scheme's speed ratio is the median of the ratios of these pairs, so that a machine that slows down or
    speeds up meanwhile cancels out. FP32's own time is the median of its runs next to all the schemes.

    The plan, and the uniform scheme that it runs exactly, are executed by the backend that is asked for, and their
    accuracy is that of the same execution; they are timed beside the trunk in bfloat16 as well. All others are
    executed as ``reference`` does.

    The geometry figures are against the truth of the scenes that have one, and come from the same outputs.

    Args:
        model: the FP32 model in eval mode, or a subject; unchanged afterwards.
        scenes: evaluation scenes.
        plan: made for this model; None to evaluate the uniform schemes alone.
        facts: provenance for the reports.
        weights_note: where the weights come from, for titles.
        output_weights: what each output counts for in the damage, as the plan was made; all alike by default.
        calibration_scenes: names of the scenes that the plan was made from.
        repeats: timed repeats of each scheme; 0 leaves out timing.
        execute: key of the backend.
        options: what the backend may do.
        rounded: the plan's weights where they are not rounded to the nearest, as `mixedprec.rounding` makes them.
        rivals: what stands beside the plan; the seven uniform schemes by default.
        alignment: of depth to the truth, before its errors are taken.
        watch: shown the outputs of FP32 and of every candidate on every scene.
        kept: what was done before, and is not done again; what is done now is added to it.
        progress: told about every step.

    Raises:
        InputError: no scenes, the plan does not fit the model, the backend is unknown or does not run the plan, or FP32
            gives no finite outputs.
    """
    backend = BACKENDS.pick(execute)
    _check_any(scenes)
    subject = subject_of(model)
    if plan:
        check_plan_size(subject, plan)
    todo = compared_candidates(subject, plan, rounded, rivals)
    check_runs(backend, subject, plan, options)
    passes = repeats + 1 if repeats else 0
    total, done = len(scenes) + len(todo) * (len(scenes) + passes), itertools.count()

    def step(stage: str, steps: int = 1) -> None:
        for _ in range(steps):
            progress(stage, next(done), total)

    step("running FP32", len(scenes))
    evaluator = Evaluator(subject, scenes, output_weights, alignment=alignment)
    references, watch, kept = evaluator.fp32(), watch or Watch(), kept or Kept()
    for number, outputs in enumerate(evaluator.references):
        watch(FP32, number, outputs)
    results, fp32_seconds = [], []
    for place, candidate in enumerate(todo):
        told = plan.executions if plan and candidate.key == PLAN else {}
        how = backend if candidate.key in (PLAN, PER_CHANNEL) else BACKENDS[REFERENCE], _told(options, told)
        work = CandidateWork(place, candidate, *how, repeats, partial(step, f"evaluating {candidate.title}"))
        rows, cost = _measured(evaluator, work, watch, kept)
        results.append(_result(evaluator, candidate, rows, cost, references))
        fp32_seconds += cost.fp32_seconds
    progress("evaluation", total, total)
    return Evaluation(
        provenance=dict(facts),
        model=plan.model if plan else str(facts.get("model", "")),
        weights_note=weights_note,
        scenes=tuple(scene.name for scene in scenes),
        calibration_scenes=tuple(calibration_scenes),
        executed=_describe_execution(backend, results, repeats),
        results=(_fp32_result(subject, references, fp32_seconds, scenes[0]), *results),
        plan_formats=layers_by_format(plan) if plan else {},
        predicted_damage=plan.total_damage if plan and plan.score == SKETCH else None,
    )


def _check_any(scenes: Sequence[Scene]) -> None:
    if not scenes:
        raise InputError(
            f"no evaluation scenes: give more photographs with {setting('images')}, or {setting('scenes', 'synthetic')}"
        )


def _told(options: Options | None, executions: Mapping[str, str]) -> Options:
    return replace(options or Options(), executions=executions)


def check_runs(backend: Backend, subject: Subject, plan: Plan | None, options: Options | None) -> None:
    """Refuse a plan that a backend does not run, before anything is quantised.

    Raises:
        InputError: a linear layer is in another format, and converting it was not asked for, or as `Backend.check`.
    """
    backend.check(subject)
    if plan is None or (options and options.convert):
        return
    refused = [
        layer.name
        for layer in subject.layers
        if layer.kind == "linear"
        and is_whole(plan.executions.get(layer.name))
        and not backend.runs(plan.formats[layer.name], layer.kind)
    ]
    if refused:
        key = plan.formats[refused[0]]
        raise InputError(not_run(backend.key, len(refused), refused[0], key))


def _describe_execution(backend: Backend, results: Sequence[SchemeResult], repeats: int) -> str:
    """What was timed, with its kernels; without repeats nothing, and how to have some."""
    if not repeats:
        return f"nothing; give {setting('repeats', 3)} to time"
    reference = BACKENDS[REFERENCE].describe()
    if backend.key == REFERENCE:
        return reference
    kernels = next((str(result.execution["kernels"]) for result in results if result.execution), backend.describe())
    return f"the plan and {PER_CHANNEL}: {kernels}. The other schemes: {reference}"


class CandidateWork(NamedTuple):
    """What is to be done about a candidate.

    Attributes:
        place: its number among the candidates.
        candidate: itself.
        backend: that executes it.
        options: of the backend.
        repeats: timed ones.
        step: called before every pass.
    """

    place: int
    candidate: Candidate
    backend: Backend
    options: Options
    repeats: int
    step: Callable[[], None]


def _measured(evaluator: Evaluator, work: CandidateWork, watch: Watch, kept: Kept) -> tuple[list[SceneRow], Cost]:
    """What a candidate does on every scene, and what it takes; what is kept is not measured again."""
    candidate, subject = work.candidate, evaluator.subject
    done = {number: kept.scene(work.place, number) for number in range(len(evaluator.scenes))}
    rows = {number: row for number, row in done.items() if row is not None}
    cost = kept.cost(work.place)
    for row in rows.values():
        work.step()
        watch.restore(candidate.key, row.watched)
    if len(rows) < len(evaluator.scenes) or cost is None:
        weights = candidate.weights(subject)
        with packed_with(subject, weights, candidate.keep):
            prepared = work.backend.prepare(subject, work.options)
            with prepared.running():
                for number in sorted(set(done) - set(rows)):
                    work.step()
                    rows[number] = _seen(evaluator, candidate.key, number, watch)
                    kept.save_scene(work.place, number, rows[number])
        if cost is None:
            cost = _cost(evaluator, work, weights, prepared)
            kept.save_cost(work.place, cost)
    return [rows[number] for number in sorted(rows)], cost


def _seen(evaluator: Evaluator, key: str, number: int, watch: Watch) -> SceneRow:
    """What the packed model puts out on a scene, compared."""
    outputs = evaluator.subject.predict(evaluator.scenes[number])
    watch(key, number, outputs)
    compared = compare_outputs(evaluator.references[number], outputs)
    return SceneRow(compared, evaluator.figures(number, outputs), {} if number else watch.kept(key))


def _cost(
    evaluator: Evaluator, work: CandidateWork, weights: Mapping[str, QuantizedTensor], prepared: Prepared
) -> Cost:
    """Bytes and seconds of a candidate."""
    subject, keep, scene = evaluator.subject, work.candidate.keep, evaluator.scenes[0]
    running = partial(_running, subject, weights, keep, prepared)
    is_own = prepared.execution.backend != REFERENCE
    gives = any(weights[layer.name].bias is not None for layer in without_bias(subject.model, subject.layers))
    times = _timed(subject, running, scene, work.repeats, work.step, is_own)
    return Cost(
        size_bytes=overhead_bytes(subject, keep, gives_biases=gives) + sum(q.nbytes for q in weights.values()),
        fp32_seconds=times.fp32,
        own_seconds=times.own,
        bfloat16_seconds=times.bfloat16,
        execution=asdict(prepared.execution) if is_own else {},
        stages=dict(_stages(subject, running, scene)) if is_own and work.repeats and prepared.has_stages else {},
        memory_bytes=_memory(subject, running, scene, prepared) if work.repeats else None,
    )


def _result(
    evaluator: Evaluator, candidate: Candidate, rows: Sequence[SceneRow], cost: Cost, fp32: MeasuredDamage
) -> SchemeResult:
    """A candidate's row, of what was measured."""
    per_scene = tuple(evaluator.damage({name: m.nmse for name, m in row.metrics.items()}) for row in rows)
    figures = [row.figures for row in rows]
    return SchemeResult(
        key=candidate.key,
        title=candidate.title,
        size_bytes=cost.size_bytes,
        seconds=_median(cost.own_seconds),
        seconds_spread=_spread(cost.own_seconds),
        speed_ratio=_ratio(cost.fp32_seconds, cost.own_seconds),
        outputs=average([row.metrics for row in rows]),
        damage=math.fsum(per_scene) / len(per_scene),
        per_scene=per_scene,
        geometry=over_scenes(figures, SEED),
        changes=cost_over_scenes(fp32.figures, figures, SEED),
        execution=cost.execution,
        memory_bytes=cost.memory_bytes,
        bfloat16_ratio=_ratio(cost.bfloat16_seconds, cost.own_seconds) if cost.bfloat16_seconds else None,
        stages=cost.stages,
    )


def _memory(
    subject: Subject, running: Callable[[], AbstractContextManager[None]], scene: Scene, prepared: Prepared
) -> int:
    """Weights in memory as the packed model holds them, and what a pass holds at its fullest moment."""
    others = KEPT_BYTES * (subject.parameters - sum(layer.weights for layer in subject.layers))
    with running():
        return others + prepared.execution.weight_bytes + held_bytes(subject, scene)


@contextmanager
def _running(subject: Subject, weights: Mapping[str, QuantizedTensor], keep: str, prepared: Prepared) -> Iterator[None]:
    """Packed and executed as prepared."""
    with packed_with(subject, weights, keep), prepared.running():
        yield


def _stages(subject: Subject, running: Callable[[], AbstractContextManager[None]], scene: Scene) -> Stages:
    """Seconds of one pass by stage, in FP32 and as executed."""
    with clocked(subject) as fp32:
        _seconds(subject, scene)
    with running(), clocked(subject) as own:
        _seconds(subject, scene)
    return {stage: (fp32[stage], own[stage]) for stage in fp32}


def _fp32_result(subject: Subject, fp32: MeasuredDamage, seconds: Sequence[float], scene: Scene) -> SchemeResult:
    """The reference's row; its size is that of a file with everything in FP32."""
    return SchemeResult(
        key=FP32,
        title="FP32",
        size_bytes=fp32_bytes(subject),
        seconds=_median(seconds),
        seconds_spread=_spread(seconds),
        speed_ratio=1.0 if seconds else None,
        outputs={},
        damage=0.0,
        per_scene=(0.0,) * len(fp32.per_scene),
        geometry=fp32.geometry,
        memory_bytes=KEPT_BYTES * subject.parameters + held_bytes(subject, scene) if seconds else None,
    )


class Times(NamedTuple):
    """Seconds, repeat by repeat.

    Attributes:
        fp32: of FP32.
        own: of the scheme.
        bfloat16: of FP32's weights with the trunk in bfloat16; empty where nobody asks.
    """

    fp32: list[float]
    own: list[float]
    bfloat16: list[float]


def _timed(
    subject: Subject,
    running: Callable[[], AbstractContextManager[None]],
    scene: Scene,
    repeats: int,
    step: Callable[[], None],
    with_bfloat16: bool,
) -> Times:
    """Times of a scheme and of what it is compared with, in turn."""
    times = Times([], [], [])
    for _ in range(repeats + 1 if repeats else 0):
        step()
        times.fp32.append(_seconds(subject, scene))
        if with_bfloat16:
            with subject.computing_in(torch.bfloat16):
                times.bfloat16.append(_seconds(subject, scene))
        with running():
            times.own.append(_seconds(subject, scene))
    return Times(*(seconds[1:] for seconds in times))  # without the warm-up


def _ratio(others: Sequence[float], own: Sequence[float]) -> float | None:
    """Median over the repeats."""
    return _median([other / seconds for other, seconds in zip(others, own, strict=True)])


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _spread(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None


@torch.no_grad()
def _seconds(subject: Subject, scene: Scene) -> float:
    """Time of one pass, with the device's queue empty before and after."""
    call = subject.arguments(scene, subject.device)
    wait_for(subject.device)
    start = time.perf_counter()
    subject.call(call)
    wait_for(subject.device)
    return time.perf_counter() - start
