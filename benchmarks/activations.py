"""What do 8-bit activations cost, and what do keeping layers in floating point and folding save? JSON on the last line.

Run: ``python benchmarks/activations.py [--scenes 3] [--held-out 8] [--every 4]``. About half an hour of one core.

Two networks: the bundled one, and its twin, which computes the same in FP32 with one in 64 channels of every pair of
norm and linear layer 40 times larger (`vggtkit.model.folding.outlier_twin`). Each is profiled on rendered rooms as it
is and folded (``profile --fold``), and planned at the bytes of uniform INT4 groups of 128 in formats that one INT8
kernel runs (``plan --execute int8 --rounding nearest``; beside it, what the plan for calibrated rounding, whose weights
do less damage, would keep in floating point). On rooms that were not profiled the plan is then run exactly
(``reference``), and in whole numbers with every layer's input rounded and with those kept in floating point that the
plan keeps. Small layers count as large ones there, since on the bundled network nearly all would run in floating point,
where it is faster.

*Truth*: the input of single layers (every fourth) of the bundled network is rounded and the network is run, on the
first scene of the profile, beside what 32 probes say of it (so many that chance alone is within 25 %). Above a floor,
below which FP32 tells nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.evaluation.evaluator import SEED, Evaluator, Outputs
from analysis.steps import PLAN, PROFILE, make_plan_of_run, make_profile
from analysis.steps.plan import Extras
from analysis.steps.plan_rounding import AUTO_ROUNDING
from analysis.steps.run_folder import FOLDING, profiled_scenes, subject_of_run
from mixedprec import Plan, load_plan, packed_with, parse_request, quantized_weights, uniform_assignment
from sensitivity import Profile, open_profile
from sensitivity.input_rounding import InputErrors, rounded_inputs
from sensitivity.jacobian_sketch import sketch_errors
from sensitivity.route import nmse_by_output
from sensitivity.weight_errors import WeightErrors
from vggtkit.metrics.geometry import bootstrap_interval
from vggtkit.model import VGGT, load_vggt
from vggtkit.model.folding import outlier_twin
from vggtkit.quant.rounding import NEAREST
from vggtkit.runtime import int8
from vggtkit.runtime.backend import RUNNABLE, Options, is_whole
from vggtkit.runtime.backends import BACKENDS
from vggtkit.scenes import SceneSource, load_scenes

AT = "int4_group_128"
HEADLINE = ("auc30", "abs_rel")
TRUTH_PROBES = 32
FLOOR, LINEAR = 1e-9, 0.1
"""NMSE above which FP32 tells what a layer does, and below which it is of first order."""


def measure_all(source: str, scenes: int, held_out: int, every: int, folder: Path) -> dict[str, Any]:
    """Everything that the question needs."""
    begun, model = time.perf_counter(), load_vggt(source)
    twin = _saved(outlier_twin(model), model, folder / "twin")
    networks = {}
    for name, place in (("bundled", source), ("twin", twin)):
        networks[name] = {
            how: _network(place, scenes, held_out, folder / f"{name}-{how}", folds)
            for how, folds in (("as_it_is", False), ("folded", True))
        }
    return {
        "question": "what 8-bit activations cost on held-out rooms, with layers kept in floating point and folded",
        "model": source,
        "scenes": scenes,
        "held_out": held_out,
        "networks": networks,
        "truth": _truth(folder / "bundled-as_it_is", every),
        "seconds": round(time.perf_counter() - begun),
        "kernel": BACKENDS["int8"].describe(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def _saved(twin: torch.nn.Module, model: VGGT, folder: Path) -> str:
    folder.mkdir()
    save_file(twin.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(model.config.to_json(), encoding="utf-8")
    return str(folder)


def _network(source: str, scenes: int, held_out: int, run: Path, folds: bool) -> dict[str, Any]:
    """Profile, plan, and measure on other rooms."""
    rooms = SceneSource("synthetic", None, count=scenes)
    begun = time.process_time()
    profile = make_profile(
        run, source, "pretrained", rooms, probes=4, disk_budget="50MB", device="cpu", seed=0, folds=folds
    )
    seconds = time.process_time() - begun
    request = parse_request(AT, formats=RUNNABLE)
    calibrated, said = (
        make_plan_of_run(run, request, extras=Extras(execute="int8", rounding=rounding)).values
        for rounding in (AUTO_ROUNDING, NEAREST)
    )
    plan, subject = load_plan(run / PLAN), subject_of_run(run, profile, "cpu")
    size, patch = subject.picture_sizes
    others = load_scenes(SceneSource("synthetic", None, count=held_out), "evaluation", img_size=size, patch_size=patch)
    evaluator = Evaluator(subject, others)
    linear = {layer.name: layer.weights for layer in subject.layers if layer.kind == "linear"}
    record = {
        "profile_processor_seconds": round(seconds, 1),
        "folded_norms": len(profile.facts.get(FOLDING) or {}),
        "kept": said["execution"]["kept"],
        "kept_share_of_linear_weights": _share(plan.executions, linear),
        "predicted": {
            "weights": plan.total_damage,
            "inputs": said["execution"]["added"],
            "inputs_if_all_were_rounded": said["execution"]["without"],
        },
        "of_calibrated": {"weights": calibrated["predicted_damage"], **calibrated["execution"]},
        "measured": _executions(evaluator, plan),
    }
    tensor = evaluator.measure(uniform_assignment(subject.layers, "int8_per_tensor_sym"))
    return record | {"int8_per_tensor_weights": tensor.damage}


def _share(executions: Mapping[str, str], weights: Mapping[str, int]) -> float:
    """Of the weights of linear layers: those whose layer keeps floating-point activations."""
    return sum(weights.get(name, 0) for name, way in executions.items() if not is_whole(way)) / sum(weights.values())


def _executions(evaluator: Evaluator, plan: Plan) -> dict[str, Any]:
    """The plan's weights run exactly, with all inputs rounded, and as the plan says."""
    subject = evaluator.subject
    weights = quantized_weights(subject, plan.formats, plan.keep)
    outputs: dict[str, list[Outputs]] = {}
    ran: dict[str, Mapping[str, int]] = {}
    with packed_with(subject, weights, plan.keep), _all_are_large():
        for name, options in (
            ("reference", None), ("int8_all_rounded", Options()), ("int8", Options(executions=plan.executions))
        ):  # fmt: skip
            ready = BACKENDS["reference" if options is None else "int8"].prepare(subject, options)
            ran[name] = ready.execution.layers
            with ready.running():
                outputs[name] = [subject.predict(scene) for scene in evaluator.scenes]
    exact = evaluator.compare(outputs["reference"])
    rows: dict[str, Any] = {}
    for name, by_scene in outputs.items():
        measured = evaluator.compare(by_scene)
        row = rows[name] = {"layers": dict(ran[name]), "damage": measured.damage}
        if name != "reference":
            errors = [nmse_by_output(a, b) for a, b in zip(outputs["reference"], by_scene, strict=True)]
            row["nmse_against_reference"] = statistics.fmean(evaluator.damage(each) for each in errors)
        for key in HEADLINE:
            changes = [a[key] - b[key] for a, b in zip(measured.figures, exact.figures, strict=True)]
            low, high = bootstrap_interval(changes, SEED)
            row[key] = measured.geometry[key].mean
            if name != "reference":
                row[f"{key}_change"] = {"mean": statistics.fmean(changes), "low": low, "high": high}
                row[f"{key}_within_noise"] = low <= 0 <= high
    return rows


