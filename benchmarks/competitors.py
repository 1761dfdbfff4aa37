"""Other tools on the same network, scenes and bytes: NVIDIA ModelOpt ``auto_quantize`` and NNCF ``compress_weights``.

Run by ``benchmarks/planner.py``, each in a process of its own: ``python benchmarks/competitors.py nncf --budget BYTES
--scenes 4 --out FILE``. The tool chooses INT8 or INT4 for every layer from the calibration scenes; its knob (effective
bits, ratio) is set as high as the file stays within the budget. FILE receives the outputs of the tool's *own*
quantised model on the held-out scenes; the last line is JSON with the choice as formats of ours, whose exact bytes are
counted.

Needs the extra ``bench``: ``pip install vggt-mixedprec[bench]``.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mixedprec import overhead_bytes
from vggtkit.model import VGGT, load_vggt
from vggtkit.model.geometry import encode_pose
from vggtkit.model.outputs import OUTPUTS
from vggtkit.model.track_head import UpdateTransformer
from vggtkit.quant import find_layers, quantized_nbytes
from vggtkit.scenes import Scene, SceneSource, load_scenes

GROUP = 128
SETTINGS = 4  # of a tool's knob; the largest that fits is taken

Choice = dict[str, str]


def calibration_and_held_out(model: VGGT, count: int, held_out: int, seed: int) -> tuple[list[Scene], list[Scene]]:
    """The same scenes as the planner's."""
    source = SceneSource("synthetic", None, count=count, seed=seed)
    load = partial(load_scenes, img_size=model.config.img_size, patch_size=model.config.patch_size)
    return load(source, "calibration"), load(replace(source, count=held_out), "evaluation")


def file_bytes(model: VGGT, choice: Choice) -> int:
    """Exact bytes of a file of ours with this choice; layers that the tool left alone are FP16."""
    layers = find_layers(model)
    return overhead_bytes(model) + sum(quantized_nbytes(layer.shape, choice[layer.name]) for layer in layers)


def nncf(model: VGGT, scenes: list[Scene], budget: int) -> tuple[nn.Module, Choice, str, str]:
    """NNCF: INT8 asymmetric per channel, and INT4 symmetric in groups for the given share of the linear layers.

    Convolutions stay at INT8, the tool has no INT4 for them. Sensitivity by Hessian and input activations, from data.
    """
    import nncf as tool  # optional

    tool.set_log_level(logging.ERROR)
    data = [(scene.images[None], scene.query_points[None]) for scene in scenes]
    options = tool.AdvancedCompressionParameters(group_size_fallback_mode=tool.GroupSizeFallbackMode.ADJUST)
    result = None
    for step in range(SETTINGS + 1):  # the least INT4 first
        ratio = step / SETTINGS
        with torch.no_grad():
            compressed = tool.compress_weights(
                copy.deepcopy(model), mode=tool.CompressWeightsMode.INT4_SYM, ratio=ratio, group_size=GROUP,
                all_layers=True, dataset=tool.Dataset(data), advanced_parameters=options,
                sensitivity_metric=tool.SensitivityMetric.HESSIAN_INPUT_ACTIVATION,
            )  # fmt: skip
        result = compressed, nncf_choice(model, compressed), f"ratio {ratio:g}", tool.__version__
        if file_bytes(model, result[1]) <= budget:
            break
    assert result is not None
    return result


def nncf_choice(model: VGGT, compressed: nn.Module) -> Choice:
    """What NNCF made of every layer, as formats of ours."""
    choice = dict.fromkeys((layer.name for layer in find_layers(model)), "fp16")
    for name, module in compressed.named_modules():
        kind = type(module).__name__
        if kind.endswith("WeightsDecompressor"):
            layer = name.partition("post_hooks.")[2].partition("__")[0].replace(":", ".").rpartition(".")[0]
            if layer not in choice:
                raise ValueError(f"NNCF compressed {name}, which is no layer of ours")
            choice[layer] = f"int4_group_{GROUP}" if "INT4" in kind else "int8_per_channel_asym"
    return choice


class OneCall(UpdateTransformer):
    """Points and virtual tracks go through the blocks along time in one call, as published, not one after the other.

    ModelOpt's gradients are multiplied with what the last call of a layer put out, so every layer must have but one
    shape.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `UpdateTransformer.forward`, for a batch of one."""
        start = points = self.input_transform(self.input_norm(x))
        virtual = self.virual_tracks.expand(1, -1, x.shape[2], -1)
        for number, time_block in enumerate(self.time_blocks):
            both = time_block(torch.cat([points, virtual], 1)[0]).transpose(0, 1)
            points, virtual = both.split([points.shape[1], virtual.shape[1]], 1)
            virtual = self.space_virtual2point_blocks[number](virtual, points)
            virtual = self.space_virtual_blocks[number](virtual)
            points = self.space_point2virtual_blocks[number](points, virtual)
            points, virtual = (tokens.transpose(0, 1)[None] for tokens in (points, virtual))
        result: Tensor = self.flow_head(self.output_norm(points + start))
        return result


