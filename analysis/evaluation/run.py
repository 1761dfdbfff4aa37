"""End-to-end evaluation: FP32, the uniform schemes and a plan, on scenes that the plan was not made from."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from analysis.evaluation.cost import cost_over_scenes
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
from mixedprec.planner import layers_by_format
from vggtkit.core.errors import InputError
from vggtkit.core.provenance import Progress, silent
from vggtkit.metrics.depth import Alignment
from vggtkit.metrics.geometry import geometry_metrics, over_scenes
from vggtkit.metrics.outputs import OUTPUTS, OutputMetrics, average, compare_outputs
from vggtkit.model import VGGT
from vggtkit.quant import UNIFORM_SCHEMES, QuantizedTensor, find_layers, get_format, quantized_nbytes
from vggtkit.scenes import Scene

FP32, PLAN = "fp32", "plan"
EXECUTED = (
    "packed weights in memory, each layer's weight dequantised to FP32 right before it runs, FP32 kernels of torch; "
    "no integer kernels, so no speed-up is to be expected"
)
NOT_TIMED = "nothing; give --repeats 3 to time"
POINT_QUERIES = 5000  # per scene and scheme; 40 ms for all figures of 4 views of 64x64
SEED = 0  # one for all schemes: the same points are sampled and the same scenes drawn


@dataclass(frozen=True)
class Candidate:
    """Something to compare with FP32: a name and a format for every layer."""

    key: str
    title: str
    assignment: Assignment
    keep: str


@dataclass(frozen=True)
class Reference:
    """What FP32 gives on a scene: its outputs, and their geometry figures."""

    outputs: Mapping[str, Tensor]
    figures: Mapping[str, float]


Figures = Callable[[Scene, Mapping[str, Tensor]], dict[str, float]]
"""Cameras, depth, points and tracks of one scene, from its outputs."""


def candidates(model: nn.Module, plan: Plan | None) -> list[Candidate]:
    """The seven uniform schemes and the plan, in this order; all keep the rest as the plan does."""
    layers = find_layers(model)
    keep = plan.keep if plan else "fp16"
    found = [Candidate(k, get_format(k).title, uniform_assignment(layers, k), keep) for k in UNIFORM_SCHEMES]
    if plan:
        found.append(Candidate(PLAN, f"plan ({plan.policy})", dict(plan.formats), plan.keep))
    return found


def evaluate(
    model: VGGT,
    scenes: Sequence[Scene],
    plan: Plan | None,
    *,
    facts: Mapping[str, object],
    weights_note: str,
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
        model: the FP32 model in eval mode; unchanged afterwards.
        scenes: evaluation scenes.
        plan: made for this model; None to evaluate the uniform schemes alone.
        facts: provenance for the reports.
        weights_note: where the weights come from, for titles.
        calibration_scenes: names of the scenes that the plan was made from.
        repeats: timed repeats of each scheme; 0 leaves out timing.
        alignment: of depth to the truth, before its errors are taken.
        progress: told about every step.

    Raises:
        InputError: no scenes, the plan does not fit the model, or FP32 gives no finite outputs.
    """
    if not scenes:
        raise InputError("no evaluation scenes: give more photographs with --images, or --scenes synthetic")
    if plan:
        check_plan(model, plan)
    todo = candidates(model, plan)
    passes = repeats + 1 if repeats else 0
    total, done = len(scenes) + len(todo) * (len(scenes) + passes), itertools.count()

    def step(stage: str) -> None:
        progress(stage, next(done), total)

    def figures(scene: Scene, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        size = (scene.images.shape[-2], scene.images.shape[-1])
        return geometry_metrics(outputs, scene.truth, size, alignment=alignment, query_limit=POINT_QUERIES, seed=SEED)

    references = [_reference(model, scene, figures, step) for scene in scenes]
    results, fp32_seconds = [], []
    for candidate in todo:
        result, beside = _evaluate(model, candidate, scenes, references, figures, repeats, step)
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
        results=(_fp32_result(model, references, fp32_seconds), *results),
        plan_formats=layers_by_format(plan) if plan else {},
        predicted_damage=plan.total_damage if plan else None,
    )