@contextmanager
def _all_are_large() -> Iterator[None]:
    """Within the block no layer is too small for whole numbers."""
    names = ("LARGE_WEIGHTS", "SMALL_MODEL")
    before = {name: getattr(int8, name) for name in names}
    for name in names:
        setattr(int8, name, 0)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(int8, name, value)


def _truth(run: Path, every: int) -> dict[str, Any]:
    """Estimated beside measured damage of rounding single inputs, by activation format."""
    profile: Profile = open_profile(run / PROFILE)
    subject = subject_of_run(run, profile, "cpu")
    scene, layers = profiled_scenes(run, subject, profile)[0], subject.layers
    reference, inputs = subject.predict(scene), InputErrors(subject.model, layers)
    errors = WeightErrors(subject.model, layers, [AT])
    sketched = sketch_errors(subject, layers, errors, inputs, scene, probes=TRUTH_PROBES, seed=1).inputs
    sides = {}
    for column, key in enumerate(inputs.formats):
        rows = inputs.rows[::every]
        ratios, totals = [], []
        for row in rows:
            with rounded_inputs(subject.model, {layers[row].name: key}):
                truth = nmse_by_output(reference, subject.predict(scene))
            pairs = {name: (float(v[row, column].square().mean()), truth[name]) for name, v in sketched.items()}
            ratios += [a / b for a, b in pairs.values() if FLOOR < b < LINEAR]
            mean = [statistics.fmean(column) for column in zip(*pairs.values(), strict=True)]
            totals += [mean[0] / mean[1]] if FLOOR < mean[1] < LINEAR else []
        sides[key] = {"layers": len(rows), "by_output": _ratios(ratios), "mean_over_outputs": _ratios(totals)}
    return sides


def _ratios(ratios: list[float]) -> dict[str, float]:
    if not ratios:
        return {"pairs": 0}
    return {
        "pairs": len(ratios),
        "median": statistics.median(ratios),
        "within_a_factor_of_2": statistics.fmean(0.5 <= ratio <= 2 for ratio in ratios),
        "within_a_factor_of_3": statistics.fmean(1 / 3 <= ratio <= 3 for ratio in ratios),
        "smallest": min(ratios),
        "largest": max(ratios),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--held-out", type=int, default=8)
    parser.add_argument("--every", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure_all(asked.model, asked.scenes, asked.held_out, asked.every, Path(name))))
