"""What `benchmarks.openvino_speed` compares, made: a plan's files, OpenVINO's, and NNCF's; one of them a process.

Run: ``python benchmarks/openvino_files.py WHAT --folder DIR [--model tiny|vggt-1b] [--blocks 4] [--threads 2]``; the
last line is JSON. ``ours`` comes before ``ours by openvino``, and ``openvino fp32`` before NNCF's two.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.steps import make_checkpoint, make_plan_of_run, make_profile
from analysis.steps.plan import Extras
from benchmarks.onnx_speed import HEADS, OUTPUTS
from benchmarks.speed import FORMATS, FULL_SIZE, SIZES
from mixedprec import data_free, load_quantized, parse_request, planned, save_quantized
from vggtkit.core.memory import peak_resident_bytes
from vggtkit.model import VGGT, VGGTConfig, load_vggt
from vggtkit.runtime.backend import RUNNABLE, Options, is_whole
from vggtkit.runtime.onnx.file import write
from vggtkit.runtime.onnx.file_backend import Inputs
from vggtkit.runtime.onnx.styles import operators
from vggtkit.runtime.onnx.trace import Shapes, trace
from vggtkit.runtime.openvino.backend import OpenVino
from vggtkit.runtime.reference import told_executions
from vggtkit.scenes import SceneSource
from vggtkit.scenes.sampling import Split
from vggtkit.scenes.synthetic import synthetic_scenes
from vggtkit.subject import subject_of

if TYPE_CHECKING:
    import nncf

MAKERS = ("ours", "ours by openvino", "openvino fp32", "openvino int8", "openvino int4")
GROUP = 128
CALIBRATED, JUDGED = 4, 8
"""Rooms."""
BUDGET = "4.2bpw"
REFERENCE = "outputs.pt"


class Network(NamedTuple):
    """What is compared.

    Attributes:
        name: of the model.
        blocks: of every kind, of VGGT-1B; 0: all.
    """

    name: str
    blocks: int

    @property
    def fits(self) -> bool:
        """Whether several copies in FP32 do."""
        return self.name != FULL_SIZE

    def scenes(self, split: Split) -> list[Tensor]:
        """``[1, S, 3, H, W]`` each: rooms of a split, or noise."""
        views, height, width = SIZES[self.name]
        if not self.fits:
            return [torch.rand(1, views, 3, height, width, generator=torch.Generator().manual_seed(0))]
        count = CALIBRATED if split == "calibration" else JUDGED
        return [room.images[None] for room in synthetic_scenes(count, views, (height, width), split=split)]

    def model(self) -> VGGT:
        """With the heads that are compared."""
        if not self.blocks:
            return load_vggt(self.name, weights="random" if self.name == FULL_SIZE else "pretrained").with_heads(HEADS)
        count = self.blocks
        read = tuple(place * count // 4 for place in range(4))
        config = replace(VGGTConfig(), vit_depth=count, aggregator_depth=count, dpt_layer_idx=read)
        torch.manual_seed(0)
        return VGGT(config).with_heads(HEADS).eval()


def make(what: str, network: Network, budget: str, folder: Path) -> dict[str, Any]:
    """Write one of `MAKERS` into a folder: ``model.safetensors`` and two files of ONNX, or one of OpenVINO."""
    begun, of_processor = time.perf_counter(), time.process_time()
    if what == "ours":
        found = _make_ours(network, budget, folder)
    elif what == "ours by openvino":
        found = _make_ours_by_openvino(network, folder)
    else:
        found = _make_openvino(what, network, folder)
    taken = {"seconds": time.perf_counter() - begun, "processor_seconds": time.process_time() - of_processor}
    return found | taken | {"peak_gigabytes": peak_resident_bytes() / 1e9}


def _make_ours(network: Network, budget: str, folder: Path) -> dict[str, Any]:
    scenes = network.scenes("evaluation")
    subject = subject_of(network.model())
    assert isinstance(subject.model, VGGT)
    if network.fits:
        _profiled(subject.model, budget, folder / "model.safetensors")
    _keep_outputs(subject.model, scenes, folder / REFERENCE)
    if not network.fits:
        request = parse_request(budget, formats=",".join(FORMATS))
        plan = planned(data_free(network.name, subject, candidates=FORMATS), subject, request).plan
        save_quantized(subject, plan.formats, folder / "model.safetensors")
    else:
        _write_onnx(subject.model, scenes[0], folder)
    return {"plan_bytes": (folder / "model.safetensors").stat().st_size}


@torch.no_grad()
def _write_onnx(model: VGGT, images: Tensor, folder: Path) -> None:
    """The plan's files for ONNX Runtime, and FP32's."""
    _, views, _, height, width = images.shape
    shapes = Shapes(height, width, views)
    packed = load_quantized(folder / "model.safetensors")
    assert isinstance(packed, VGGT)
    for style in ("dynamic", "auto"):
        write(trace(packed, shapes, operators(packed, style)), folder / f"{style}.onnx")
    write(trace(model, shapes, operators(model, "exact")), folder / "fp32.onnx")


def _make_ours_by_openvino(network: Network, folder: Path) -> dict[str, Any]:
    """What the backend writes when it is shown the first scene."""
    packed = subject_of(load_quantized(folder / "model.safetensors"))
    assert isinstance(packed.model, VGGT)
    executions = {"whole": {layer.name: "int8" for layer in packed.layers}}
    if network.fits:
        executions["told"] = told_executions(packed, Options())
    inputs = Inputs(network.scenes("evaluation")[0], torch.zeros(1, 1, 2))
    for name, told in executions.items():
        OpenVino().load(packed.model, told, inputs, folder / f"{name}.onnx")
    return {"in_floating_point": sum(not is_whole(how) for how in executions.get("told", {}).values())}


def _profiled(model: VGGT, budget: str, path: Path) -> None:
    """The checkpoint of a plan that is made for ``openvino``."""
    with tempfile.TemporaryDirectory() as folder:
        run, source = Path(folder) / "run", Path(folder) / "network"
        source.mkdir()
        save_file(model.state_dict(), source / "model.safetensors")
        (source / "config.json").write_text(model.config.to_json(), encoding="utf-8")
        rooms = SceneSource("synthetic", None, count=CALIBRATED)
        make_profile(run, str(source), "pretrained", rooms, probes=4, disk_budget="50MB", device="cpu", seed=0)
        make_plan_of_run(run, parse_request(budget, formats=RUNNABLE), extras=Extras(execute="openvino"))
        make_checkpoint(run, "plan")
        for made in run.glob("model-plan.*"):
            made.replace(path.with_suffix(made.suffix))


@torch.no_grad()
def _keep_outputs(model: nn.Module, scenes: Sequence[Tensor], path: Path) -> None:
    outputs = []
    for images in scenes:
        returned = model(images)
        outputs.append({key: returned[key].clone() for key in OUTPUTS})
    torch.save(outputs, path)


def _make_openvino(what: str, network: Network, folder: Path) -> dict[str, Any]:
    import openvino

    path = folder / f"{what.replace(' ', '-')}.xml"
    if what == "openvino fp32":
        images = network.scenes("evaluation")[0]
        with torch.no_grad():
            program = torch.export.export(_Outputs(network.model(), images).eval(), (images,))
            openvino.save_model(openvino.convert_model(program), path, compress_to_fp16=False)
        return {}
    import nncf

    model = openvino.Core().read_model(folder / "openvino-fp32.xml")
    if what == "openvino int8":
        scenes = [images.numpy() for images in network.scenes("calibration")]
        found = nncf.quantize(
            model, nncf.Dataset(scenes), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(scenes),
            advanced_parameters=None if network.fits else _without_copies(),
        )  # fmt: skip
    else:
        adjusted = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
        found = nncf.compress_weights(
            model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=GROUP, ratio=1.0, advanced_parameters=adjusted
        )
    openvino.save_model(found, path, compress_to_fp16=False)
    return {"nncf": nncf.__version__}


def _without_copies() -> nncf.AdvancedQuantizationParameters:
    """Of NNCF's INT8: no SmoothQuant, which copies every weight in FP32, and no biases corrected by more passes."""
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters

    left_out = AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
    return nncf.AdvancedQuantizationParameters(disable_bias_correction=True, smooth_quant_alphas=left_out)


class _Outputs(nn.Module):
    """The outputs that are compared, in their order.

    The position embedding is resized beforehand, as in our files of ONNX: OpenVINO has no bicubic resizing that
    smooths.
    """

    def __init__(self, model: VGGT, images: Tensor) -> None:
        super().__init__()
        self.model = model
        backbone, patch = model.aggregator.patch_embed, model.config.patch_size
        position = backbone._position(images.shape[-2] // patch, images.shape[-1] // patch).clone()
        backbone._position = lambda *_size: position  # type: ignore[method-assign]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        returned = self.model(images)
        return tuple(returned[name] for name in OUTPUTS)


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """What both commands are asked."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", choices=list(SIZES), default="tiny")
    parser.add_argument("--blocks", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--budget", default=BUDGET)
    parser.add_argument("--folder", type=Path, help="to keep what is made in")
    return parser


if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=MAKERS)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    print(json.dumps(make(asked.what, Network(asked.model, asked.blocks), asked.budget, asked.folder)))
