"""Is the plan better than every other way to spend the same bytes? JSON on the last line.

Run: ``python benchmarks/planner.py [--scenes 8] [--held-out 8] [--python PATH]``. Profiles the bundled network on
rendered rooms, plans at the bytes of uniform INT4 groups of 128 and at 90% of them, and measures on rooms that were not
profiled: the plans, the seven uniform schemes, the baselines at the same bytes, and two other tools
(``benchmarks/competitors.py``, each in a process of its own; ``--python`` names the interpreter that has them, if not
this one). About five minutes on one core.

Damage is the NMSE of the outputs against FP32, averaged over outputs and scenes. Whether AUC@30 and AbsRel are within
noise of FP32's is asked scene by scene: the 95 % bootstrap interval of the mean difference must contain 0.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.evaluation.evaluator import SEED, Evaluator, MeasuredDamage
from analysis.search.swaps import refine
from analysis.steps import PROFILE, make_profile
from benchmarks.competitors import calibration_and_held_out
from mixedprec import Constraints, Evidence, Planned, Request, parse_request, planned, uniform_assignment
from mixedprec.comparison import other_assignments
from mixedprec.planner import uniform_sizes
from sensitivity import open_profile
from vggtkit.metrics.geometry import bootstrap_interval
from vggtkit.model import VGGT, load_vggt, skeleton
from vggtkit.quant import UNIFORM_SCHEMES
from vggtkit.scenes import SceneSource
from vggtkit.subject import subject_of

AT = "int4_group_128"
HEADLINE = ("auc30", "abs_rel")
TOOL_SECONDS = 300
NOT_INSTALLED = (
    "not installed here: pip install vggt-mixedprec[bench], or name an interpreter that has it with --python"
)
TRACKS = ("track", "vis", "conf")


def measure_all(scenes: int, held_out: int, swaps: int, python: str, folder: Path) -> dict[str, Any]:
    """Everything that the question needs."""
    begun = time.perf_counter()
    source = SceneSource("synthetic", None, count=scenes)
    make_profile(folder, "tiny", "pretrained", source, probes=4, disk_budget="50MB", device="cpu", seed=0)
    seconds = {"profile": time.perf_counter() - begun}
    model = load_vggt("tiny")
    evidence = Evidence.of(open_profile(folder / PROFILE))
    subject = subject_of(model, "tiny")
    calibration, evaluator = (
        Evaluator(subject, some) for some in calibration_and_held_out(model, scenes, held_out, source.seed)
    )
    begun = time.perf_counter()
    full = plan_at(evidence, model, parse_request(AT, formats="all"))
    seconds["plan"] = time.perf_counter() - begun
    budget = full.plan.budget_bytes
    begun = time.perf_counter()
    refined = refine(full, calibration, swaps).planned if swaps else full
    seconds["refine"] = time.perf_counter() - begun
    plans = {
        "plan": full,
        "plan, refined": refined,
        "plan, auto formats": plan_at(evidence, model, parse_request(AT)),
        "plan, INT8 and INT4 alone": plan_at(evidence, model, parse_request(AT, formats="int8,int4")),
        "plan at 90%": plan_at(evidence, model, parse_request(f"{int(0.9 * budget)}B", formats="all")),
    }
    fp32 = evaluator.fp32()
    rows = {
        name: row_of(evaluator.measure(candidate.plan.formats), fp32, candidate.plan.size_bytes)
        for name, candidate in plans.items()
    }
    sizes = uniform_sizes(full, UNIFORM_SCHEMES)
    for key in UNIFORM_SCHEMES:
        rows[key] = row_of(evaluator.measure(uniform_assignment(evidence.layers, key)), fp32, sizes[key])
    for name, formats in other_assignments(full).items():
        file = full.plan.overhead_bytes + sum(full.search_space.layer_bytes(formats).values())
        rows[name] = row_of(evaluator.measure(formats), fp32, file)
    tools = {
        tool: against(tool, python, evaluator, evidence, model, budget, scenes, held_out, folder)
        for tool in ("nncf", "modelopt")
    }
    return {
        "question": "is the plan better than every other way to spend the same bytes?",
        "budget_bytes": budget,
        "scenes": {"calibration": scenes, "held_out": held_out},
        "fp32": {key: fp32.geometry[key].mean for key in HEADLINE},
        "rows": rows,
        "tools": tools,
        "targets": targets(rows, tools),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "machine": platform.machine(),
    }


def plan_at(evidence: Evidence, model: VGGT, request: Request) -> Planned:
    """A plan for the network."""
    return planned(evidence, skeleton(model.config), request)


def row_of(measured: MeasuredDamage, fp32: MeasuredDamage, size_bytes: int) -> dict[str, Any]:
    """What is told of one candidate."""
    dense = [value for name, value in measured.by_output.items() if name not in TRACKS]
    record: dict[str, Any] = {
        "size_bytes": size_bytes,
        "damage": measured.damage,
        "damage_without_tracks": sum(dense) / len(dense),
    }
    for key in HEADLINE:
        changes = [row[key] - reference[key] for row, reference in zip(measured.figures, fp32.figures, strict=True)]
        low, high = bootstrap_interval(changes, SEED)
        record[key] = measured.geometry[key].mean
        record[f"{key}_change"] = {"mean": sum(changes) / len(changes), "low": low, "high": high}
        record[f"{key}_within_noise"] = low <= 0 <= high
    return record


def against(
    tool: str, python: str, evaluator: Evaluator, evidence: Evidence, model: VGGT, budget: int, scenes: int,
    held_out: int, folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """Another tool's choice, and a plan of ours with the same bytes and the same layers left alone."""
    out = folder / f"{tool}.pt"
    command = [
        python, str(Path(__file__).with_name("competitors.py")), tool, "--budget", str(budget), "--scenes", str(scenes),
        "--held-out", str(held_out), "--out", str(out),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"status": f"could not be run ({type(error).__name__})"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"status": NOT_INSTALLED if "ModuleNotFoundError" in last else f"failed: {last}"}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    formats = answer.pop("formats")
    fp32 = evaluator.fp32()
    untouched = tuple(name for name, key in formats.items() if key == "fp16")
    request = parse_request(f"{answer['size_bytes']}B", formats="all", constraints=Constraints(keep_fp=untouched))
    same_layers = plan_at(evidence, model, request)
    free = plan_at(evidence, model, replace(request, constraints=Constraints()))
    theirs = evaluator.compare(torch.load(out, weights_only=True))
    return answer | {
        "status": "ran",
        "layers_left_in_fp16": len(untouched),
        "its own arithmetic": row_of(theirs, fp32, answer["size_bytes"]),
        "its choice in our formats": row_of(evaluator.measure(formats), fp32, answer["size_bytes"]),
        "our plan, same layers": row_of(evaluator.measure(same_layers.plan.formats), fp32, same_layers.plan.size_bytes),
        "our plan, all layers": row_of(evaluator.measure(free.plan.formats), fp32, free.plan.size_bytes),
    }


