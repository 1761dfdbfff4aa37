"""What does tuning bring at 2.5 bits per weight, and how long does it take? JSON on the last line.

Run: ``python benchmarks/tune.py [--run DIR] [--tuning 40] [--steps 40]``. The bundled network is planned at the bytes
of 2.5 bits for every quantised weight beside what is kept in FP16, or at ``--bytes``. Its codes are chosen to the
nearest and by calibrated rounding on the profiled rooms, and the latter are tuned. All are judged on rooms that were
neither profiled, tuned nor selected on. With ``--run`` an interrupted one goes on. Seconds are of the processor, so
that other work on it does not count.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.evaluation.evaluator import Evaluator
from analysis.steps import PLAN, PROFILE, make_plan_of_run, make_profile, make_tuned
from analysis.steps.plan import Extras
from analysis.steps.rounding import weights_of
from analysis.steps.run_folder import profiled_scenes
from mixedprec import load_plan, overhead_bytes, packed_with, parse_request, quantized_weights
from mixedprec.rounding import rounded_weights
from mixedprec.tuning import QuantizedByLayer, Recipe
from sensitivity import open_profile
from sensitivity.moments import output_moments
from vggtkit.model import load_vggt
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.scenes import SceneSource, load_scenes
from vggtkit.subject import subject_of

BITS = 2.5
ROUNDING = "output_descent"
FIGURES = ("auc30", "abs_rel")


def tell(stage: str, done: int, total: int) -> None:
    """Where the work is, on standard error."""
    if done % 10 == 0:
        print(f"{time.process_time():.0f} s of the processor: {stage}, {done} of {total}", file=sys.stderr, flush=True)


def judged(evaluator: Evaluator, weights: QuantizedByLayer | None) -> dict[str, float]:
    """What packed weights do on the held-out scenes; of FP32 where there are none."""
    if weights is None:
        result = evaluator.fp32()
    else:
        with packed_with(evaluator.subject, weights):
            result = evaluator.compare([evaluator.subject.predict(scene) for scene in evaluator.scenes])
    geometry = {key: estimate.mean for key, estimate in result.geometry.items() if key in FIGURES}
    return {"damage": result.damage, **geometry}


def compare(
    run: Path, scenes: int, tuning: int, select: int, held_out: int, size: int, recipe: Recipe
) -> dict[str, Any]:
    """Plan, tune, judge."""
    source = SceneSource("synthetic", None, count=scenes)
    if not (run / PROFILE).is_file():
        make_profile(run, "tiny", "pretrained", source, probes=4, disk_budget="50MB", device="cpu", seed=0)
    subject, profile = subject_of(load_vggt("tiny")), open_profile(run / PROFILE)
    weights = sum(layer.weights for layer in subject.layers)
    room = size or int(overhead_bytes(subject) + BITS / 8 * weights)
    seconds: dict[str, float] = {}
    if not (run / PLAN).is_file():
        make_plan_of_run(run, parse_request(f"{room}B"), extras=Extras(rounding=ROUNDING), device="cpu")
    plan = load_plan(run / PLAN)
    if not plan.tuned:
        weights_of(run, plan, profile, subject)  # so that what follows is tuning alone
        begun = time.process_time()
        more = replace(source, count=tuning)
        make_tuned(run, lambda _: more, recipe=recipe, select=select, device="cpu", progress=tell)
        seconds["tuning, this process"] = time.process_time() - begun
    plan = load_plan(run / PLAN)
    img_size, patch_size = subject.picture_sizes
    evaluator = Evaluator(
        subject, load_scenes(replace(source, count=held_out), "evaluation", img_size=img_size, patch_size=patch_size)
    )
    moments = output_moments(subject, subject.layers, profiled_scenes(run, subject, profile))
    candidates: dict[str, QuantizedByLayer | None] = {
        "fp32": None,
        "nearest": quantized_weights(subject, plan.formats),
        ROUNDING: rounded_weights(subject, plan.formats, ROUNDINGS[ROUNDING], moments).weights,
        "tuned": weights_of(run, plan, profile, subject),
    }
    results = {name: judged(evaluator, own) for name, own in candidates.items()}
    counts = {"calibration": scenes, "tuning": tuning - select, "selection": select, "held_out": held_out}
    bits = 8 * sum(plan.layer_bytes.values()) / weights
    shown = ("damage_before", "damage_after_blocks", "damage_after", "steps", "stopped", "seconds", "resumed")
    return {
        "scenes": counts, "recipe": asdict(recipe), "bits_per_weight": bits, "size_bytes": plan.size_bytes,
        "processor_seconds": seconds, "tuned": {name: plan.tuned[name] for name in shown}, "results": results,
    }  # fmt: skip


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    for name, default in (("scenes", 8), ("tuning", 40), ("select", 8), ("held-out", 32), ("bytes", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, value in asdict(Recipe(steps=40)).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = parser.parse_args()
    recipe = Recipe(**{name: getattr(given, name) for name in asdict(Recipe())})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = compare(
            given.run or Path(folder), given.scenes, given.tuning, given.select, given.held_out, given.bytes, recipe
        )
    print(json.dumps({"threads": 1, "machine": platform.machine(), **result}))


if __name__ == "__main__":
    main()