def damage_of(metrics: Mapping[str, OutputMetrics]) -> float:
    """Mean NMSE over the outputs; what plans are made to keep small."""
    return math.fsum(m.nmse for m in metrics.values()) / len(metrics)


def _evaluate(
    model: VGGT,
    candidate: Candidate,
    scenes: Sequence[Scene],
    references: Sequence[Reference],
    figures: Figures,
    repeats: int,
    step: Callable[[str], None],
) -> tuple[SchemeResult, list[float]]:
    """What a candidate costs and gives, and the seconds of FP32 next to its own."""
    weights = quantized_weights(model, candidate.assignment, candidate.keep)
    compared, rows = [], []
    with packed_with(model, weights, candidate.keep):
        for scene, reference in zip(scenes, references, strict=True):
            step(f"evaluating {candidate.title}")
            found = predictions(model, scene)
            compared.append(compare_outputs(reference.outputs, found))
            rows.append(figures(scene, found))
    per_scene = tuple(damage_of(metrics) for metrics in compared)
    beside, seconds = _timed(model, candidate, weights, scenes[0], repeats, step)
    result = SchemeResult(
        key=candidate.key,
        title=candidate.title,
        size_bytes=overhead_bytes(model, candidate.keep) + sum(q.nbytes for q in weights.values()),
        seconds=_median(seconds),
        seconds_spread=_spread(seconds),
        speed_ratio=_median([fp32 / own for fp32, own in zip(beside, seconds, strict=True)]),
        outputs=average(compared),
        damage=math.fsum(per_scene) / len(per_scene),
        per_scene=per_scene,
        geometry=over_scenes(rows, SEED),
        changes=cost_over_scenes([reference.figures for reference in references], rows, SEED),
    )
    return result, beside


def _fp32_result(model: VGGT, references: Sequence[Reference], seconds: Sequence[float]) -> SchemeResult:
    """The reference's row; its size is that of a file with everything in FP32."""
    layers = sum(quantized_nbytes(layer.shape, FP32) for layer in find_layers(model))
    return SchemeResult(
        key=FP32,
        title="FP32",
        size_bytes=overhead_bytes(model, FP32) + layers,
        seconds=_median(seconds),
        seconds_spread=_spread(seconds),
        speed_ratio=1.0 if seconds else None,
        outputs={},
        damage=0.0,
        per_scene=(0.0,) * len(references),
        geometry=over_scenes([reference.figures for reference in references], SEED),
    )


def _timed(
    model: VGGT,
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
        fp32.append(_seconds(model, scene))
        with packed_with(model, weights, candidate.keep):
            own.append(_seconds(model, scene))
    return fp32[1:], own[1:]  # without the warm-up


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _spread(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None


@torch.no_grad()
def predictions(model: VGGT, scene: Scene) -> dict[str, Tensor]:
    """The published outputs for a scene, on the CPU in FP32; of a broken scheme they may be NaN."""
    device = model.aggregator.image_mean.device
    found = model(scene.images[None].to(device), scene.query_points[None].to(device))
    return {name: found[name].float().cpu() for name in OUTPUTS if name in found}


def _reference(model: VGGT, scene: Scene, figures: Figures, step: Callable[[str], None]) -> Reference:
    step("running FP32")
    found = predictions(model, scene)
    if broken := [name for name, value in found.items() if not bool(value.isfinite().all())]:
        raise InputError(
            f"scene {scene.name}: the FP32 model gives NaN or Inf in {broken[0]}, so there is nothing to compare with; "
            "the checkpoint is damaged, fetch or train it again"
        )
    return Reference(found, figures(scene, found))


@torch.no_grad()
def _seconds(model: VGGT, scene: Scene) -> float:
    """Time of one pass, with the device's queue empty before and after."""
    device = model.aggregator.image_mean.device
    images, points = scene.images[None].to(device), scene.query_points[None].to(device)
    _wait_for(device)
    start = time.perf_counter()
    model(images, points)
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
