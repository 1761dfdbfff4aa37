"""Is inference's memory and time what `forecast` says? JSON on the last line, with the processor's name.

Run: ``python benchmarks/forecast.py [--views 1,2,4,8,16,32]``. The bundled network in FP32: a kernel table is measured
and a forecast made, then every number of pictures runs in a process of its own, which says the most memory that it had
(resident, libraries included) and the least time of its passes: the processor's, with one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.steps.forecast import FIRST_PASS
from analysis.steps.kernels import pictures_of_size
from analysis.timing.activations import peak_activation_bytes
from analysis.timing.clock import now
from analysis.timing.measure import Measured, measure
from vggtkit.core.memory import peak_resident_bytes, resident_bytes
from vggtkit.subject import open_subject

SIZE, TABLE_VIEWS, REPEATS = (64, 64), 4, 4


@torch.no_grad()
def run(views: int) -> dict[str, Any]:
    """In a process of its own: memory before the model, the most of all, and the least seconds of a pass."""
    before = resident_bytes()
    subject = open_subject("tiny")
    scene = pictures_of_size(views, SIZE)
    seconds, peak = [], 0
    for _ in range(REPEATS):
        begun = now()
        subject.call(subject.arguments(scene, subject.device))
        seconds.append(now() - begun)
        peak = peak or peak_resident_bytes()
    return {"before": before, "peak": peak, "seconds": min(seconds)}


def compare(views: list[int]) -> dict[str, Any]:
    """Forecast and measurement by number of pictures."""
    subject = open_subject("tiny")
    table = measure(Measured(subject, {}, {}), pictures_of_size(TABLE_VIEWS, SIZE), "tiny")
    rows = []
    for count in views:
        held = peak_activation_bytes(subject, pictures_of_size(count, SIZE))
        assert held is not None
        child = [sys.executable, __file__, "--child", str(count)]
        seen = json.loads(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
        weights = 4 * subject.parameters
        seconds = table.plain_seconds(table.at(count), subject.layers, subject.heads)
        peak = seen["before"] + FIRST_PASS + weights + held
        rows.append(
            {
                "views": count, "forecast_peak_bytes": peak, "measured_peak_bytes": seen["peak"],
                "peak_ratio": peak / seen["peak"], "weight_bytes": weights, "activation_bytes": held,
                "activation_ratio": (held + FIRST_PASS) / (seen["peak"] - seen["before"] - weights),
                "forecast_seconds": seconds, "measured_seconds": seen["seconds"],
                "seconds_ratio": seconds / seen["seconds"], "weights_share": weights / (weights + held),
            }
        )  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return {
        "question": "forecast against measured memory and time", "model": "tiny", "size": list(SIZE), "rows": rows,
        "table_views": [one.views for one in table.passes], "machine": dict(table.machine),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", default="1,2,4,8,16,32")
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run(arguments.child)))
    else:
        print(json.dumps(compare([int(count) for count in arguments.views.split(",")])))