def targets(rows: Mapping[str, Mapping[str, Any]], tools: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What was asked for, and whether it was reached."""
    int4 = {key: row["damage"] for key, row in rows.items() if key.startswith("int4")}
    best = min(int4.values())
    others = [key for key in rows if not key.startswith(("plan", "int8"))]
    dense = min(rows[key]["damage_without_tracks"] for key in int4)
    verdicts: dict[str, Any] = {
        "best_uniform_int4": best,
        "plan_over_best_int4": rows["plan"]["damage"] / best,
        "at_most_a_twentieth": rows["plan"]["damage"] <= best / 20,
        "refined_over_best_int4": rows["plan, refined"]["damage"] / best,
        "plan_over_best_int4_without_tracks": rows["plan"]["damage_without_tracks"] / dense,
        "auc30_within_noise": rows["plan"]["auc30_within_noise"],
        "abs_rel_within_noise": rows["plan"]["abs_rel_within_noise"],
        "better_than_every_int4_at_90_percent": rows["plan at 90%"]["damage"] < best,
        "no_baseline_wins": all(rows[key]["damage"] > rows["plan"]["damage"] for key in others),
    }
    for name, result in tools.items():
        if result["status"] != "ran":
            verdicts[f"ahead_of_{name}"] = result["status"]
            continue
        theirs = min(result[kind]["damage"] for kind in ("its own arithmetic", "its choice in our formats"))
        verdicts[f"ahead_of_{name}"] = result["our plan, same layers"]["damage"] < theirs
    return verdicts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--held-out", type=int, default=8)
    parser.add_argument("--swaps", type=int, default=16)
    parser.add_argument("--python", default=sys.executable)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(
            json.dumps(
                measure_all(arguments.scenes, arguments.held_out, arguments.swaps, arguments.python, Path(temporary))
            )
        )
