"""What OpenVINO gives of a file, by the names of its outputs."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from mixedprec import packed, uniform_assignment
from tests.random_vggt import random_vggt
from vggtkit.metrics.tensors import nmse
from vggtkit.model.config import VGGTConfig
from vggtkit.model.outputs import OUTPUTS
from vggtkit.quant import find_layers
from vggtkit.runtime.onnx.file import write
from vggtkit.runtime.onnx.styles import operators
from vggtkit.runtime.onnx.trace import ANY, Shapes, trace
from vggtkit.runtime.openvino.compiled import Compiled


def test_an_output_has_its_name_whatever_else_hands_it_on(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("images", "vis"))
    nodes = [helper.make_node("Abs", ["images"], ["a"]), helper.make_node("Identity", ["a"], ["vis"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    onnx.save(model, tmp_path / "model.onnx")
    images = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])
    found = Compiled(tmp_path / "model.onnx")(images=images, query_points=torch.zeros(1))
    assert list(found) == ["vis"]
    torch.testing.assert_close(found["vis"], images.abs())


def in_fp32(path: Path, images: Tensor, points: Tensor | None = None) -> dict[str, Tensor]:
    """What OpenVINO makes of a file where it does not compute in bfloat16."""
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled([images.numpy()] if points is None else [images.numpy(), points.numpy()])
    return {min(port.get_names() & set(OUTPUTS)): torch.from_numpy(found[port].copy()) for port in compiled.outputs}


@pytest.mark.parametrize("views", [4, 5])
def test_as_many_pictures_as_heads_are_no_heads(tiniest_config: VGGTConfig, views: int, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = random_vggt(replace(tiniest_config, camera_num_heads=4)).with_heads(["camera"])
    images = torch.rand(1, views, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images)["pose_enc"]
        plain = dict.fromkeys((layer.name for layer in find_layers(model)), None)
        write(trace(model, Shapes(32, 32, views), plain, standard=True), tmp_path / "model.onnx")
    assert nmse(expected, in_fp32(tmp_path / "model.onnx", images)["pose_enc"]) < 1e-9


@pytest.mark.parametrize(
    ("head", "style", "points"),
    [
        ("camera", "exact", ANY),
        pytest.param("camera", "dynamic", ANY, marks=pytest.mark.slow),
        pytest.param("track", "exact", 2, marks=pytest.mark.slow),
        pytest.param("track", "exact", ANY, marks=pytest.mark.slow),
    ],
)
def test_files_for_onnx_runtime_are_read(
    tiniest_config: VGGTConfig, head: str, style: str, points: int, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    model = random_vggt(tiniest_config, spread=0.05).with_heads([head])
    images = torch.rand(1, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    followed = torch.tensor([[[5.0, 9.0], [20.0, 3.0]]]) if head == "track" else None
    with torch.no_grad(), packed(model, uniform_assignment(find_layers(model), "int8_per_channel_sym")):
        expected = model(images, followed)
        write(trace(model, Shapes(32, 32, 3, points), operators(model, style)), tmp_path / "model.onnx")
    found = in_fp32(tmp_path / "model.onnx", images, followed)
    assert max(nmse(expected[name], value) for name, value in found.items()) < 1e-9
