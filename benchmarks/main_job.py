"""How long does the main job take, and how much better than uniform INT4 is the plan? JSON on the last line.

Run: ``python benchmarks/main_job.py [--scenes 4] [--images DIR]``. Profiles the bundled network, plans at the bytes of
uniform INT4 groups of 128 with codes chosen on the profiled scenes, and evaluates on scenes that were not profiled.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.evaluation.results_file import from_json
from analysis.steps import PROFILE, RESULTS, make_evaluation, make_plan_of_run, make_profile
from mixedprec import parse_request
from vggtkit.scenes import SceneSource


def main_job(scenes: int, images: str | None, run: Path) -> dict[str, object]:
    """Run the three steps in a folder and report seconds and damages."""
    source = SceneSource("photos" if images else "synthetic", images, count=scenes)
    seconds = {}
    start = time.perf_counter()
    make_profile(run, "tiny", "pretrained", source, probes=4, disk_budget="100MB", device="cpu", seed=0)
    seconds["profile"], start = time.perf_counter() - start, time.perf_counter()
    make_plan_of_run(run, parse_request("int4_group_128"))
    seconds["plan"], start = time.perf_counter() - start, time.perf_counter()
    make_evaluation(run, repeats=3, device="cpu")
    seconds["evaluate"] = time.perf_counter() - start
    results = {r.key: r for r in from_json((run / RESULTS).read_text()).results}
    best = min(results[key].damage for key in results if key.startswith("int4"))
    return {
        "question": "main job on the bundled network: seconds, and damage of the plan against uniform INT4",
        "scenes": scenes,
        "images": Path(images).name if images else "rendered rooms",
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "size_bytes": {key: r.size_bytes for key, r in results.items()},
        "damage": {key: r.damage for key, r in results.items()},
        "plan_over_best_int4": results["plan"].damage / best,
        "profile_bytes": (run / PROFILE).stat().st_size,
        "peak_resident_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(main_job(arguments.scenes, arguments.images, Path(folder))))
