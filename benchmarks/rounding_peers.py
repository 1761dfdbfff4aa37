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

import numpy as np
import torch
from torch import Tensor, nn

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
from vggtkit.model.outputs import OUTPUTS
from vggtkit.quant import find_layers, weight_of
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


def _nncf_openvino(model: VGGT, scenes: list[Scene]) -> Made:
    """GPTQ of NNCF's OpenVINO backend; the weights that it makes are put into the network itself.

    Its Hessians are of inputs of up to three axes (else: "non-broadcastable output operand with shape (1,128,128)
    doesn't match the broadcast shape (1,32,128,128)"): products of more are left alone.
    """
    import nncf as tool
    import openvino

    tool.set_log_level(logging.ERROR)
    given = (scenes[0].images[None], scenes[0].query_points[None])
    with torch.no_grad():
        whole = openvino.convert_model(torch.export.export(_Outputs(model, given[0]).eval(), given))
    values = {name: p.detach().numpy() for name, p in model.named_parameters()}
    same = {op.get_friendly_name(): _named(op.data, values) for op in whole.get_ops() if _is_weight(op)}
    advanced = tool.AdvancedCompressionParameters(group_size_fallback_mode=tool.GroupSizeFallbackMode.ADJUST)
    data = [(scene.images[None].numpy(), scene.query_points[None].numpy()) for scene in scenes]
    made = tool.compress_weights(
        whole, mode=tool.CompressWeightsMode.INT4_SYM, ratio=1, group_size=GROUP, all_layers=True,
        dataset=tool.Dataset(data), advanced_parameters=advanced, gptq=True,
        ignored_scope=tool.IgnoredScope(names=_of_four_axes(whole)),
    )  # fmt: skip
    layers = {id(weight_of(model, layer)): layer.name for layer in find_layers(model)}
    parameters, choice = dict(model.named_parameters()), dict.fromkeys(layers.values(), "fp16")
    for op in made.get_ops():
        kind = op.get_element_type().get_type_name() if op.get_type_name() == "Constant" else ""
        if kind in ("i4", "u8", "i8") and (name := same.get(op.get_friendly_name())):
            choice[layers[id(parameters[name])]] = f"int4_group_{GROUP}" if kind == "i4" else "int8_per_channel_asym"
            parameters[name].data.copy_(torch.from_numpy(_unpacked(op)).view(parameters[name].shape))
    return model, choice, tool.__version__


class _Outputs(nn.Module):
    """All outputs; the position embedding is resized beforehand: OpenVINO has no bicubic resizing that smooths."""

    def __init__(self, model: VGGT, images: Tensor) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        backbone, patch = self.model.aggregator.patch_embed, model.config.patch_size
        position = backbone._position(images.shape[-2] // patch, images.shape[-1] // patch).clone()
        backbone._position = lambda *_size: position  # type: ignore[method-assign]

    def forward(self, images: Tensor, points: Tensor) -> tuple[Tensor, ...]:
        returned = self.model(images, points)
        return tuple(returned[name] for name in OUTPUTS if name in returned)


def _is_weight(op: Any) -> bool:  # noqa: ANN401
    return bool(op.get_type_name() == "Constant" and op.get_element_type().is_real() and len(op.shape) > 1)


def _named(value: Any, values: dict[str, Any]) -> str:  # noqa: ANN401
    """The parameter that a constant is; "" for none."""
    return next((name for name, own in values.items() if np.array_equal(own, value)), "")


def _of_four_axes(whole: Any) -> list[str]:  # noqa: ANN401
    """Names of products with a constant whose other side has more than three axes."""
    found = []
    for op in whole.get_ops():
        if op.get_type_name() == "MatMul" and op.input_value(0).get_partial_shape().rank.get_length() > 3:
            source = op.input_value(1).get_node()
            while source.get_type_name() in ("Convert", "Transpose", "Reshape"):
                source = source.input_value(0).get_node()
            if source.get_type_name() == "Constant":
                found.append(op.get_friendly_name())
    return found


def _unpacked(op: Any) -> Any:  # noqa: ANN401
    """What a compressed constant stands for."""
    import openvino

    node = op
    while True:
        then = next(iter(node.output(0).get_target_inputs())).get_node()
        if then.get_type_name() not in ("Convert", "Subtract", "Multiply", "Reshape"):
            break
        node = then
    compiled = openvino.Core().compile_model(openvino.Model([node.output(0)], []), "CPU")
    return compiled([])[0].astype(np.float32)


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
    "nncf gptq, openvino": _nncf_openvino,
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
