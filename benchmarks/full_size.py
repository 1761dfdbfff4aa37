"""What does a profile cost at full size, in time, memory and disk? JSON on the last line.

Run: ``python benchmarks/full_size.py --images DIR`` for VGGT-1B with random weights (the machinery does the same work
whatever the weights are) on one scene of two pictures, ``--model tiny`` for the bundled architecture in seconds.
F is the time of one plain FP32 forward pass over the same scene; profile times are given in seconds and in F.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.commands.options import scene_source
from analysis.steps import make_profile
from analysis.steps.run_folder import PROFILE, scenes_for
from vggtkit.core.memory import resident_bytes
from vggtkit.model import load_vggt
from vggtkit.quant import quantize_layer
from vggtkit.subject import Subject, open_subject

SAMPLE_SECONDS = 0.02
FORMAT = "int4_group_128"


class Meter:
    """Seconds and peak resident memory of stages, one after another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak: dict[str, int] = {}
        self.stage, self.since = "", time.perf_counter()

    def enter(self, stage: str) -> None:
        """End the stage before and begin another."""
        now = time.perf_counter()
        if self.stage:
            self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self.since
        self.stage, self.since = stage, now

    @contextmanager
    def running(self) -> Iterator[None]:
        """Memory is looked at meanwhile."""
        done = threading.Event()

        def look() -> None:
            while not done.wait(SAMPLE_SECONDS):
                self.peak[self.stage] = max(self.peak.get(self.stage, 0), resident_bytes() or 0)

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self.enter("")
            done.set()
            watcher.join()


def full_size(model_name: str, images: str | None, resolution: int | None, folder: Path) -> dict[str, object]:
    """Measure loading, a forward pass, quantising and a profile."""
    meter = Meter()
    source = scene_source(images, None, count=1, views=2, seed=0, max_images=None, resolution=resolution)
    _write_checkpoint(model_name, folder)
    with meter.running():
        meter.enter("load")
        subject = open_subject(str(folder))
        meter.enter("forward")
        scene = scenes_for(subject, source, "calibration")[0]
        with torch.no_grad():
            subject.run(scene)
            forward_seconds = min(_timed(subject.run, scene) for _ in range(2))
        meter.enter("quantise")
        quantise_seconds = _timed(_quantise_all, subject)
        weights = sum(layer.weights for layer in subject.layers)
        parameters, layers, shape = subject.parameters, len(subject.layers), list(scene.images.shape)
        del subject
        meter.enter("loading")
        profile = make_profile(
            folder, model_name, "random", source, probes=0, disk_budget="4GB", device="cpu", seed=0,
            rounding="nearest", progress=lambda stage, _done, _total: meter.enter(_stage(stage)),
            say=lambda line: print(line, flush=True),
        )  # fmt: skip
    in_profile = {
        name: value for name, value in meter.seconds.items() if name not in ("load", "forward", "quantise", "loading")
    }
    total = sum(in_profile.values())
    expected, measured = int(profile.facts["expected_peak_bytes"]), max(meter.peak.values())
    return {
        "question": "cost of a profile: seven schemes, accumulated and isolated, and damage at the outputs",
        "model": model_name,
        "weights": "random",
        "parameters": parameters,
        "layers": layers,
        "images": shape,
        "load_seconds": meter.seconds["load"],
        "load_peak_bytes": meter.peak.get("load"),
        "forward_seconds": forward_seconds,
        "profile_seconds": total,
        "profile_in_forwards": total / forward_seconds,
        "stages_in_forwards": {name: value / forward_seconds for name, value in in_profile.items()},
        "stages_in_seconds": in_profile,
        "peak_resident_bytes": meter.peak,
        "expected_peak_bytes": expected,
        "expected_over_measured": expected / measured,
        "peak_over_weights_bytes": measured - 4 * parameters,
        "profile_bytes": (folder / PROFILE).stat().st_size,
        "quantise_seconds": quantise_seconds,
        "quantised_weights_per_second": weights / quantise_seconds,
        "quantised_to": FORMAT,
        "probes": profile.facts["probes"],
        "gradient_dtype": profile.facts["gradient_dtype"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def _stage(message: str) -> str:
    """A step of the profile without its scene; the schemes together."""
    what = message.split(", scene")[0]
    if what.startswith("errors of every layer"):
        return "FP32 and isolated errors" if what.endswith("fp32") else "seven schemes, accumulated errors"
    return what


def _write_checkpoint(model_name: str, folder: Path) -> None:
    """The architecture with random weights, as a folder that ``--model`` takes."""
    model = load_vggt(model_name, weights="random")
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(model.config.to_json())


def _quantise_all(subject: Subject) -> None:
    for layer in subject.layers:
        quantize_layer(subject.model.get_submodule(layer.name), FORMAT, layer.name)


def _timed(job: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    job(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vggt-1b")
    parser.add_argument("--images")
    parser.add_argument("--resolution", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measured = full_size(arguments.model, arguments.images, arguments.resolution, Path(temporary))
        print(json.dumps(measured))
