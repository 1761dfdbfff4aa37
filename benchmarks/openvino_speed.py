"""Is a plan that runs ahead of OpenVINO with NNCF on one network? JSON on the last line, with the processor's name.

Run: ``python benchmarks/openvino_speed.py [--model tiny|vggt-1b] [--blocks 4] [--repeats 3] [--threads 2]``.

A plan is executed by ``openvino``, by ``int8`` (packed, and expanded once) and by ONNX Runtime. In FP32 the network is
converted by OpenVINO and compressed by NNCF as their documentation says: ``quantize`` (INT8 weights and activations,
for transformers) and ``compress_weights`` to INT4 in groups of 128 (activations as OpenVINO rounds them by itself).
Every file is made in a process of its own, whose memory is free afterwards; what ``--folder`` has is not made again.
Then all take turns on one scene with as many threads each. OpenVINO computes what is left in bfloat16 where the
processor has it, which is its default. What cannot be converted stands in the result with its message. Damage is the
NMSE against FP32 on scenes that nobody calibrated on.

On the bundled network the plan comes of a profile of four rooms, the rooms that NNCF is given, and eight others are
judged on, the first of which is timed; the backend takes its scales from that one. It rounds the inputs of all layers,
and, as told by ``plan --execute openvino``, all but those that the profile advises against. VGGT-1B has random
weights, so its plan is made without a profile, everybody calibrates on the noise that is timed, and damage tells
little.

``--blocks 4`` leaves VGGT-1B four blocks in its backbone and four of both kinds in its trunk, its width and heads as
they are, and takes some 8 GB of memory and ten minutes of two cores. NNCF's INT8 of it does without SmoothQuant, which
would copy every weight in FP32, and without the passes that correct biases: OpenVINO multiplies the same operands, with
no more operations than else. FP32 stands beside the bundled network alone, since several copies of a large one would
not fit, and so do further ways of ours. Needs the extras ``bench``, ``onnx`` and ``openvino``.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.onnx_speed import HEADS, OUTPUTS, take_turns
from benchmarks.openvino_files import MAKERS, REFERENCE, Network, parser_of
from benchmarks.speed import UNITS, ratios
from mixedprec import load_quantized
from vggtkit.core.memory import peak_resident_bytes
from vggtkit.metrics.tensors import nmse
from vggtkit.model import VGGT
from vggtkit.runtime import processor
from vggtkit.runtime.backend import Options, Prepared
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.onnx.session import Session, version
from vggtkit.runtime.openvino.compiled import Compiled
from vggtkit.subject import subject_of

OURS = (
    "plan by openvino",
    "plan by openvino, as told",
    "int8 packed",
    "int8 resident",
    "onnxruntime dynamic",
    "onnxruntime auto",
)

Run = Callable[..., Mapping[str, Tensor]]


def openvino_speed(network: Network, repeats: int, budget: str, folder: Path | None) -> dict[str, Any]:
    """Make all files, then measure all of them, in turn, on the same pictures; what is in a folder already is kept."""
    with tempfile.TemporaryDirectory() as kept:
        folder = folder or Path(kept)
        made = {what: _made(what, network, budget, folder) for what in MAKERS}
        if why := made["ours"].get("failed"):
            raise SystemExit(f"the plan that all are compared with could not be made: {why}")
        scenes = network.scenes("evaluation")
        ways, loading = _ways(network, folder)
        turns, outputs = take_turns(ways, scenes[0], repeats)
        damage = _damage(ways, outputs, scenes[1:], torch.load(folder / REFERENCE))
        sizes = {each.name: each.stat().st_size for each in sorted(folder.iterdir()) if each.is_file()}
    seconds = {
        unit: {way: statistics.median([turn[unit] for turn in of_way]) for way, of_way in turns.items()}
        for unit in UNITS
    }
    return {
        "question": "speed of a plan that runs against OpenVINO with NNCF",
        "model": network.name,
        "blocks_of_every_kind": network.blocks or "all",
        "images": list(scenes[0].shape),
        "scenes": len(scenes),
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
        "nmse_against_fp32": damage,
        "onnxruntime": version(),
        "openvino": _versions(),
        "peak_gigabytes": peak_resident_bytes() / 1e9,
        "processor": processor.name(),
        "instructions": processor.instructions(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _damage(
    ways: Mapping[str, Run],
    first: Mapping[str, Mapping[str, Tensor]],
    others: Sequence[Tensor],
    reference: Sequence[Mapping[str, Tensor]],
) -> dict[str, dict[str, float]]:
    """The mean NMSE of every way by output, over the first scene, whose outputs are given, and others."""
    found: dict[str, dict[str, float]] = {}
    for way, run in ways.items():
        each = [first[way], *(run(images=images) for images in others)]
        found[way] = {
            key: statistics.mean(nmse(a[key], b[key]) for a, b in zip(reference, each, strict=True)) for key in OUTPUTS
        }
    return found


def _ahead(seconds: Mapping[str, float]) -> dict[str, float]:
    """The time of every way of OpenVINO over the least of ours.

    >>> _ahead({"int8 packed": 2.0, "plan by openvino": 1.0, "torch fp32": 9.0, "openvino int8": 1.5})
    {'openvino int8': 1.5}
    """
    least = min(taken for way, taken in seconds.items() if way in OURS)
    return {way: taken / least for way, taken in seconds.items() if way.startswith("openvino")}


def _made(what: str, network: Network, budget: str, folder: Path) -> dict[str, Any]:
    """What making a file took, or why it cannot be made; in a process of its own, whose memory is then free."""
    said = folder / f"made-{what.replace(' ', '-')}.json"
    if said.exists():
        found: dict[str, Any] = json.loads(said.read_text(encoding="utf-8"))
        return found
    script = Path(__file__).with_name("openvino_files.py")
    asked = [sys.executable, str(script), what, "--model", network.name, "--folder", str(folder)]
    asked += ["--budget", budget, "--blocks", str(network.blocks), "--threads", str(torch.get_num_threads())]
    ended = subprocess.run(asked, capture_output=True, text=True)
    last = (ended.stdout if ended.returncode == 0 else ended.stderr).strip().splitlines()[-1:]
    facts = json.loads(last[0]) if ended.returncode == 0 else {"failed": last[0] if last else f"{ended.returncode}"}
    print(f"made {what}: {facts}", flush=True)
    if "failed" not in facts:
        said.write_text(json.dumps(facts), encoding="utf-8")
    return facts


def _ways(network: Network, folder: Path) -> tuple[dict[str, Run], dict[str, float]]:
    """Everything that was made, loaded, by name, and processor seconds of loading it."""
    packed = subject_of(load_quantized(folder / "model.safetensors"))
    jobs: dict[str, Callable[[], Run]] = {
        "plan by openvino": lambda: Compiled(folder / "whole.onnx"),
        "int8 packed": lambda: _executed(packed.model, BACKENDS["int8"].prepare(packed)),
    }
    if network.fits:
        jobs["plan by openvino, as told"] = lambda: Compiled(folder / "told.onnx")
        jobs["onnxruntime dynamic"] = lambda: Session(folder / "dynamic.onnx")
        jobs["int8 resident"] = lambda: _executed(packed.model, BACKENDS["int8"].prepare(packed, Options("int8")))
        jobs["onnxruntime auto"] = lambda: Session(folder / "auto.onnx")
        jobs["torch fp32"] = lambda: _plain(network.model())
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
        print(f"loaded {way}: {loading[way]:.1f} s of processor", flush=True)
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
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    compared = Network(asked.model, asked.blocks)
    print(json.dumps(openvino_speed(compared, asked.repeats, asked.budget, asked.folder)))
