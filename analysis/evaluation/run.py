"""End-to-end evaluation: FP32, the uniform schemes and a plan, on scenes that the plan was not made from."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from analysis.evaluation.cost import cost_over_scenes
from analysis.evaluation.evaluator import SEED, Evaluator, Measured
from analysis.evaluation.results import Evaluation, SchemeResult
from mixedprec import (
    Assignment,
    Plan,
    check_plan,
    overhead_bytes,
    packed_with,
    quantized_weights,
    uniform_assignment,
)
from mixedprec.evidence import SKETCH
from mixedprec.planner import layers_by_format
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.metrics.depth import Alignment
from vggtkit.metrics.geometry import over_scenes
from vggtkit.metrics.outputs import average, compare_outputs
from vggtkit.quant import UNIFORM_SCHEMES, QuantizedTensor, get_format, quantized_nbytes
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, subject_of

FP32, PLAN = "fp32", "plan"
EXECUTED = (
    "packed weights in memory, each layer's weight dequantised to FP32 right before it runs, FP32 kernels of torch; "
    "no integer kernels, so no speed-up is to be expected"
)
NOT_TIMED = "nothing; give --repeats 3 to time"


@dataclass(frozen=True)
class Candidate:
    """Something to compare with FP32: a name and a format for every layer."""

    key: str
    title: str
    assignment: Assignment
    keep: str


def candidates(subject: Subject, plan: Plan | None) -> list[Candidate]:
    """The seven uniform schemes and the plan, in this order; all keep the rest as the plan does."""
    layers = subject.layers
    keep = plan.keep if plan else "fp16"
    found = [Candidate(k, get_format(k).title, uniform_assignment(layers, k), keep) for k in UNIFORM_SCHEMES]
    if plan:
        found.append(Candidate(PLAN, f"plan ({plan.policy})", dict(plan.formats), plan.keep))
    return found


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
    alignment: Alignment = "median",
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate every candidate on every scene, packed as its checkpoint would run.

    Each candidate is quantised once; its size, its outputs and its times are those of the same packed weights.
    Times are of the first scene. After a warm-up, each repeat of a scheme stands right next to one of FP32, and
    a scheme's speed ratio is the median of the ratios of these pairs, so that a machine that slows down or
    speeds up meanwhile cancels out. FP32's own time is the median of its runs next to all the schemes.

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
        alignment: of depth to the truth, before its errors are taken.
        progress: told about every step.

    Raises:
        InputError: no scenes, the plan does not fit the model, or FP32 gives no finite outputs.
    """
    if not scenes:
        raise InputError(
            f"no evaluation scenes: give more photographs with {setting('images')}, or {setting('scenes', 'synthetic')}"
        )
    subject = subject_of(model)
    if plan:
        check_plan(subject, plan)
    todo = candidates(subject, plan)
    passes = repeats + 1 if repeats else 0
    total, done = len(scenes) + len(todo) * (len(scenes) + passes), itertools.count()

    def step(stage: str, steps: int = 1) -> None:
        for _ in range(steps):
            progress(stage, next(done), total)

    step("running FP32", len(scenes))
    evaluator = Evaluator(subject, scenes, output_weights, alignment=alignment)
    references = evaluator.fp32()
    results, fp32_seconds = [], []
    for candidate in todo:
        result, beside = _evaluate(evaluator, candidate, references, repeats, step)
        results.append(result)
        fp32_seconds += beside
    progress("evaluation", total, total)
    return Evaluation(
        provenance=dict(facts),
        model=plan.model if plan else str(facts.get("model", "")),
        weights_note=weights_note,
        scenes=tuple(scene.name for scene in scenes),
        calibration_scenes=tuple(calibration_scenes),
        executed=EXECUTED if repeats else NOT_TIMED,
        results=(_fp32_result(subject, references, fp32_seconds), *results),
        plan_formats=layers_by_format(plan) if plan else {},
        predicted_damage=plan.total_damage if plan and plan.score == SKETCH else None,
    )


def _evaluate(
    evaluator: Evaluator, candidate: Candidate, fp32: Measured, repeats: int, step: Callable[[str], None]
) -> tuple[SchemeResult, list[float]]:
    """What a candidate costs and gives, and the seconds of FP32 next to its own."""
    subject = evaluator.subject
    weights = quantized_weights(subject, candidate.assignment, candidate.keep)
    compared, rows = [], []
    with packed_with(subject, weights, candidate.keep):
        for number, scene in enumerate(evaluator.scenes):
            step(f"evaluating {candidate.title}")
            outputs = subject.predict(scene)
            compared.append(compare_outputs(evaluator.references[number], outputs))
            rows.append(evaluator.figures(number, outputs))
    per_scene = tuple(evaluator.damage({name: m.nmse for name, m in metrics.items()}) for metrics in compared)
    beside, seconds = _timed(subject, candidate, weights, evaluator.scenes[0], repeats, step)
    result = SchemeResult(
        key=candidate.key,
        title=candidate.title,
        size_bytes=overhead_bytes(subject, candidate.keep) + sum(q.nbytes for q in weights.values()),
        seconds=_median(seconds),
        seconds_spread=_spread(seconds),
        speed_ratio=_median([fp32_seconds / own for fp32_seconds, own in zip(beside, seconds, strict=True)]),
        outputs=average(compared),
        damage=math.fsum(per_scene) / len(per_scene),
        per_scene=per_scene,
        geometry=over_scenes(rows, SEED),
        changes=cost_over_scenes(fp32.figures, rows, SEED),
    )
    return result, beside


def _fp32_result(subject: Subject, fp32: Measured, seconds: Sequence[float]) -> SchemeResult:
    """The reference's row; its size is that of a file with everything in FP32."""
    layers = sum(quantized_nbytes(layer.shape, FP32) for layer in subject.layers)
    return SchemeResult(
        key=FP32,
        title="FP32",
        size_bytes=overhead_bytes(subject, FP32) + layers,
        seconds=_median(seconds),
        seconds_spread=_spread(seconds),
        speed_ratio=1.0 if seconds else None,
        outputs={},
        damage=0.0,
        per_scene=(0.0,) * len(fp32.per_scene),
        geometry=fp32.geometry,
    )


def _timed(
    subject: Subject,
    candidate: Candidate,
    weights: Mapping[str, QuantizedTensor],
    scene: Scene,
    repeats: int,
    step: Callable[[str], None],
) -> tuple[list[float], list[float]]:
    """Seconds of FP32 and of a scheme, repeat by repeat."""
    fp32, own = [], []
    for _ in range(repeats + 1 if repeats else 0):
        step(f"timing {candidate.title}")
        fp32.append(_seconds(subject, scene))
        with packed_with(subject, weights, candidate.keep):
            own.append(_seconds(subject, scene))
    return fp32[1:], own[1:]  # without the warm-up


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _spread(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None


@torch.no_grad()
def _seconds(subject: Subject, scene: Scene) -> float:
    """Time of one pass, with the device's queue empty before and after."""
    call = subject.arguments(scene, subject.device)
    _wait_for(subject.device)
    start = time.perf_counter()
    subject.call(call)
    _wait_for(subject.device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
