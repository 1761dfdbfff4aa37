"""How fast does a mixed plan run? JSON on the last line, with the processor's name.

Run: ``python benchmarks/speed.py [--model tiny|vggt-1b] [--repeats 3] [--threads 2] [--budget 4.2bpw]``. FP32, FP32's
weights with the trunk in bfloat16, the plan dequantised by layer (``reference``) and the plan in whole numbers
(``int8``, its weights packed or expanded once) take turns on one scene, so that a machine that slows down meanwhile
slows all of them; ratios are medians over the turns. The first turn warms up. ``reference`` runs once at full size.
Beside the seconds of every stage stands the least that it could take here, by what takes it (`analysis.timing.limits`).

The plan is made without a profile, from ``int8_per_channel_sym``, the two-level formats and FP16. VGGT-1B has random
weights: time does not depend on them. It takes about 12 GB of memory and a quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.timing.limits import measured_peaks, stage_limits, work_by_stage, works_as
from mixedprec import data_free, load_quantized, packed_with, parse_request, planned, quantized_weights, save_quantized
from vggtkit.metrics.tensors import nmse
from vggtkit.model import load_vggt
from vggtkit.quant import QuantizedTensor, candidates, get_format
from vggtkit.runtime import processor
from vggtkit.runtime.backend import Options, Prepared
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.kernels import choose
from vggtkit.runtime.stages import clocked, whole
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, subject_of

SIZES = {"tiny": (4, 64, 64), "vggt-1b": (2, 392, 518)}
"""Views, height and width."""
FORMATS = tuple(key for key in candidates() if key in ("int8_per_channel_sym", "fp16") or get_format(key).two_level)
FULL_SIZE = "vggt-1b"
UNITS = ("total", "processor")
"""Seconds on the wall, and of all threads on the processor, which on a shared machine tells more with one thread."""

Way = Callable[[], AbstractContextManager[object]]


def speed(name: str, repeats: int, budget: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """Measure all ways to run a model, in turn, on pictures of a size (views, height, width)."""
    views, height, width = size
    subject = subject_of(load_vggt(name, weights="random" if name == FULL_SIZE else "pretrained"))
    plan = planned(data_free(name, candidates=FORMATS), subject, parse_request(budget, formats=",".join(FORMATS))).plan
    weights = quantized_weights(subject, plan.formats)
    images = torch.rand(1, views, 3, height, width, generator=torch.Generator().manual_seed(0))
    prepared, seconds = {}, {}
    with packed_with(subject, weights):
        for resident in ("packed", "int8"):
            begun = time.perf_counter()
            prepared[resident] = BACKENDS["int8"].prepare(subject, Options(resident))
            seconds[f"prepare {resident}"] = time.perf_counter() - begun
    ways: dict[str, Way] = {
        "fp32": nullcontext,
        "bfloat16": partial(subject.computing_in, torch.bfloat16),
        "reference": partial(packed_with, subject, weights),
        **{f"int8 {resident}": partial(_executed, subject, weights, each) for resident, each in prepared.items()},
    }
    bounds = bounded(subject, images, plan.formats)
    turns, outputs = _turns(subject, images, ways, repeats, once=("reference",) if name == FULL_SIZE else ())
    return {
        "question": "speed of a mixed plan, executed",
        "model": name,
        "images": list(images.shape),
        "budget": budget,
        "formats": {key: list(plan.formats.values()).count(key) for key in dict.fromkeys(plan.formats.values())},
        "file_bytes": plan.size_bytes,
        "layer_bytes": sum(q.nbytes for q in weights.values()),
        "resident_weight_bytes": {key: each.execution.weight_bytes for key, each in prepared.items()},
        "layers": {key: dict(each.execution.layers) for key, each in prepared.items()},
        "seconds": {way: statistics.median([turn["total"] for turn in of_way]) for way, of_way in turns.items()},
        "spread": {way: [min(t["total"] for t in of), max(t["total"] for t in of)] for way, of in turns.items()},
        "processor_seconds": {
            way: statistics.median([turn["processor"] for turn in of_way]) for way, of_way in turns.items()
        },
        "speed_against_fp32": {unit: ratios(turns, "fp32", unit) for unit in UNITS},
        "speed_against_bfloat16": {unit: ratios(turns, "bfloat16", unit) for unit in UNITS},
        "stages": {way: _stages(of_way) for way, of_way in turns.items()},
        **bounds,
        "nmse_against_reference": {
            key: nmse(value, outputs["int8 packed"][key]) for key, value in outputs["reference"].items()
        },
        "nmse_of_reference": {key: nmse(value, outputs["reference"][key]) for key, value in outputs["fp32"].items()},
        "load_seconds": seconds | {"load and prepare packed": _loading(subject, plan.formats)},
        "kernels": {key: each.execution.kernels for key, each in prepared.items()},
        "processor": processor.name(),
        "instructions": processor.instructions(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def bounded(subject: Subject, images: Tensor, formats: Mapping[str, str]) -> dict[str, Any]:
    """The least seconds of every stage in FP32 and in whole numbers, and the speeds that they are made of."""
    choice = choose(torch.get_num_threads())
    peaks, scene = measured_peaks(choice), Scene("noise", images[0], torch.zeros(0, 2))
    if "track" in subject.heads:  # it does not run without points
        subject = subject.with_heads([head for head in subject.heads if head != "track"])
    ways = works_as(subject, formats, peaks)
    plain, executed = work_by_stage(subject, scene, {}), work_by_stage(subject, scene, ways)
    floats = "bfloat16" if "bfloat16" in peaks.operations else "fp32"
    if plain is None or executed is None:
        return {"peaks": asdict(peaks)}
    found = {
        "fp32": stage_limits(plain, peaks, "fp32", packed=False),
        "int8 packed": stage_limits(executed, peaks, floats, packed=True),
        "int8 int8": stage_limits(executed, peaks, floats, packed=False),
    }
    said = {
        way: {stage: asdict(limit) | {"limit": limit.seconds} for stage, limit in of.items()}
        for way, of in found.items()
    }
    return {"peaks": asdict(peaks), "least_seconds": said}


@contextmanager
def _executed(subject: Subject, weights: Mapping[str, QuantizedTensor], prepared: Prepared) -> Iterator[None]:
    with packed_with(subject, weights), prepared.running():
        yield


@torch.no_grad()
def _turns(
    subject: Subject, images: Tensor, ways: dict[str, Way], repeats: int, once: tuple[str, ...]
) -> tuple[dict[str, list[dict[str, float]]], dict[str, dict[str, Tensor]]]:
    """Seconds by stage of every way in every turn but the first, and what the first gave."""
    turns: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    outputs = {}
    for turn in range(repeats + 1):
        for way, context in ways.items():
            if turn > 0 and way in once:
                continue
            with ExitStack() as stack:
                stack.enter_context(context())
                begun = time.process_time()
                with clocked(subject) as seconds:
                    result = subject.model(images)
                of_processor = time.process_time() - begun
            if turn == 0:
                outputs[way] = {key: result[key] for key in ("pose_enc", "depth", "world_points")}
            if turn > 0 or way in once:
                turns[way].append(dict(seconds) | {"total": whole(seconds), "processor": of_processor})
            print(f"turn {turn} {way}: {whole(seconds):.3f} s, {of_processor:.3f} s of processor", flush=True)
    return turns, outputs


def _loading(subject: Subject, formats: dict[str, str]) -> float:
    """Seconds from a file on disk to a model that is ready."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_quantized(subject, formats, path)
        begun = time.perf_counter()
        BACKENDS["int8"].prepare(subject_of(load_quantized(path)))
        return time.perf_counter() - begun


def ratios(turns: dict[str, list[dict[str, float]]], against: str, unit: str) -> dict[str, float]:
    """Median over the turns of another way's time over each way's."""
    return {
        way: statistics.median([a[unit] / b[unit] for a, b in zip(turns[against], of_way, strict=False)])
        for way, of_way in turns.items()
    }


def _stages(turns: list[dict[str, float]]) -> dict[str, float]:
    return {stage: statistics.median([turn[stage] for turn in turns]) for stage in turns[0] if stage not in UNITS}


def main(measure: Callable[[str, int, str, tuple[int, int, int]], object], description: str | None) -> None:
    """Read the command line, measure, and print the JSON; the same for every benchmark of speed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", choices=list(SIZES), default="tiny")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--budget", default="4.2bpw")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(json.dumps(measure(arguments.model, arguments.repeats, arguments.budget, SIZES[arguments.model])))


if __name__ == "__main__":
    main(speed, __doc__)
