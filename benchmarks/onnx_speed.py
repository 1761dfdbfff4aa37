"""How fast does ONNX Runtime execute a plan, beside its own FP32? JSON on the last line, with the processor's name.

Run: ``python benchmarks/onnx_speed.py [--model tiny|vggt-1b] [--repeats 3] [--threads 2] [--budget 4.2bpw]``. The plan
of `benchmarks.speed` is written in several styles of `export --format onnx`, and FP32 as the same graph with FP32
weights; the files take turns on one scene, as there. What they give is compared with torch's outputs of the same model.

VGGT-1B has random weights. It takes about 14 GB of memory, 8 GB of disk and some twenty minutes on one core.
"""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.speed import FORMATS, FULL_SIZE, UNITS, main, ratios
from mixedprec import data_free, packed_with, parse_request, planned, quantized_weights
from vggtkit.metrics.tensors import nmse
from vggtkit.model import VGGT, load_vggt
from vggtkit.runtime import processor
from vggtkit.runtime.onnx.faults import check_operators
from vggtkit.runtime.onnx.file import WrittenGraph, write
from vggtkit.runtime.onnx.session import Session, version
from vggtkit.runtime.onnx.styles import operators
from vggtkit.runtime.onnx.trace import Graph, Shapes, trace
from vggtkit.subject import subject_of

STYLES = {"tiny": ("auto", "dynamic", "nbits", "exact"), FULL_SIZE: ("dynamic",)}
HEADS = ("camera", "depth", "point")
OUTPUTS = ("pose_enc", "depth", "world_points")


def onnx_speed(name: str, repeats: int, budget: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """Measure all files, in turn, on pictures of a size (views, height, width)."""
    views, height, width = size
    images = torch.rand(1, views, 3, height, width, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        written, facts, reference = _files(name, budget, images, Path(folder))
        gc.collect()
        sessions, loading = {}, {}
        for way, file in written.items():
            sessions[way], loading[way] = _timed(partial(Session, file.path))
        turns, outputs = take_turns(sessions, images, repeats)
    return facts | {
        "question": "speed of ONNX Runtime on an exported plan",
        "model": name,
        "images": list(images.shape),
        "budget": budget,
        "file_bytes": {way: file.size_bytes for way, file in written.items()},
        "operators": {way: dict(file.operators) for way, file in written.items()},
        "load_seconds": loading,
        "seconds": {way: statistics.median([turn["total"] for turn in of_way]) for way, of_way in turns.items()},
        "spread": {way: [min(t["total"] for t in of), max(t["total"] for t in of)] for way, of in turns.items()},
        "processor_seconds": {
            way: statistics.median([turn["processor"] for turn in of_way]) for way, of_way in turns.items()
        },
        "speed_against_fp32": {unit: ratios(turns, "fp32", unit) for unit in UNITS},
        "nmse_against_torch": {
            way: {key: nmse(reference["fp32" if way == "fp32" else "plan"][key], computed[key]) for key in OUTPUTS}
            for way, computed in outputs.items()
            if way != "fp32" or "fp32" in reference
        },
        "nmse_of_the_plan": {key: nmse(outputs["fp32"][key], reference["plan"][key]) for key in OUTPUTS},
        "peak_gigabytes": _peak(),
        "onnxruntime": version(),
        "processor": processor.name(),
        "instructions": processor.instructions(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


@torch.no_grad()
def _files(
    name: str, budget: str, images: Tensor, folder: Path
) -> tuple[dict[str, WrittenGraph], dict[str, Any], dict[str, dict[str, Tensor]]]:
    """The files, what writing them took, and what torch gives."""
    subject = subject_of(load_vggt(name, weights="random" if name == FULL_SIZE else "pretrained").with_heads(HEADS))
    model = subject.model
    assert isinstance(model, VGGT)
    plan = planned(
        data_free(name, subject, candidates=FORMATS), subject, parse_request(budget, formats=",".join(FORMATS))
    ).plan
    shapes = Shapes(images.shape[3], images.shape[4], images.shape[1])
    written, seconds, layers = {}, {}, {}
    errors: dict[str, float] = {}
    weights, seconds["quantising"] = _timed(lambda: quantized_weights(subject, plan.formats))
    reference = {}
    with packed_with(subject, weights):
        for style in STYLES.get(name, STYLES["tiny"]):
            weights_of = operators(model, style)
            graph, seconds[f"tracing {style}"] = _timed(partial(trace, model, shapes, weights_of))
            written[style], seconds[f"writing {style}"] = _written(graph, folder / f"{style}.onnx")
            layers[style] = dict(Counter("FP32" if w is None else w.way for w in graph.weights.values()))
            errors |= check_operators(graph.weights)
            print(f"{style}: {seconds}, {_peak():.1f} GB", flush=True)
        export_peak = _peak()
        reference["plan"] = _outputs(model(images))
    if name != FULL_SIZE:
        reference["fp32"] = _outputs(model(images))
    graph, seconds["tracing fp32"] = _timed(lambda: trace(model, shapes, operators(model, "exact")))
    written["fp32"], seconds["writing fp32"] = _written(graph, folder / "fp32.onnx")
    facts = {
        "formats": dict(Counter(plan.formats.values())),
        "plan_bytes": plan.size_bytes,
        "heads": list(HEADS),
        "layers": layers,
        "nmse_of_operators": errors,
        "export_seconds": seconds,
        "export_peak_gigabytes": export_peak,
    }
    return written, facts, reference


def _outputs(returned: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: returned[key].clone() for key in OUTPUTS}


def _written(graph: Graph, path: Path) -> tuple[WrittenGraph, float]:
    return _timed(lambda: write(graph, path))


def _timed(job: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    result = job()
    return result, time.process_time() - begun


def take_turns(
    sessions: Mapping[str, Callable[..., Mapping[str, Tensor]]], images: Tensor, repeats: int
) -> tuple[dict[str, list[dict[str, float]]], dict[str, dict[str, Tensor]]]:
    """Seconds of every file in every turn but the first, and what the first gave."""
    turns: dict[str, list[dict[str, float]]] = {way: [] for way in sessions}
    outputs = {}
    for turn in range(repeats + 1):
        for way, session in sessions.items():
            begun, of_processor = time.perf_counter(), time.process_time()
            result = session(images=images)
            seconds = {"total": time.perf_counter() - begun, "processor": time.process_time() - of_processor}
            if turn == 0:
                outputs[way] = _outputs(result)
            else:
                turns[way].append(seconds)
            print(f"turn {turn} {way}: {seconds['total']:.3f} s, {seconds['processor']:.3f} s of processor", flush=True)
    return turns, outputs


def _peak() -> float:
    """Of resident memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main(onnx_speed, __doc__)
