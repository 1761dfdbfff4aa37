"""Is a plan that runs ahead of OpenVINO with NNCF on the same network? JSON on the last line, with the processor's name.

Run: ``python benchmarks/openvino_speed.py [--model tiny|vggt-1b] [--repeats 3] [--threads 2] [--budget 4.2bpw]``. The
plan of `benchmarks.speed` is executed by ``int8`` (packed, and expanded once) and by ONNX Runtime; the FP32 network is
converted by OpenVINO and compressed by NNCF as their documentation says: ``quantize`` (INT8 weights and activations,
for transformers, calibrated on the picture that is timed, which flatters it) and ``compress_weights`` to INT4 in groups
of 128 (activations as OpenVINO rounds them by itself). Every file is made in a process of its own; then all take turns
on one scene with as many threads each. OpenVINO computes what is left in bfloat16 where the processor has it, which is
its default. What cannot be converted stands in the result with its message.

The bundled network runs in FP32 as well. VGGT-1B has random weights, and in FP32 would not fit beside the others; it
takes about 16 GB of memory, 9 GB of disk and half an hour. Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.onnx_speed import HEADS, OUTPUTS, take_turns
from benchmarks.speed import FORMATS, FULL_SIZE, SIZES, UNITS, main, ratios
from mixedprec import (
    data_free, load_quantized, packed_with, parse_request, planned, quantized_weights, save_quantized,
)  # fmt: skip
from vggtkit.metrics.tensors import nmse
from vggtkit.model import VGGT, load_vggt
from vggtkit.runtime import processor
from vggtkit.runtime.backend import Options, Prepared
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.onnx.file import write
from vggtkit.runtime.onnx.session import Session, version
from vggtkit.runtime.onnx.styles import operators
from vggtkit.runtime.onnx.trace import Shapes, trace
from vggtkit.subject import subject_of

MAKERS = ("ours", "openvino fp32", "openvino int8", "openvino int4")
GROUP = 128
OURS = ("int8 packed", "int8 resident", "onnxruntime dynamic", "onnxruntime auto")
REFERENCE = "outputs.pt"

Run = Callable[..., Mapping[str, Tensor]]


def openvino_speed(name: str, repeats: int, budget: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """Make all files, then measure all of them, in turn, on pictures of a size (views, height, width)."""
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        made = {what: _made(what, name, budget, folder) for what in MAKERS}
        images = pictures(size)
        ways, loading = _ways(name, folder)
        turns, outputs = take_turns(ways, images, repeats)
        reference = torch.load(folder / REFERENCE)
        sizes = {each.name: each.stat().st_size for each in sorted(folder.iterdir()) if each.is_file()}
    seconds = {
        unit: {way: statistics.median([turn[unit] for turn in of_way]) for way, of_way in turns.items()}
        for unit in UNITS
    }
    return {
        "question": "speed of a plan that runs against OpenVINO with NNCF",
        "model": name,
        "images": list(images.shape),
        "heads": list(HEADS),
        "budget": budget,
        "made": made,
        "file_bytes": sizes,
        "load_seconds": loading,
        "seconds": seconds["total"],
        "spread": {way: [min(t["total"] for t in of), max(t["total"] for t in of)] for way, of in turns.items()},
        "processor_seconds": seconds["processor"],
        "speed_against_packed": {unit: ratios(turns, "int8 packed", unit) for unit in UNITS},
        "best_of_ours_ahead_of": {unit: _ahead(of_unit) for unit, of_unit in seconds.items()},
        "nmse_against_fp32": {
            way: {key: nmse(reference[key], computed[key]) for key in OUTPUTS} for way, computed in outputs.items()
        },
        "onnxruntime": version(),
        "openvino": _versions(),
        "processor": processor.name(),
        "instructions": processor.instructions(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def pictures(size: tuple[int, int, int]) -> Tensor:
    """``[1, S, 3, H, W]``, noise."""
    views, height, width = size
    return torch.rand(1, views, 3, height, width, generator=torch.Generator().manual_seed(0))


def _ahead(seconds: Mapping[str, float]) -> dict[str, float]:
    """The time of every way of OpenVINO over the least of ours."""
    least = min(taken for way, taken in seconds.items() if way in OURS)
    return {way: taken / least for way, taken in seconds.items() if way.startswith("openvino")}


def _made(what: str, name: str, budget: str, folder: Path) -> dict[str, Any]:
    """What making a file took, or why it cannot be made; in a process of its own, whose memory is then free."""
    asked = [sys.executable, __file__, "--make", what, "--model", name, "--budget", budget, "--folder", str(folder)]
    asked += ["--threads", str(torch.get_num_threads())]
    ended = subprocess.run(asked, capture_output=True, text=True)
    last = (ended.stdout if ended.returncode == 0 else ended.stderr).strip().splitlines()[-1:]
    facts = json.loads(last[0]) if ended.returncode == 0 else {"failed": last[0] if last else f"{ended.returncode}"}
    print(f"made {what}: {facts}", flush=True)
    return facts


def make(what: str, name: str, budget: str, folder: Path) -> dict[str, Any]:
    """Write one of `MAKERS` into a folder: ``model.safetensors`` and two files of ONNX, or one of OpenVINO."""
    begun, of_processor = time.perf_counter(), time.process_time()
    found = _make_ours(name, budget, folder) if what == MAKERS[0] else _make_openvino(what, name, folder)
    return found | {"seconds": time.perf_counter() - begun, "processor_seconds": time.process_time() - of_processor}


def _model(name: str) -> VGGT:
    return load_vggt(name, weights="random" if name == FULL_SIZE else "pretrained").with_heads(HEADS)


@torch.no_grad()
def _make_ours(name: str, budget: str, folder: Path) -> dict[str, Any]:
    subject, images = subject_of(_model(name)), pictures(SIZES[name])
    model = subject.model
    assert isinstance(model, VGGT)
    plan = planned(
        data_free(name, subject, candidates=FORMATS), subject, parse_request(budget, formats=",".join(FORMATS))
    ).plan
    returned = model(images)
    torch.save({key: returned[key].clone() for key in OUTPUTS}, folder / REFERENCE)
    del returned
    save_quantized(subject, plan.formats, folder / "model.safetensors")
    shapes = Shapes(images.shape[3], images.shape[4], images.shape[1])
    with packed_with(subject, quantized_weights(subject, plan.formats)):
        for style in ("dynamic", "auto"):
            write(trace(model, shapes, operators(model, style)), folder / f"{style}.onnx")
    if name != FULL_SIZE:
        write(trace(model, shapes, operators(model, "exact")), folder / "fp32.onnx")
    return {"plan_bytes": plan.size_bytes}


def _make_openvino(what: str, name: str, folder: Path) -> dict[str, Any]:
    import openvino

    path = folder / f"{what.replace(' ', '-')}.xml"
    if what == "openvino fp32":
        with torch.no_grad():
            program = torch.export.export(_Outputs(_model(name)).eval(), (pictures(SIZES[name]),))
            openvino.save_model(openvino.convert_model(program), path, compress_to_fp16=False)
        return {}
    import nncf

    model = openvino.Core().read_model(folder / "openvino-fp32.xml")
    if what == "openvino int8":
        scene = nncf.Dataset([pictures(SIZES[name]).numpy()])
        found = nncf.quantize(model, scene, model_type=nncf.ModelType.TRANSFORMER, subset_size=1)
    else:
        adjusted = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
        found = nncf.compress_weights(
            model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=GROUP, ratio=1.0, advanced_parameters=adjusted
        )
    openvino.save_model(found, path, compress_to_fp16=False)
    return {"nncf": nncf.__version__}


class _Outputs(nn.Module):
    """The outputs that are compared, in their order."""

    def __init__(self, model: VGGT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        returned = self.model(images)
        return tuple(returned[name] for name in OUTPUTS)


def _ways(name: str, folder: Path) -> tuple[dict[str, Run], dict[str, float]]:
    """Everything that was made, loaded, by name, and processor seconds of loading it."""
    packed = subject_of(load_quantized(folder / "model.safetensors"))
    jobs: dict[str, Callable[[], Run]] = {
        "int8 packed": lambda: _executed(packed.model, BACKENDS["int8"].prepare(packed)),
        "int8 resident": lambda: _executed(packed.model, BACKENDS["int8"].prepare(packed, Options("int8"))),
        "onnxruntime dynamic": lambda: Session(folder / "dynamic.onnx"),
        "onnxruntime auto": lambda: Session(folder / "auto.onnx"),
    }
    if name != FULL_SIZE:
        jobs["torch fp32"] = lambda: _plain(_model(name))
        jobs["onnxruntime fp32"] = lambda: Session(folder / "fp32.onnx")
        jobs["openvino fp32"] = lambda: _compiled(folder / "openvino-fp32.xml", INFERENCE_PRECISION_HINT="f32")
    jobs["openvino bfloat16"] = lambda: _compiled(folder / "openvino-fp32.xml")
    jobs["openvino int8"] = lambda: _compiled(folder / "openvino-int8.xml")
    jobs["openvino int4"] = lambda: _compiled(folder / "openvino-int4.xml")
    ways, loading = {}, {}
    for way, job in jobs.items():
        begun = time.process_time()
        try:
            ways[way] = job()
        except RuntimeError as error:
            print(f"{way}: {error}", flush=True)
        loading[way] = time.process_time() - begun
    return ways, loading


def _executed(model: nn.Module, prepared: Prepared) -> Run:
    def run(images: Tensor) -> Mapping[str, Tensor]:
        with torch.no_grad(), prepared.running():
            returned: Mapping[str, Tensor] = model(images)
        return returned

    return run


def _plain(model: VGGT) -> Run:
    def run(images: Tensor) -> Mapping[str, Tensor]:
        with torch.no_grad():
            returned: Mapping[str, Tensor] = model(images)
        return returned

    return run


def _compiled(path: Path, **hints: str) -> Run:
    import openvino

    asked = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1, **hints}
    compiled = openvino.Core().compile_model(path, "CPU", asked)

    def run(images: Tensor) -> Mapping[str, Tensor]:
        found = compiled(images.numpy())
        return {name: torch.from_numpy(found[place].copy()) for place, name in enumerate(OUTPUTS)}

    return run


def _versions() -> str:
    try:
        import openvino
    except ModuleNotFoundError:
        return ""
    return str(openvino.__version__)


if __name__ == "__main__":
    if "--make" not in sys.argv:
        main(openvino_speed, __doc__)
    else:
        parser = argparse.ArgumentParser()
        for option in ("--make", "--model", "--budget", "--threads"):
            parser.add_argument(option)
        parser.add_argument("--folder", type=Path)
        asked = parser.parse_args()
        torch.set_num_threads(int(asked.threads))
        print(json.dumps(make(asked.make, asked.model, asked.budget, asked.folder)))
