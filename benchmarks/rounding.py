"""What does calibrated rounding bring at the same bytes? JSON on the last line.

Run: ``python benchmarks/rounding.py [--scenes 8] [--held-out 8]``. Every way of rounding, on the bundled network: in
uniform formats and in the plan at the bytes of INT4 groups of 128 and at 75 % of them. Calibrated on rendered rooms,
measured on others: NMSE of the outputs against FP32, averaged over outputs and scenes. About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.evaluation.evaluator import Evaluator
from analysis.steps import PROFILE, make_profile
from mixedprec import Evidence, packed_with, parse_request, planned, uniform_assignment
from mixedprec.planner import uniform_sizes
from mixedprec.rounding import rounded_weights
from sensitivity import open_profile
from sensitivity.moments import Moments, input_moments, output_moments
from vggtkit.model import load_vggt
from vggtkit.quant import QuantizedTensor
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.scenes import SceneSource, load_scenes
from vggtkit.subject import subject_of

AT = "int4_group_128"
UNIFORM = (AT, "int3_group_64", "int4_two_level_64", "int3_two_level_16")
SHARE = 0.75


def measured(evaluator: Evaluator, weights: Mapping[str, QuantizedTensor]) -> dict[str, Any]:
    """What packed weights do on the held-out scenes."""
    with packed_with(evaluator.subject.model, weights):
        outputs = [evaluator.subject.predict(scene) for scene in evaluator.scenes]
    result = evaluator.compare(outputs)
    geometry = {key: estimate.mean for key, estimate in result.geometry.items() if key in ("auc30", "abs_rel")}
    return {"damage": result.damage, **geometry}


def compare(scenes: int, held_out: int, folder: Path) -> dict[str, Any]:
    """All ways of rounding in all assignments."""
    source = SceneSource("synthetic", None, count=scenes)
    make_profile(folder, "tiny", "pretrained", source, probes=4, disk_budget="50MB", device="cpu", seed=0)
    subject = subject_of(load_vggt("tiny"))
    img_size, patch_size = subject.picture_sizes
    calibration = load_scenes(source, "calibration", img_size=img_size, patch_size=patch_size)
    evaluation = load_scenes(
        SceneSource("synthetic", None, count=held_out), "evaluation", img_size=img_size, patch_size=patch_size
    )
    seconds, begun = {}, time.perf_counter()
    by_needs: dict[str, Moments | None] = {"": None, "inputs": input_moments(subject, subject.layers, calibration)}
    seconds["input_moments"], begun = time.perf_counter() - begun, time.perf_counter()
    by_needs["gradients"] = output_moments(subject, subject.layers, calibration)
    seconds["output_moments"] = time.perf_counter() - begun
    evidence, evaluator = Evidence.of(open_profile(folder / PROFILE)), Evaluator(subject, evaluation)
    assignments = {key: uniform_assignment(subject.layers, key) for key in UNIFORM}
    full = planned(evidence, subject, parse_request(AT))
    room = uniform_sizes(full, [AT])[AT]
    less = planned(evidence, subject, parse_request(f"{int(SHARE * room)}B"))
    assignments |= {"plan": full.plan.formats, f"plan at {SHARE:.0%}": less.plan.formats}
    results: dict[str, dict[str, Any]] = {}
    for name, assignment in assignments.items():
        for key, rounding in ROUNDINGS.items():
            if rounding.needs not in by_needs:  # too slow here; `rounding_plans.py` has one of them
                continue
            begun = time.perf_counter()
            rounded = rounded_weights(subject, assignment, rounding, by_needs[rounding.needs])
            spent = time.perf_counter() - begun
            results.setdefault(name, {})[key] = {**measured(evaluator, rounded.weights), "seconds": round(spent, 1)}
            print(name, key, results[name][key], file=sys.stderr)
    return {"room": room, "seconds": seconds, "results": results, "fp32": measured_fp32(evaluator)}


def measured_fp32(evaluator: Evaluator) -> dict[str, float]:
    """The same figures of FP32."""
    geometry = evaluator.fp32().geometry
    return {key: estimate.mean for key, estimate in geometry.items() if key in ("auc30", "abs_rel")}


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--held-out", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = compare(arguments.scenes, arguments.held_out, Path(folder))
    asked = {"calibration": arguments.scenes, "held_out": arguments.held_out}
    print(json.dumps({"scenes": asked, "threads": 1, "machine": platform.machine(), **result}))


if __name__ == "__main__":
    main()
