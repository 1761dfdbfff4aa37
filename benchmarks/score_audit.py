"""Which cheap score predicts damage, what do its plans cost, and how fast is true damage? JSON on the last line.

Run: ``python benchmarks/score_audit.py [--run DIR] [--scenes 3]``. Profiles the bundled network where the run has no
profile yet, compares every score with true damage on held-out scenes (`analysis.audit`), and times measuring true
damage against running the whole model for every pair of layer and format.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.audit import summary
from analysis.results import null_if_not_finite
from analysis.steps import PROFILE, make_audit, make_profile
from analysis.steps.run_folder import model_of, scenes_for
from model import VGGT
from quant import Layer, dequantize_layer, quantize_layer, replaced_weights
from scenes import Scene, SceneSource
from sensitivity import Profile, open_profile
from sensitivity.damage import true_damage
from sensitivity.metrics import nmse
from sensitivity.survey import run

CALIBRATION = 8
"""Scenes to profile, as many as `profile` takes by default."""
TIMED_LAYERS = 24
"""Layers on which both ways are timed, evenly spread over the model."""
ROUNDS = 3
WHOLE, EXACT, FAST = "whole passes", "resumed, bit for bit", "resumed, side by side"
LOCAL = ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf")


def score_audit(folder: Path, scenes: int) -> dict[str, object]:
    """Everything that the audit says, and the times."""
    start = time.perf_counter()
    if not (folder / PROFILE).is_file():
        source = SceneSource(count=CALIBRATION)
        make_profile(folder, "tiny", "pretrained", source, probes=4, disk_budget="40MB", device="cpu", seed=0)
    profiled = time.perf_counter()
    found = make_audit(
        folder, lambda source: dataclasses.replace(source, count=scenes), with_stability=True, device="cpu"
    )
    audited = time.perf_counter()
    return {
        **summary(found),
        "speed": speed(open_profile(folder)),
        "seconds": {"profile": profiled - start, "audit": audited - profiled},
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def speed(profile: Profile) -> dict[str, object]:
    """Seconds per pair, whole passes against `true_damage`, on one thread and on all, and whether they agree.

    Wall time, so nothing else should run meanwhile; medians of rounds that take the ways in turn.
    """
    model = model_of(profile, "cpu")
    scene = scenes_for(model, SceneSource.from_dict(profile.facts["scene_source"]), "evaluation")[0]
    layers = profile.layers[:: max(1, len(profile.layers) // TIMED_LAYERS)]
    # Whole passes take the same time whatever the format, so two formats stand for all.
    columns = [0, 4]
    schemes = [profile.schemes[column] for column in columns]
    all_threads = torch.get_num_threads()
    found: dict[str, object] = {}
    try:
        for threads in sorted({1, all_threads}):
            torch.set_num_threads(threads)
            true_damage(model, layers[:1], profile.schemes, scene)  # warm
            rounds: list[dict[str, float]] = []
            for _ in range(ROUNDS):
                exact, alone = _timed(model, profile, layers, scene, {"rows": 1, "exact": True})
                fast, resumed = _timed(model, profile, layers, scene, {})
                start = time.perf_counter()
                whole = whole_passes(model, layers, schemes, scene)
                passes = (time.perf_counter() - start) / (len(layers) * len(schemes))
                rounds.append({WHOLE: passes, EXACT: alone, FAST: resumed})
            seconds = {way: float(np.median([one[way] for one in rounds])) for way in rounds[0]}
            found[f"{threads} threads" if threads > 1 else "1 thread"] = {
                "seconds_per_pair": seconds,
                "times_faster": {way: seconds[WHOLE] / seconds[way] for way in (EXACT, FAST)},
                "rounds": rounds,
            }
    finally:
        torch.set_num_threads(all_threads)
    return found | {
        "layers": len(layers),
        "bit_for_bit_equal": all(
            bool(np.allclose(exact[name][:, columns].numpy(), values, rtol=1e-12, atol=0))
            for name, values in whole.items()
        ),
        "side_by_side_largest_relative_difference": {
            name: _difference(fast[name][:, columns].numpy(), whole[name]) for name in LOCAL
        },
    }


def _timed(
    model: VGGT, profile: Profile, layers: Sequence[Layer], scene: Scene, options: dict[str, int]
) -> tuple[dict[str, torch.Tensor], float]:
    """Damage, and seconds per pair; the recorded pass is shared by all layers of the model, not by these few."""
    start = time.perf_counter()
    true_damage(model, [], profile.schemes, scene, **options)
    recording, start = time.perf_counter() - start, time.perf_counter()
    found = true_damage(model, layers, profile.schemes, scene, **options)
    replaying = time.perf_counter() - start - recording
    formats = len(profile.schemes)
    return found, replaying / (len(layers) * formats) + recording / (len(profile.layers) * formats)


@torch.no_grad()
def whole_passes(model: VGGT, layers: Sequence[Layer], schemes: Sequence[str], scene: Scene) -> dict[str, np.ndarray]:
    """True damage by running the whole model for every pair, per output ``[layers, formats]``."""
    reference = run(model, scene)
    damage = {name: np.zeros((len(layers), len(schemes))) for name in reference}
    for row, layer in enumerate(layers):
        module = model.get_submodule(layer.name)
        for column, scheme in enumerate(schemes):
            weight = dequantize_layer(quantize_layer(module, scheme, layer.name), module)
            with replaced_weights(model, {layer.name: weight}):
                outputs = run(model, scene)
            for name, value in outputs.items():
                damage[name][row, column] = nmse(reference[name], value)
    return damage


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest relative difference among damages above rounding."""
    there = expected > 1e-9
    return float(np.max(np.abs(found[there] / expected[there] - 1), initial=0.0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--scenes", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(null_if_not_finite(score_audit(arguments.run or Path(temporary), arguments.scenes))))
