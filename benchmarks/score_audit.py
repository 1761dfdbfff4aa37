"""Which cheap score predicts damage, what do its plans cost, and how fast is true damage? JSON on the last line.

Run: ``python benchmarks/score_audit.py [--run DIR] [--scenes 3]``. Profiles the bundled network where the run has no
profile yet, compares every score with true damage on held-out scenes (`analysis.audit`), and times measuring true
damage against running the whole model for every pair of layer and format.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.audit import audit_summary
from analysis.evaluation.results import null_if_not_finite
from analysis.steps import PROFILE, make_audit, make_profile
from analysis.steps.run_folder import scenes_for, subject_of_run
from sensitivity import open_profile
from sensitivity.damage import ROWS_AT_A_TIME, true_damage
from vggtkit.core.executors.choosing import AT_MOST
from vggtkit.metrics.tensors import nmse
from vggtkit.quant import Layer, dequantize_layer, quantize_layer, replaced_weights
from vggtkit.scenes import Scene, SceneSource
from vggtkit.subject import Subject

CALIBRATION = 8
"""Scenes to profile, as many as `profile` takes by default."""
TIMED_EVERY, WHOLE_EVERY = 4, 3
"""Of so many layers one is timed, and of these one by whole passes; evenly spread over the model."""
ROUNDS = 3
WAYS = WHOLE, EXACT, FAST = "whole passes", "resumed, bit for bit", "resumed, side by side"
Timed = tuple[float, dict[str, np.ndarray]]
LOCAL = ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf")


def score_audit(folder: Path, scenes: int) -> dict[str, object]:
    """Everything that the audit says, and the times."""
    start = time.perf_counter()
    if not (folder / PROFILE).is_file():
        source = SceneSource(count=CALIBRATION)
        make_profile(folder, "tiny", "pretrained", source, probes=4, disk_budget="40MB", device="cpu", seed=0)
    profiled = time.perf_counter()
    audit = make_audit(
        folder, lambda source: dataclasses.replace(source, count=scenes), with_stability=True, device="cpu"
    )
    audited = time.perf_counter()
    return {
        **audit_summary(audit),
        "speed": speed(folder),
        "seconds": {"profile": profiled - start, "audit": audited - profiled},
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def speed(folder: Path) -> dict[str, object]:
    """Seconds per pair, whole passes against `true_damage`, and whether they agree.

    Three settings: one thread, one process that uses all cores by threads, as torch does by default, and several
    processes with a part of the threads each, as the audit does. Wall time, so nothing else should run meanwhile;
    medians of rounds that take the ways in turn, each in processes of its own, as what ran before decides how much
    memory the C library keeps. Starting processes, a few seconds once in an audit, is not in it.
    """
    cores = torch.get_num_threads()
    shares = min(cores, AT_MOST)
    by_threads, by_processes = (f"{cores} threads", f"{shares} processes") if cores > 1 else ("1 thread", "1 thread")
    settings = {"1 thread": (1, 1), by_threads: (1, cores), by_processes: (shares, cores // shares)}
    by_setting: dict[str, object] = {}
    medians: dict[str, dict[str, float]] = {}
    for setting, (processes, threads) in settings.items():
        rounds = []
        for _ in range(ROUNDS):
            runs = {way: _alone(way, processes, threads, folder) for way in WAYS}
            rounds.append({way: seconds for way, (seconds, _) in runs.items()})
        seconds = medians[setting] = {way: float(np.median([one[way] for one in rounds])) for way in WAYS}
        by_setting[setting] = {
            "seconds_per_pair": seconds,
            "times_faster": {way: seconds[WHOLE] / seconds[way] for way in (EXACT, FAST)},
            "rounds": rounds,
        }
    whole, exact, fast = (runs[way][1] for way in WAYS)
    return by_setting | {
        "audit_times_faster_than_whole_passes_by_threads": medians[by_threads][WHOLE] / medians[by_processes][FAST],
        "every_so_many_layers": TIMED_EVERY,
        "bit_for_bit_equal": all(np.allclose(exact[name], whole[name], rtol=1e-12, atol=0) for name in whole),
        "side_by_side_largest_relative_difference": {name: _difference(fast[name], whole[name]) for name in LOCAL},
    }


def _alone(way: str, processes: int, threads: int, folder: Path) -> Timed:
    """As `timed`, in fresh processes that measure the same at the same time, each as good as any other."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [run.result() for run in [pool.submit(timed, way, threads, folder) for _ in range(processes)]]
    return float(np.mean([seconds for seconds, _ in runs])) / processes, runs[0][1]


def timed(way: str, threads: int, folder: Path) -> Timed:
    """Seconds per pair of one way, and the damage of the pairs that all ways measure."""
    torch.set_num_threads(threads)
    profile = open_profile(folder)
    subject = subject_of_run(folder, profile, "cpu")
    scene = scenes_for(subject, SceneSource.from_dict(profile.facts["scene_source"]), "evaluation")[0]
    layers = profile.layers[::TIMED_EVERY]
    # Whole passes take the same time whatever the layer and format: some of them stand for all.
    schemes = profile.schemes[::4]
    few = profile.layers[:: WHOLE_EVERY * TIMED_EVERY]
    if way == WHOLE:
        whole_passes(subject, few[:1], schemes, scene)  # warm
        start = time.perf_counter()
        whole = whole_passes(subject, few, schemes, scene)
        return (time.perf_counter() - start) / (len(few) * len(schemes)), whole
    measure = partial(
        true_damage, subject, schemes=profile.schemes, scene=scene,
        rows=1 if way == EXACT else ROWS_AT_A_TIME, exact=way == EXACT,
    )  # fmt: skip
    measure(layers[:1])  # warm
    # The recorded pass is shared by all layers of the model, not by these few.
    start = time.perf_counter()
    measure([])
    recording, start = time.perf_counter() - start, time.perf_counter()
    damage = measure(layers)
    replaying = time.perf_counter() - start - recording
    formats = len(profile.schemes)
    seconds = replaying / (len(layers) * formats) + recording / (len(profile.layers) * formats)
    columns = [profile.schemes.index(key) for key in schemes]
    return seconds, {name: values[::WHOLE_EVERY, columns].numpy() for name, values in damage.items()}


@torch.no_grad()
def whole_passes(
    subject: Subject, layers: Sequence[Layer], schemes: Sequence[str], scene: Scene
) -> dict[str, np.ndarray]:
    """True damage by running the whole model for every pair, per output ``[layers, formats]``."""
    model, reference = subject.model, subject.run(scene)
    damage = {name: np.zeros((len(layers), len(schemes))) for name in reference}
    for row, layer in enumerate(layers):
        module = model.get_submodule(layer.name)
        for column, scheme in enumerate(schemes):
            weight = dequantize_layer(quantize_layer(module, scheme, layer.name), module)
            with replaced_weights(model, {layer.name: weight}):
                outputs = subject.run(scene)
            for name, value in outputs.items():
                damage[name][row, column] = nmse(reference[name], value)
    return damage


def _difference(damages: np.ndarray, expected: np.ndarray) -> float:
    """Largest relative difference among damages above rounding."""
    there = expected > 1e-9
    return float(np.max(np.abs(damages[there] / expected[there] - 1), initial=0.0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--scenes", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(null_if_not_finite(score_audit(arguments.run or Path(temporary), arguments.scenes))))
