"""What OpenVINO gives of a file, by the names of its outputs."""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

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
