"""Is the time of a whole pass what the kernel table predicts? JSON on the last line, with the processor's name.

Run: ``python benchmarks/kernels.py [--model tiny|vggt-1b] [--repeats 5] [--threads 1] [--shares 0.8,0.9]``. A kernel
table is measured, plans are made within several shares of FP32's time, and each is run as it says, in turn with FP32.
With one thread seconds are the processor's, which other programs on the machine lengthen little; with more the wall's.
Of VGGT-1B the table is that of one block of every kind, while the passes are of the whole model with random weights
(about 6 GB of memory).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.timing.clock import now
from analysis.timing.measure import MeasuredModel, measure_kernels
from analysis.timing.shallow import shallow
from mixedprec import Plan, data_free, packed_with, parse_request, planned, quantized_weights
from vggtkit.model import load_vggt
from vggtkit.runtime.backend import Options
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.kernel_table import KernelTable, load_table, save_table
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, bare_subject, subject_of

SIZES = {"tiny": (4, 64, 64), "vggt-1b": (2, 392, 518)}
"""Pictures, height and width."""
HEADS = ("camera", "depth", "point")


def kernels(name: str, repeats: int, shares: list[float], budget: str, saved: Path | None) -> dict[str, Any]:
    """Measure a table, or read one, plan from it, and run the plans."""
    views, height, width = SIZES[name]
    images = torch.rand(views, 3, height, width, generator=torch.Generator().manual_seed(0))
    scene = Scene("noise", images, torch.zeros(0, 2))
    bare = bare_subject(name).with_heads(HEADS)
    begun, processor_begun = time.perf_counter(), time.process_time()
    table = load_table(saved) if saved and saved.is_file() else _table(name, bare, scene)
    took = [time.perf_counter() - begun, time.process_time() - processor_begun]
    if saved:
        save_table(table, saved)
    print(f"table: {took[0]:.0f} s, {took[1]:.0f} s of the processor", flush=True)
    plans = {f"{share}x": _plan(name, bare, table, share, budget) for share in shares}
    return {
        "question": "predicted against measured time of whole passes",
        "model": name, "images": list(images.shape), "heads": list(HEADS), "budget": budget,
        "table_seconds": {"wall": took[0], "processor": took[1]}, "measured_views": [one.views for one in table.passes],
        **_measured(_whole(name), scene, plans, repeats),
        "machine": dict(table.machine),
        "clock": "processor" if torch.get_num_threads() == 1 else "wall",
    }  # fmt: skip


def _table(name: str, bare: Subject, scene: Scene) -> KernelTable:
    stand_in = shallow(bare)
    if stand_in is None:
        return measure_kernels(MeasuredModel(_whole(name), {}, {}), scene, name)
    return measure_kernels(MeasuredModel(stand_in.subject, stand_in.depths, stand_in.repeats), scene, name)


def _whole(name: str) -> Subject:
    return subject_of(load_vggt(name, weights="random" if name == "vggt-1b" else "pretrained")).with_heads(HEADS)


def _plan(name: str, bare: Subject, table: KernelTable, share: float, budget: str) -> Plan:
    request = parse_request(budget, max_time=f"{share}x", formats="runnable", views=table.views)
    assert request.conditions is not None
    request = replace(request, heads=HEADS, conditions=replace(request.conditions, table=table))
    return planned(data_free(name, bare), bare, request).plan


@torch.no_grad()
def _measured(subject: Subject, scene: Scene, plans: dict[str, Plan], repeats: int) -> dict[str, Any]:
    """The least seconds of FP32 and of every plan, in turn, beside what was predicted.

    Of two passes in a row the second counts: the first finds caches and memory as another way left them, which is not
    how a model runs that is in use, nor what tables are made of.
    """
    prepared = {}
    for key, plan in plans.items():
        weights = quantized_weights(subject, plan.formats)
        with packed_with(subject, weights):
            prepared[key] = weights, BACKENDS["int8"].prepare(subject, Options(executions=plan.executions))
    seconds: dict[str, list[float]] = {"fp32": [], **{key: [] for key in plans}}
    for turn in range(repeats + 1):
        for key, taken in seconds.items():
            with ExitStack() as stack:
                if key != "fp32":
                    weights, ready = prepared[key]
                    stack.enter_context(packed_with(subject, weights))
                    stack.enter_context(ready.running())
                for _ in range(2):
                    begun = now()
                    subject.call(subject.arguments(scene, subject.device))
                    passed = now() - begun
                taken.append(passed)
            print(f"turn {turn} {key}: {taken[-1]:.3f} s", flush=True)
    least = {key: min(taken[1:] or taken) for key, taken in seconds.items()}
    first = next(iter(plans.values()))
    rows = {"fp32": {"predicted": first.takes["fp32_seconds"], "measured": least["fp32"]}}
    for key, plan in plans.items():
        rows[key] = {
            "predicted": plan.takes["seconds"], "measured": least[key], "size_bytes": plan.size_bytes,
            "gap": plan.total_damage - plan.bound,
            "executions": {how: list(plan.executions.values()).count(how) for how in set(plan.executions.values())},
        }  # fmt: skip
    for row in rows.values():
        row["predicted_over_measured"] = row["predicted"] / row["measured"]
    return {"passes": rows, "turns": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=list(SIZES), default="tiny")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--budget", default="4.6bpw")
    parser.add_argument("--shares", default="0.8,0.9")
    parser.add_argument("--table", type=Path, help="read from here if it is there, else written")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    shares = [float(share) for share in arguments.shares.split(",")]
    print(json.dumps(kernels(arguments.model, arguments.repeats, shares, arguments.budget, arguments.table)))
