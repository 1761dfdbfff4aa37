"""End-to-end evaluation: FP32, the uniform schemes and a plan, on scenes that the plan was not made from."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from analysis.compare import OutputMetrics, average, compare_outputs
from analysis.results import Evaluation, SchemeResult
from errors import InputError
from mixedprec import Assignment, Plan, overhead_bytes, packed, uniform_assignment
from mixedprec.planner import layers_by_format
from quant import UNIFORM_SCHEMES, find_layers, get_format, quantize_layer
from scenes import Scene
from sensitivity.provenance import Progress, silent
from sensitivity.survey import run

FP32, PLAN = "fp32", "plan"
EXECUTED = (
    "packed weights in memory, each layer's weight dequantised to FP32 right before it runs, FP32 kernels of torch; "
    "no integer kernels, so no speed-up is to be expected"
)


@dataclass(frozen=True)
class Candidate:
    """Something to evaluate: a name and a format for every layer."""

    key: str
    title: str
    assignment: Assignment
    keep: str


def candidates(model: nn.Module, plan: Plan | None) -> list[Candidate]:
    """FP32, the seven uniform schemes and the plan, in this order."""
    layers = find_layers(model)
    found = [Candidate(FP32, "FP32", uniform_assignment(layers, FP32), FP32)]
    keep = plan.keep if plan else "fp16"
    found += [Candidate(k, get_format(k).title, uniform_assignment(layers, k), keep) for k in UNIFORM_SCHEMES]
    if plan:
        found.append(Candidate(PLAN, f"plan ({plan.policy})", dict(plan.formats), plan.keep))
    return found


def evaluate(
    model: nn.Module,
    scenes: Sequence[Scene],
    plan: Plan | None,
    *,
    facts: Mapping[str, object],
    weights_note: str,
    calibration_scenes: Sequence[str] = (),
    repeats: int = 3,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate every candidate on every scene, packed as its checkpoint would run.

    Args:
        model: the FP32 model in eval mode; unchanged afterwards.
        scenes: evaluation scenes.
        plan: made for this model; None to evaluate the uniform schemes alone.
        facts: provenance for the reports.
        weights_note: where the weights come from, for titles.
        calibration_scenes: names of the scenes that the plan was made from.
        repeats: timed repeats after one warm-up, each next to one of FP32; 0 leaves out timing.
        progress: told about every step.

    Raises:
        InputError: no scenes, or the plan does not fit the model.
    """
    if not scenes:
        raise InputError("no evaluation scenes: give more photographs with --images, or --scenes synthetic")
    todo = candidates(model, plan)
    references = [_outputs(model, scene) for scene in scenes]
    results = []
    for number, candidate in enumerate(todo):
        progress(f"evaluating {candidate.title}", number, len(todo))
        results.append(_evaluate(model, candidate, scenes, references))
    if repeats:
        results = _timed(model, todo, results, scenes[0], repeats, progress)
    progress("evaluation", len(todo), len(todo))
    return Evaluation(
        provenance=dict(facts),
        model=plan.model if plan else str(facts.get("model", "")),
        weights_note=weights_note,
        scenes=tuple(scene.name for scene in scenes),
        calibration_scenes=tuple(calibration_scenes),
        executed=EXECUTED,
        results=tuple(results),
        plan_formats=layers_by_format(plan) if plan else {},
        predicted_damage=plan.total_damage if plan else None,
    )


def file_bytes(model: nn.Module, candidate: Candidate) -> int:
    """Bytes of the checkpoint file that `mixedprec.save_quantized` writes for a candidate."""
    layers = (quantize_layer(model.get_submodule(name), key, name).nbytes for name, key in candidate.assignment.items())
    return overhead_bytes(model, candidate.keep) + sum(layers)


def damage_of(metrics: Mapping[str, OutputMetrics]) -> float:
    """Mean NMSE over the outputs; what plans are made to keep small."""
    return math.fsum(m.nmse for m in metrics.values()) / len(metrics)


def _evaluate(
    model: nn.Module, candidate: Candidate, scenes: Sequence[Scene], references: Sequence[dict[str, Tensor]]
) -> SchemeResult:
    size = file_bytes(model, candidate)
    if candidate.key == FP32:
        return SchemeResult(FP32, candidate.title, size, None, None, None, {}, 0.0, (0.0,) * len(scenes))
    with _as(model, candidate):
        compared = [
            compare_outputs(reference, _outputs(model, scene))
            for scene, reference in zip(scenes, references, strict=True)
        ]
    per_scene = tuple(damage_of(metrics) for metrics in compared)
    mean = math.fsum(per_scene) / len(per_scene)
    return SchemeResult(candidate.key, candidate.title, size, None, None, None, average(compared), mean, per_scene)


def _timed(
    model: nn.Module,
    todo: Sequence[Candidate],
    results: Sequence[SchemeResult],
    scene: Scene,
    repeats: int,
    progress: Progress,
) -> list[SchemeResult]:
    """Add times: each repeat of a scheme stands between two of FP32's, so that a drifting machine cancels out."""
    timed = []
    for number, (candidate, result) in enumerate(zip(todo, results, strict=True)):
        progress(f"timing {candidate.title}", number, len(todo))
        seconds, ratios = [], []
        for repeat in range(repeats + 1):  # the first is the warm-up
            before = _seconds(model, scene)
            with _as(model, candidate):
                taken = _seconds(model, scene)
            if repeat:
                seconds.append(taken)
                ratios.append(before / taken)
        spread = (min(seconds), max(seconds))
        ratio = 1.0 if candidate.key == FP32 else statistics.median(ratios)
        timed.append(replace(result, seconds=statistics.median(seconds), seconds_spread=spread, speed_ratio=ratio))
    return timed


def _as(model: nn.Module, candidate: Candidate) -> AbstractContextManager[object]:
    return nullcontext() if candidate.key == FP32 else packed(model, candidate.assignment, candidate.keep)


@torch.no_grad()
def _outputs(model: nn.Module, scene: Scene) -> dict[str, Tensor]:
    return {name: value.float().cpu() for name, value in run(model, scene).items()}


@torch.no_grad()
def _seconds(model: nn.Module, scene: Scene) -> float:
    """Time of one pass, with the device's queue empty before and after."""
    device = next(model.buffers()).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run(model, scene)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
