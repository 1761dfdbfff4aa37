"""Does calibrated rounding stand outlier channels, and other pictures than it saw? JSON on the last line.

Run: ``python benchmarks/rounding_robust.py [--photos DIR --rgbd DIR] [--scenes 8] [--held-out 8]``. The bundled network
in uniform INT4 groups of 128; damage is the NMSE of the outputs against FP32, averaged over outputs and scenes.

*Outliers*: the twin that computes the same in FP32 with 1 in 64 input channels of every pair of norm and linear layer
40 times larger. Side by side: to the nearest; plain GPTQ; scaling in the manner of AWQ; ours (`descent`, which `plan`
takes by itself, and weighed by what reaches the outputs); and ``profile --fold`` before it.
AWQ's factors are ``s = rms(x)^a`` of every input channel, a of 21 from 0 to 1 that makes ``tr(E H E^T)`` of
``E = Q(W s) / s - W`` least (Lin et al., "AWQ", MLSys 2024); they are taken to cost nothing even where they
cannot be folded.

*Travel*: calibrated on rendered rooms, on photographs of a kitchen and on a headset's recording, each judged on the
other half of every one. What of the gain over rounding to the nearest, in log, is left of that of calibrating on the
same kind.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.evaluation.evaluator import Evaluator
from mixedprec import uniform_assignment
from mixedprec.rounding import rounded_weights
from sensitivity.migration import choose_folding
from sensitivity.moments import Moments, input_moments, output_moments
from vggtkit.model import load_vggt
from vggtkit.model.folding import fold, outlier_twin
from vggtkit.quant import dequantize, from_out_first, out_first, quantize, replaced_weights, weight_of
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.scenes import Scene, SceneSource, load_scenes
from vggtkit.scenes.source import Split
from vggtkit.subject import Subject, subject_of

AT = "int4_group_128"
POWERS = [step / 20 for step in range(21)]
FOLDING_SCENES = 2


def scenes_of(subject: Subject, source: SceneSource, split: Split) -> list[Scene]:
    """Of the size that the network takes."""
    size, patch = subject.picture_sizes
    return load_scenes(source, split, img_size=size, patch_size=patch)


def damage(evaluator: Evaluator, key: str, moments: Moments | None) -> float:
    """Of the uniform format, rounded in some way."""
    subject = evaluator.subject
    rounded = rounded_weights(subject, uniform_assignment(subject.layers, AT), ROUNDINGS[key], moments)
    return evaluator.measure_weights(rounded.weights).damage


def awq_damage(evaluator: Evaluator, moments: Moments) -> float:
    """Of the uniform format, scaled in the manner of AWQ."""
    subject, values = evaluator.subject, dict[str, Tensor]()
    for layer in subject.layers:
        weight = weight_of(subject.model, layer).detach()
        matrix, known = out_first(weight, layer.kind).float(), moments.get(layer.name)
        q = dequantize(quantize(matrix, AT)) if known is None else _scaled(matrix, known)
        values[layer.name] = from_out_first(q, layer.kind).to(weight)
    with replaced_weights(subject.model, values):
        return evaluator.compare([subject.predict(scene) for scene in evaluator.scenes]).damage


def _scaled(weight: Tensor, moments: Tensor) -> Tensor:
    """``Q(W s) / s`` of the least error, of all powers."""
    matrix, best, least = weight.flatten(1), weight, math.inf
    size = moments.diagonal(dim1=1, dim2=2).mean(0).sqrt()
    size = (size / size[size > 0].log().mean().exp()).clamp_min(1e-4)
    for power in POWERS:
        factors = size**power
        values = dequantize(quantize(matrix * factors, AT)) / factors
        parts = zip((values - matrix).chunk(len(moments)), moments, strict=True)
        error = sum(float(((part @ of_part) * part).sum()) for part, of_part in parts)
        if error < least:
            best, least = values.view(weight.shape), error
    return best


def outliers(scenes: int, held_out: int) -> dict[str, Any]:
    """The network and its twin, in every way."""
    found: dict[str, Any] = {}
    for name in ("outlier twin", "bundled"):
        model = load_vggt("tiny")
        subject = subject_of(model if name == "bundled" else outlier_twin(model))
        rooms = scenes_of(subject, SceneSource("synthetic", None, count=scenes), "calibration")
        evaluator = Evaluator(subject, scenes_of(subject, SceneSource("synthetic", None, count=held_out), "evaluation"))
        moments = input_moments(subject, subject.layers, rooms)
        row = {"nearest": damage(evaluator, "nearest", None), "gptq": damage(evaluator, "gptq", moments)}
        row["awq-style scaling"] = awq_damage(evaluator, moments)
        row["descent"] = damage(evaluator, "descent", moments)
        heard = output_moments(subject, subject.layers, rooms)
        row |= {key: damage(evaluator, key, heard) for key in ("output_gptq", "output_descent")}
        fold(subject.model, choose_folding(subject, rooms[:FOLDING_SCENES]).exponents)
        folded = input_moments(subject, subject.layers, rooms)
        row |= {
            "folded, nearest": damage(evaluator, "nearest", None),
            "folded, descent": damage(evaluator, "descent", folded),
        }
        row["descent over nearest"] = row["descent"] / row["nearest"]
        found[name] = row
        print(name, row, file=sys.stderr, flush=True)
    return found


def travel(scenes: int, held_out: int, photos: str, rgbd: str) -> list[dict[str, Any]]:
    """Every kind of calibration judged on every kind of scenes."""
    subject = subject_of(load_vggt("tiny"))
    kinds = {
        "rendered rooms": SceneSource("synthetic", None, count=max(scenes, held_out)),
        "kitchen photographs": SceneSource("photos", photos, count=max(scenes, held_out)),
        "headset recording": SceneSource("rgbd", rgbd, count=max(scenes, held_out)),
    }
    moments = {}
    for name, source in kinds.items():
        chosen = scenes_of(subject, source, "calibration")[:scenes]
        moments[name] = len(chosen), input_moments(subject, subject.layers, chosen)
    rows = []
    for to, source in kinds.items():
        evaluator = Evaluator(subject, scenes_of(subject, source, "evaluation")[:held_out])
        nearest = damage(evaluator, "nearest", None)
        own = damage(evaluator, "gptq", moments[to][1])
        for name, (count, known) in moments.items():
            moved = own if name == to else damage(evaluator, "gptq", known)
            rows.append(
                {
                    "calibrated_on": name, "calibration_scenes": count, "judged_on": to,
                    "scenes": len(evaluator.scenes), "nearest": nearest, "gptq": moved,
                    "share_of_the_gain": _log(nearest, moved) / _log(nearest, own),
                }
            )  # fmt: skip
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _log(before: float, after: float) -> float:
    return math.log(before / after)


def least_share(rows: Sequence[dict[str, Any]]) -> float:
    """Of the gain, over all moves to another kind."""
    return min(float(row["share_of_the_gain"]) for row in rows if row["calibrated_on"] != row["judged_on"])


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos")
    parser.add_argument("--rgbd", help="without these two only outliers")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--held-out", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    result: dict[str, Any] = {"format": AT, "outliers": outliers(given.scenes, given.held_out)}
    if given.photos and given.rgbd:
        moves = travel(given.scenes, given.held_out, given.photos, given.rgbd)
        result |= {"travel": moves, "least_share_of_the_gain": least_share(moves)}
    asked = {"calibration": given.scenes, "held_out": given.held_out}
    seconds = round(time.process_time() - begun, 1)
    print(json.dumps({"scenes": asked, "processor_seconds": seconds, "machine": platform.machine(), **result}))


if __name__ == "__main__":
    main()
