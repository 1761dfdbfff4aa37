"""What does tuning bring at 2.5 bits per weight, and how long does it take? JSON on the last line.

Run: ``python benchmarks/tune.py [--run DIR] [--tuning 64] [--steps 100]``. The bundled network is planned at the bytes
of 2.5 bits for every quantised weight beside what is kept in FP16, or at ``--bytes``. Its codes are chosen to the
nearest and by calibrated rounding on the profiled rooms, and the latter are tuned, as ``plan --rounding joint_descent``
and ``tune`` do it. All are judged on rooms that were neither profiled, tuned nor selected on, and once more on others;
what AUC@30 costs is of each room, with a 95 % interval. With ``--run`` an interrupted one goes on. Seconds are of the
processor, so that other work on it does not count.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.evaluation.cost import cost_over_scenes
from analysis.evaluation.evaluator import Evaluator
from analysis.steps import PLAN, PROFILE, make_plan_of_run, make_profile, make_tuned
from analysis.steps.plan import Extras
from analysis.steps.rounding import weights_of
from analysis.steps.run_folder import profiled_scenes
from mixedprec import load_plan, overhead_bytes, parse_request, quantized_weights
from mixedprec.rounding import rounded_weights
from mixedprec.tuning import QuantizedByLayer, Recipe
from sensitivity import open_profile
from sensitivity.output_factors import output_factors
from vggtkit.model import load_vggt
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.scenes import SceneSource, load_scenes
from vggtkit.subject import subject_of

BITS = 2.5
ROUNDING = "joint_descent"
FIGURES = ("auc30", "abs_rel")
SEED = 0


def tell(stage: str, done: int, total: int) -> None:
    """Where the work is, on standard error."""
    if done % 10 == 0:
        print(f"{time.process_time():.0f} s of the processor: {stage}, {done} of {total}", file=sys.stderr, flush=True)


def judged(evaluator: Evaluator, weights: QuantizedByLayer | None) -> dict[str, Any]:
    """What packed weights do on held-out scenes; of FP32 where there are none.

    ``cost``: figures less those of FP32, each within its scene; the mean and the ends of its interval.
    """
    exact = evaluator.fp32()
    result = exact if weights is None else evaluator.measure_weights(weights)
    geometry = {key: estimate.mean for key, estimate in result.geometry.items() if key in FIGURES}
    cost = cost_over_scenes(exact.figures, result.figures, SEED)
    return {
        "damage": result.damage, **geometry, "by_output": result.by_output,
        "cost": {key: [cost[key].mean, cost[key].low, cost[key].high] for key in FIGURES},
    }  # fmt: skip


def compare(
    run: Path, scenes: int, tuning: int, select: int, held_out: Sequence[int], size: int, recipe: Recipe
) -> dict[str, Any]:
    """Plan, tune, judge; on as many scenes in turn as ``held_out`` says."""
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
        begun = time.process_time()
        weights_of(run, plan, profile, subject)  # so that what follows is tuning alone
        seconds["rounding, this process"] = time.process_time() - begun
        begun = time.process_time()
        more = replace(source, count=tuning)
        make_tuned(run, lambda _: more, recipe=recipe, select=select, device="cpu", progress=tell)
        seconds["tuning, this process"] = time.process_time() - begun
    plan = load_plan(run / PLAN)
    moments = output_factors(subject, subject.layers, profiled_scenes(run, subject, profile))
    candidates: dict[str, QuantizedByLayer | None] = {
        "fp32": None,
        "nearest": quantized_weights(subject, plan.formats),
        ROUNDING: rounded_weights(subject, plan.formats, ROUNDINGS[ROUNDING], moments).weights,
        "tuned": weights_of(run, plan, profile, subject),
    }
    img_size, patch_size = subject.picture_sizes
    rooms = load_scenes(replace(source, count=sum(held_out)), "evaluation", img_size=img_size, patch_size=patch_size)
    results = []
    for count in held_out:
        evaluator, rooms = Evaluator(subject, rooms[:count]), rooms[count:]
        results.append({name: judged(evaluator, own) for name, own in candidates.items()})
    counts = {"calibration": scenes, "tuning": tuning - select, "selection": select, "held_out": list(held_out)}
    bits = 8 * sum(plan.layer_bytes.values()) / weights
    shown = ("damage_before", "damage_after_blocks", "damage_after", "steps", "stopped", "seconds", "resumed")
    return {
        "scenes": counts, "recipe": asdict(recipe), "bits_per_weight": bits, "size_bytes": plan.size_bytes,
        "processor_seconds": seconds, "tuned": {name: plan.tuned[name] for name in shown}, "results": results[0],
        "on_others": results[1:],
    }  # fmt: skip


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    for name, default in (("scenes", 8), ("tuning", 64), ("select", 8), ("bytes", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--held-out", type=int, nargs="+", default=(32, 64))
    for name, value in asdict(Recipe()).items():
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
