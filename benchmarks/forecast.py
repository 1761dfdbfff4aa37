"""Is inference's memory and time what `forecast` says? JSON on the last line, with the processor's name.

Run: ``python benchmarks/forecast.py [--views 1,2,4,8,16,32]``. The bundled network in FP32, and a plan in whole
numbers: a kernel table is measured and a forecast made, then every number of pictures runs in a process of its own,
which says the most memory that it had (resident, libraries included) and the least time of its passes: the
processor's, with one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.steps.forecast import FIRST_PASS
from analysis.steps.kernels import pictures_of_size
from analysis.timing.activations import peak_activation_bytes
from analysis.timing.clock import now
from analysis.timing.forecast import FP32, INT8, Forecast, forecasts
from analysis.timing.measure import MeasuredModel, measure_kernels
from mixedprec import data_free, load_quantized, parse_request, planned, save_quantized
from vggtkit.core.memory import peak_resident_bytes, resident_bytes
from vggtkit.runtime.backends import BACKENDS
from vggtkit.subject import open_subject, subject_of

SIZE, TABLE_VIEWS, REPEATS, BUDGET = (64, 64), 4, 4, "4.6bpw"


@torch.no_grad()
def run(views: int, checkpoint: Path | None) -> dict[str, Any]:
    """In a process of its own: memory before the model, the most of all, and the least seconds of a pass."""
    before = resident_bytes()
    subject = open_subject("tiny") if checkpoint is None else subject_of(load_quantized(checkpoint))
    scene = pictures_of_size(views, SIZE)
    running = nullcontext() if checkpoint is None else BACKENDS["int8"].prepare(subject).running()
    seconds, peak = [], 0
    with running:
        for _ in range(REPEATS):
            begun = now()
            subject.call(subject.arguments(scene, subject.device))
            seconds.append(now() - begun)
            peak = peak or peak_resident_bytes()
    return {"before": before, "peak": peak, "seconds": min(seconds)}


def compare(views: list[int]) -> dict[str, Any]:
    """Forecast and measurement by way and number of pictures."""
    subject = open_subject("tiny")
    table = measure_kernels(MeasuredModel(subject, {}, {}), pictures_of_size(TABLE_VIEWS, SIZE), "tiny")
    plan = planned(data_free("tiny", subject), subject, parse_request(BUDGET, formats="runnable")).plan
    rows = []
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "model.safetensors"
        save_quantized(subject, plan.formats, checkpoint)
        for count in views:
            held = peak_activation_bytes(subject, pictures_of_size(count, SIZE))
            assert held is not None
            said = {row.way: row for row in forecasts(subject, plan, table, [(count, held)])}
            for way, of in ((FP32, ()), (INT8, ("--checkpoint", str(checkpoint)))):
                rows.append(_row(said[way], of))
                print(json.dumps(rows[-1]), flush=True)
    return {
        "question": "forecast against measured memory and time", "model": "tiny", "size": list(SIZE), "budget": BUDGET,
        "rows": rows, "table_views": [one.views for one in table.passes], "machine": dict(table.machine),
    }  # fmt: skip


def _row(said: Forecast, options: tuple[str, ...]) -> dict[str, Any]:
    child = [sys.executable, __file__, "--child", str(said.views), *options]
    seen = json.loads(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
    peak = seen["before"] + FIRST_PASS + said.peak_bytes
    assert said.seconds is not None
    return {
        "way": said.way, "views": said.views, "forecast_peak_bytes": peak, "measured_peak_bytes": seen["peak"],
        "peak_ratio": peak / seen["peak"], "weight_bytes": said.weight_bytes,
        "activation_bytes": said.activation_bytes,
        "activation_ratio": (said.activation_bytes + FIRST_PASS) / (seen["peak"] - seen["before"] - said.weight_bytes),
        "forecast_seconds": said.seconds, "measured_seconds": seen["seconds"],
        "seconds_ratio": said.seconds / seen["seconds"], "weights_share": said.weight_bytes / said.peak_bytes,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", default="1,2,4,8,16,32")
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run(arguments.child, arguments.checkpoint)))
    else:
        print(json.dumps(compare([int(count) for count in arguments.views.split(",")])))
