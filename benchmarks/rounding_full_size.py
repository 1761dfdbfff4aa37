"""What does calibrated rounding cost at full size, in time and memory? JSON on the last line.

Run: ``python benchmarks/rounding_full_size.py --images DIR [--folder DIR]`` for VGGT-1B with random weights (the work
is the same whatever the weights are) on one scene of two pictures, ``--model tiny`` for the bundled architecture.
All layers of a plan made without a profile are rounded and written as a checkpoint. With ``--folder`` a stopped run
goes on, and its seconds count. Those of the processor do not depend on other work; memory is the most of a process.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.commands.options import scene_source
from analysis.steps.run_folder import scenes_for
from mixedprec import data_free, parse_request, planned, save_quantized
from mixedprec.rounding_in_passes import rounded_in_passes
from sensitivity.moments import Moments, input_moments, moment_bytes, output_moments, room_for_moments
from vggtkit.core.journal import Parts
from vggtkit.core.memory import peak_resident_bytes, resident_bytes
from vggtkit.model import load_vggt
from vggtkit.quant import Layer
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, subject_of

KINDS = ("processor", "wall")


class Clock:
    """Seconds by stage, of the processor and on the wall, in a file, so that those of a stopped run count too.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = {"processor": {}, "wall": {}, "peak_resident_bytes": 0, "passes": []}
        if path.is_file():
            self.known = json.loads(path.read_text())
        self.runs = self.known["runs"] = self.known.get("runs", 0) + 1
        self.since = time.process_time(), time.perf_counter()

    def enter(self, ended: str) -> None:
        """What passed since the last call belongs to a stage."""
        now = time.process_time(), time.perf_counter()
        for kind, before, after in zip(("processor", "wall"), self.since, now, strict=True):
            self.known[kind][ended] = self.known[kind].get(ended, 0.0) + after - before
        self.since = now
        self.known["peak_resident_bytes"] = max(self.known["peak_resident_bytes"], peak_resident_bytes())
        self.path.write_text(json.dumps(self.known))
        print(f"{now[0]:.0f} s of the processor, {(resident_bytes() or 0) / 1e9:.1f} GB: {ended}", file=sys.stderr)

    def total(self, kind: str) -> float:
        """Seconds of all stages."""
        return float(sum(self.known[kind].values()))


def full_size(
    model_name: str, images: str | None, resolution: int | None, rounding: str, budget: str, folder: Path
) -> dict[str, object]:
    """Round all layers and write them."""
    clock = Clock(folder / "seconds.json")
    subject, way = subject_of(load_vggt(model_name, weights="random")), ROUNDINGS.pick(rounding)
    source = scene_source(images, None, count=1, views=2, seed=0, max_images=None, resolution=resolution)
    scenes = scenes_for(subject, source, "calibration")
    plan = planned(data_free(model_name, subject), subject, parse_request(budget)).plan
    clock.enter("loading and planning")
    parts = Parts(folder / "model-plan.safetensors", {"formats": plan.formats, "rounding": rounding})
    resumed = len(parts.done())

    def measure(layers: Sequence[Layer]) -> Moments:
        clock.known["passes"].append(sum(moment_bytes(subject, layers).values()))
        moments = measured(subject, layers, scenes, way.needs)
        clock.enter("second moments")
        return moments

    def on_layer(_stage: str, done: int, total: int) -> None:
        clock.enter("rounding layers")
        print(f"{done} of {total} layers", file=sys.stderr)

    copies = 2 if way.needs == "gradients" else 1
    rounded = rounded_in_passes(
        subject, plan.formats, way, measure, room=partial(room_for_moments, subject, copies), parts=parts,
        progress=on_layer,
    )  # fmt: skip
    size = save_quantized(subject, plan.formats, folder / "model-plan.safetensors", rounded=rounded.weights)
    clock.enter("writing the checkpoint")
    parts.remove()
    seconds = {kind: {name: round(spent, 1) for name, spent in clock.known[kind].items()} for kind in KINDS}
    return {
        "question": "cost of rounding all layers with calibration, resumable layer by layer",
        "model": model_name, "weights": "random", "rounding": rounding, "budget": budget,
        "images": list(scenes[0].images.shape), "layers": len(plan.formats), "fell_back": dict(rounded.fell_back),
        "layers_taken_up": resumed, "size_bytes": size, "planned_bytes": plan.size_bytes,
        "moments_bytes": sum(moment_bytes(subject, subject.layers).values()),
        "moments_bytes_by_pass": clock.known["passes"],
        "runs": clock.runs, "seconds": seconds, "processor_minutes": round(clock.total("processor") / 60, 1),
        "wall_minutes": round(clock.total("wall") / 60, 1), "peak_resident_bytes": clock.known["peak_resident_bytes"],
        "threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine(),
    }  # fmt: skip


def measured(subject: Subject, layers: Sequence[Layer], scenes: Sequence[Scene], needs: str) -> Moments:
    """Second moments of some layers, of either kind."""
    if needs == "gradients":
        return output_moments(subject, subject.layers, scenes, only=layers)
    return input_moments(subject, layers, scenes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vggt-1b")
    parser.add_argument("--images")
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--rounding", default="gptq")
    parser.add_argument("--budget", default="4.2bpw")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        print(json.dumps(full_size(given.model, given.images, given.resolution, given.rounding, given.budget, folder)))