def modelopt(model: VGGT, scenes: list[Scene], budget: int) -> tuple[nn.Module, Choice, str, str]:
    """ModelOpt: INT8 per channel, INT4 in blocks or nothing, by the gradients of the tasks' errors."""
    import modelopt.torch.quantization as tool
    from modelopt import __version__

    int4 = {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {
                "quantizer_name": "*weight_quantizer",
                "cfg": {"num_bits": 4, "block_sizes": {-1: GROUP, "type": "static"}},
            },
        ],
        "algorithm": "max",
    }
    int8 = {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
        ],
        "algorithm": "max",
    }
    for module in model.modules():
        if type(module) is UpdateTransformer:
            module.__class__ = OneCall
    result = None
    for step in range(SETTINGS + 1):  # the most bits first
        bits = 6.0 - step * 2.0 / SETTINGS
        with torch.enable_grad():
            quantized, _ = tool.auto_quantize(
                copy.deepcopy(model), constraints={"effective_bits": max(bits, 4.01)},
                quantization_formats=[int4, int8], data_loader=scenes, forward_step=forward, loss_func=_loss,
                num_calib_steps=len(scenes), num_score_steps=len(scenes), verbose=False,
            )  # fmt: skip
        result = quantized, modelopt_choice(model, quantized), f"effective bits {bits:g}", __version__
        if file_bytes(model, result[1]) <= budget:
            break
    assert result is not None
    return result


def modelopt_choice(model: VGGT, quantized: nn.Module) -> Choice:
    """What ModelOpt made of every layer, as formats of ours."""
    choice = dict.fromkeys((layer.name for layer in find_layers(model)), "fp16")
    for name in choice:
        quantizer = getattr(quantized.get_submodule(name), "weight_quantizer", None)
        if quantizer is not None and quantizer.is_enabled:
            choice[name] = f"int4_group_{GROUP}" if quantizer.num_bits == 4 else "int8_per_channel_sym"
    return choice


def forward(model: nn.Module, scene: Scene) -> dict[str, Tensor]:
    """A pass over a scene."""
    outputs: dict[str, Tensor] = model(scene.images[None], scene.query_points[None])
    return outputs


def _loss(outputs: dict[str, Tensor], scene: Scene) -> Tensor:
    """Errors of the four tasks against the truth: pose encodings, log depth, relative points, tracks by 16 pixels."""
    truth = scene.truth
    assert truth is not None
    assert truth.tracks is not None
    height, width = scene.images.shape[-2:]
    pose = encode_pose(truth.extrinsics[None], truth.intrinsics[None], (height, width))
    seen = truth.depth > 0
    depth = (outputs["depth"][0, ..., 0].clamp(min=1e-3)[seen] / truth.depth[seen]).log().abs().mean()
    distance = (outputs["world_points"][0] - truth.world_points)[seen].norm(dim=-1)
    points = (distance / truth.world_points[seen].norm(dim=-1)).mean()
    tracks = (outputs["track"][0] - truth.tracks).abs().mean() / 16
    loss: Tensor = (outputs["pose_enc"] - pose).abs().mean() + depth + points + tracks
    return loss


@torch.no_grad()
def predict(model: nn.Module, scene: Scene) -> dict[str, Tensor]:
    """The published outputs of what a tool made, which may be of a class of its own."""
    outputs = forward(model, scene)
    return {name: outputs[name].float().cpu() for name in OUTPUTS if name in outputs}


TOOLS: dict[str, Callable[[VGGT, list[Scene], int], tuple[nn.Module, Choice, str, str]]] = {
    "nncf": nncf,
    "modelopt": modelopt,
}


def compete(tool: str, budget: int, count: int, held_out_count: int, seed: int, out: Path) -> dict[str, object]:
    """Let a tool choose, run what it made on the held-out scenes, and say what it chose."""
    torch.set_num_threads(1)
    model = load_vggt("tiny")
    calibration, held_out = calibration_and_held_out(model, count, held_out_count, seed)
    start = time.perf_counter()
    quantized, choice, setting, version = TOOLS[tool](copy.deepcopy(model), calibration, budget)
    seconds = time.perf_counter() - start
    torch.save([predict(quantized, scene) for scene in held_out], out)
    return {
        "tool": tool,
        "version": version,
        "setting": setting,
        "seconds": round(seconds, 1),
        "size_bytes": file_bytes(model, choice),
        "formats": choice,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=sorted(TOOLS))
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--held-out", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    result = compete(
        arguments.tool, arguments.budget, arguments.scenes, arguments.held_out, arguments.seed, arguments.out
    )
    print(json.dumps(result))
