"""How other tools choose codes for the same layers, formats, bytes and scenes: NNCF, ModelOpt, AutoRound. JSON last.

Run: ``python benchmarks/rounding_peers.py [--python PEERS/bin/python] [--scenes 8] [--held-out 8]``. Each tool runs in
a process of its own, by an interpreter that has the extra ``bench``, and quantises the weights of the bundled network
to INT4 in groups of 128 (convolutions: INT8, or not at all, as the tool does it). What it made is run on the held-out
rooms. Ours then rounds the very layers to the very formats. A tool that does not take the module is quoted. Damage is
the NMSE of the outputs against FP32, averaged over outputs and scenes.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.evaluation.evaluator import Evaluator
from benchmarks.competitors import (
    GROUP,
    Choice,
    calibration_and_held_out,
    file_bytes,
    forward,
    modelopt_choice,
    nncf_choice,
    predict,
)
from mixedprec.rounding import rounded_weights
from sensitivity.moments import input_moments, output_moments
from vggtkit.model import VGGT, load_vggt
from vggtkit.quant import find_layers
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of

OURS = ("nearest", "gptq", "descent", "output_descent")
QUOTED = 300
Made = tuple[nn.Module, Choice, str]


def _nncf(model: VGGT, scenes: list[Scene], **options: bool) -> Made:
    """All linear layers at INT4 with the given way to choose codes or scales."""
    import nncf as tool  # optional

    tool.set_log_level(logging.ERROR)
    data = [(scene.images[None], scene.query_points[None]) for scene in scenes]
    advanced = tool.AdvancedCompressionParameters(group_size_fallback_mode=tool.GroupSizeFallbackMode.ADJUST)
    with torch.no_grad():
        made = tool.compress_weights(
            copy.deepcopy(model), mode=tool.CompressWeightsMode.INT4_SYM, ratio=1, group_size=GROUP, all_layers=True,
            dataset=tool.Dataset(data), advanced_parameters=advanced, **options,
        )  # fmt: skip
    return made, nncf_choice(model, made), tool.__version__


def _modelopt(model: VGGT, scenes: list[Scene], algorithm: str) -> Made:
    """All linear layers at INT4 in blocks."""
    import modelopt.torch.quantization as tool
    from modelopt import __version__

    weights = {"num_bits": 4, "block_sizes": {-1: GROUP, "type": "static"}}
    others = [layer.name for layer in find_layers(model) if layer.kind != "linear"]
    configuration = {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "cfg": weights},
            *({"quantizer_name": f"*{name}.weight_quantizer", "enable": False} for name in others),
        ],
        "algorithm": algorithm,
    }

    def look(module: nn.Module) -> None:
        for scene in scenes:
            forward(module, scene)

    with torch.no_grad():
        made = tool.quantize(copy.deepcopy(model), configuration, look)
    return made, modelopt_choice(model, made), __version__


def _autoround(model: VGGT, scenes: list[Scene]) -> Made:
    """Whatever it says to a module that is no language model."""
    from auto_round import AutoRound, __version__

    data = [{"images": scene.images[None], "query_points": scene.query_points[None]} for scene in scenes]
    rounder = AutoRound(
        copy.deepcopy(model), tokenizer=None, bits=4, group_size=GROUP, sym=True, iters=200, dataset=data,
        nsamples=len(data), device_map="cpu",
    )  # fmt: skip
    made, _ = rounder.quantize()
    choice = {layer.name: f"int4_group_{GROUP}" if layer.kind == "linear" else "fp16" for layer in find_layers(model)}
    return made, choice, __version__


TOOLS: dict[str, Callable[[VGGT, list[Scene]], Made]] = {
    "nncf": _nncf,
    "nncf gptq": lambda model, scenes: _nncf(model, scenes, gptq=True),
    "nncf scale estimation": lambda model, scenes: _nncf(model, scenes, scale_estimation=True),
    "nncf awq": lambda model, scenes: _nncf(model, scenes, awq=True),
    "modelopt max": lambda model, scenes: _modelopt(model, scenes, "max"),
    "modelopt awq_lite": lambda model, scenes: _modelopt(model, scenes, "awq_lite"),
    "modelopt awq_full": lambda model, scenes: _modelopt(model, scenes, "awq_full"),
    "autoround": _autoround,
}


def compete(tool: str, count: int, held_out_count: int, out: Path) -> dict[str, Any]:
    """Let a tool round, run what it made on the held-out scenes, and say what it chose; or what it said."""
    model = load_vggt("tiny")
    calibration, held_out = calibration_and_held_out(model, count, held_out_count, 0)
    begun = time.process_time()
    try:
        made, choice, version = TOOLS[tool](copy.deepcopy(model), calibration)
        torch.save([predict(made, scene) for scene in held_out], out)
    except Exception as error:  # of a library of somebody else, to be quoted
        return {"tool": tool, "refused": f"{type(error).__name__}: {error}"[:QUOTED]}
    seconds = round(time.process_time() - begun, 1)
    return {"tool": tool, "version": version, "processor_seconds": seconds, "formats": choice}


def compare(python: str, count: int, held_out_count: int, tools: list[str], limit: int) -> list[dict[str, Any]]:
    """Every tool beside ours with the same choice of layers and formats."""
    model = load_vggt("tiny")
    calibration, held_out = calibration_and_held_out(model, count, held_out_count, 0)
    subject = subject_of(model)
    evaluator = Evaluator(subject, held_out)
    moments = {
        "": None, "inputs": input_moments(subject, subject.layers, calibration),
        "gradients": output_moments(subject, subject.layers, calibration),
    }  # fmt: skip
    ours: dict[str, dict[str, float]] = {}
    rows = []
    for tool in tools:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "outputs.pt"
            row = _run(python, tool, count, held_out_count, out, limit)
            if "refused" not in row:
                row["damage"] = evaluator.compare(torch.load(out)).damage
        if "refused" not in row:
            choice = row.pop("formats")
            key = json.dumps(choice, sort_keys=True)
            for way in OURS if key not in ours else ():
                made = rounded_weights(subject, choice, ROUNDINGS[way], moments[ROUNDINGS[way].needs])
                ours.setdefault(key, {})[way] = evaluator.measure_weights(made.weights).damage
            row |= {"size_bytes": file_bytes(model, choice), "ours_at_the_same_choice": ours[key]}
            row["ours_over_theirs"] = ours[key]["descent"] / row["damage"]
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return rows


def _run(python: str, tool: str, count: int, held_out_count: int, out: Path, limit: int) -> dict[str, Any]:
    """A tool in a process of its own, for some minutes at most."""
    options = ("--scenes", str(count), "--held-out", str(held_out_count), "--out", str(out))
    command = [python, __file__, "--tool", tool, *options]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 * limit)
    except subprocess.TimeoutExpired:
        return {"tool": tool, "refused": f"not done after {limit} minutes"}
    if ran.returncode:
        return {"tool": tool, "refused": ran.stderr.strip()[-QUOTED:]}
    found: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--tool", choices=list(TOOLS))
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--held-out", type=int, default=8)
    parser.add_argument("--minutes", type=int, default=30, help="that a tool may take")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if given.tool:
        print(json.dumps(compete(given.tool, given.scenes, given.held_out, given.out)))
        return
    rows = compare(given.python, given.scenes, given.held_out, given.tools, given.minutes)
    asked = {"calibration": given.scenes, "held_out": given.held_out}
    print(json.dumps({"scenes": asked, "threads": 1, "machine": platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
