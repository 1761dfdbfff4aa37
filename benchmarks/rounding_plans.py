"""Is a plan made after rounding better than one made for the nearest and then rounded? JSON on the last line.

Run: ``python benchmarks/rounding_plans.py [--scenes 8] [--held-out 8]``. The bundled network, rendered rooms: profiled
and calibrated on some, measured on others (NMSE of the outputs against FP32, averaged over outputs and scenes). Plans
at the bytes of INT4 groups of 128 and at shares of them, made for the nearest or for what ``gptq`` leaves, rounded in
several ways; and uniform INT4 groups of 128 and INT3 groups of 64. The last plan of a share is made again for what
``joint_descent`` leaves of each layer's damage on the rooms that ``plan --best-of`` selects on. Damage is also measured
on further rooms (``others``; the mean and the ends of its 95 % interval). A quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.evaluation.evaluator import Evaluator
from analysis.steps.selection import SELECT_SCENES
from benchmarks.rounding import AT, measured
from mixedprec import Evidence, parse_request, planned, uniform_assignment
from mixedprec.planner import uniform_sizes
from mixedprec.rounding import rounded_weights
from sensitivity import open_profile, profile
from sensitivity.moments import Moments, input_moments, output_moments
from sensitivity.output_factors import output_factors
from sensitivity.rounding_gain import CALIBRATED
from sensitivity.rounding_left import damage_left
from vggtkit.core.provenance import provenance
from vggtkit.metrics.geometry import bootstrap_interval
from vggtkit.model import load_vggt, model_fingerprint
from vggtkit.quant import QuantizedTensor
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.scenes import Scene, SceneSource, fingerprint, load_scenes
from vggtkit.subject import Subject, subject_of

SHARES = (1.0, 0.75)
WAYS = ("descent", "output_descent", "gptq", "gptq_bias", "output_gptq", "joint_descent")
AGAIN = "joint_descent"
UNIFORM = (AT, "int3_group_64")
MAKE: dict[str, Callable[..., Moments]] = {
    "inputs": input_moments, "gradients": output_moments, "factors": output_factors
}  # fmt: skip


class Bench:
    """The network, its calibration, and how an assignment is measured.

    Args:
        scenes: to profile and calibrate with.
        held_out: to measure on.
        others: to measure the damage on as well.
    """

    def __init__(self, scenes: int, held_out: int, others: int) -> None:
        self.subject: Subject = subject_of(load_vggt("tiny"))
        known = self._scenes("calibration", scenes + SELECT_SCENES)
        judging = self._scenes("evaluation", held_out + others)
        self.calibration, self.selection = known[:scenes], known[scenes:]
        self.evaluator = Evaluator(self.subject, judging[:held_out])
        self.others = Evaluator(self.subject, judging[held_out:]) if others else None
        self.seconds: dict[str, float] = {}
        self.moments: dict[str, Moments | None] = {"": None}
        self.weights: Mapping[str, QuantizedTensor] = {}

    def known(self, needs: str) -> Moments | None:
        """What a rounding must know, made when it is first asked for."""
        if needs not in self.moments:
            begun = time.process_time()
            self.moments[needs] = MAKE[needs](self.subject, self.subject.layers, self.calibration)
            self.seconds[needs] = round(time.process_time() - begun, 1)
        return self.moments[needs]

    def _scenes(self, split: Any, count: int) -> list[Scene]:  # noqa: ANN401
        img_size, patch_size = self.subject.picture_sizes
        source = SceneSource("synthetic", None, count=count)
        return load_scenes(source, split, img_size=img_size, patch_size=patch_size)

    def evidence(self, folder: Path) -> Evidence:
        """Of a profile that captures one scheme alone; what plans are made from is all there."""
        facts = provenance(
            model="tiny", weights="trained", config=self.subject.description(), parameters=self.subject.parameters,
            model_fingerprint=model_fingerprint(self.subject.model), seed=0,
            scene_fingerprint=fingerprint(self.calibration), scenes=[scene.name for scene in self.calibration],
        )  # fmt: skip
        if (folder / "profile.h5").is_file():
            return Evidence.of(open_profile(folder / "profile.h5"))
        begun = time.process_time()
        made = profile(
            self.subject, self.calibration, folder / "profile.h5", facts=facts, schemes=("int8_per_channel_sym",),
            activation_bytes=5 * 10**7, calibrates=True,
        )  # fmt: skip
        self.seconds["profile"] = round(time.process_time() - begun, 1)
        return Evidence.of(made)

    def measure(self, assignment: Mapping[str, str], key: str) -> dict[str, Any]:
        """Damage and figures of an assignment rounded in some way, and the seconds of rounding it."""
        rounding = ROUNDINGS[key]
        moments, begun = self.known(rounding.needs), time.process_time()
        self.weights = rounded_weights(self.subject, assignment, rounding, moments).weights
        seconds = round(time.process_time() - begun, 1)
        return {**measured(self.evaluator, self.weights), **self._on_others(), "seconds": seconds}

    def _on_others(self) -> dict[str, list[float]]:
        if self.others is None:
            return {}
        per_scene = self.others.measure_weights(self.weights).per_scene
        return {"others": [sum(per_scene) / len(per_scene), *bootstrap_interval(per_scene, 0)]}

    def again(self, source: Evidence, share: float, room: int, formats: Mapping[str, str]) -> dict[str, Any]:
        """The row of a plan made for what `AGAIN` leaves of these formats, which it rounded last."""
        begun = time.process_time()
        left = damage_left(self.subject, self.subject.layers, self.selection, self.weights, source.shares())
        seconds = round(time.process_time() - begun, 1)
        request = parse_request(f"{int(share * room)}B", policy="optimal")
        plan = planned(source.corrected(formats, left), self.subject, request).plan
        return {
            "share": share, "made_for": f"what {AGAIN} leaves", "policy": "optimal", "predicted": plan.total_damage,
            "size_bytes": plan.size_bytes, "seconds": seconds, AGAIN: self.measure(plan.formats, AGAIN),
        }  # fmt: skip


def compare(
    bench: Bench, folder: Path, shares: Sequence[float], ways: Sequence[str], uniforms: Sequence[str]
) -> dict[str, Any]:
    """Plans made for either, and uniform formats, in every way of rounding."""
    uniform: dict[str, dict[str, Any]] = {}
    ways = sorted(ways, key=AGAIN.__eq__)  # it is last
    evidence = bench.evidence(folder)
    made_for = {"nearest": evidence, CALIBRATED: evidence.rounded(CALIBRATED)}
    full = planned(evidence, bench.subject, parse_request(AT))
    room = uniform_sizes(full, [AT])[AT]
    plans: list[dict[str, Any]] = []
    for share in shares:
        for name, source in made_for.items():
            for policy in ("joint", "optimal"):
                plan = planned(source, bench.subject, parse_request(f"{int(share * room)}B", policy=policy)).plan
                row: dict[str, Any] = {
                    "share": share, "made_for": name, "policy": policy, "predicted": plan.total_damage,
                    "size_bytes": plan.size_bytes,
                }  # fmt: skip
                whole = (name, policy) == (CALIBRATED, "optimal")
                for key in ways if whole else WAYS[:1] if WAYS[0] in ways else ():
                    row[key] = bench.measure(plan.formats, key)
                plans.append(row)
                print(row, file=sys.stderr, flush=True)
        if AGAIN in ways:
            plans.append(bench.again(source, share, room, plan.formats))
            print(plans[-1], file=sys.stderr, flush=True)
    for key in uniforms:
        column = evidence.column(key)
        uniform[key] = {
            "predicted": {name: float(source.total_damage[:, column].sum()) for name, source in made_for.items()}
        }
        for way in ways:
            uniform[key][way] = bench.measure(uniform_assignment(bench.subject.layers, key), way)
            print(key, way, uniform[key][way], file=sys.stderr)
    return {"room": room, "plans": plans, "uniform": uniform, "seconds": bench.seconds}


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--held-out", type=int, default=8)
    parser.add_argument("--others", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="of a profile that is there, of the very scenes, or that is made")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--uniform", nargs="*", choices=UNIFORM, default=UNIFORM)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(arguments.scenes, arguments.held_out, arguments.others)
    with tempfile.TemporaryDirectory() as folder:
        into = arguments.folder or Path(folder)
        result = compare(bench, into, arguments.shares, arguments.ways, arguments.uniform)
    asked = {
        "calibration": arguments.scenes, "selection": SELECT_SCENES, "held_out": arguments.held_out,
        "others": arguments.others,
    }  # fmt: skip
    print(json.dumps({"scenes": asked, "threads": 1, "machine": platform.machine(), **result}))


if __name__ == "__main__":
    main()
