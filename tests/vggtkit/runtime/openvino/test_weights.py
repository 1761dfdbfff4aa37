"""What layers multiply with in the files for OpenVINO: their numbers by onnx itself, against rounding written out."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from mixedprec import packed, uniform_assignment
from tests.random_vggt import random_vggt
from vggtkit.metrics.tensors import nmse
from vggtkit.model.config import VGGTConfig
from vggtkit.quant import find_layers
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.onnx.file import write
from vggtkit.runtime.onnx.qdq import QdqWeight, Span
from vggtkit.runtime.onnx.trace import Shapes, trace
from vggtkit.runtime.openvino import weights
from vggtkit.runtime.openvino.calibration import spans_of
from vggtkit.runtime.openvino.weights import Expanded, Unsigned, operands


@pytest.fixture(autouse=True)
def a_processor_with_integer_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file holds does not depend on this one; and no layer is too narrow."""
    monkeypatch.setattr(weights, "missing_for_int8", lambda: "")
    monkeypatch.setattr(weights, "LEAST_OUTPUTS", 1)


def rounding(span: Span, _module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    (x,) = inputs
    if span.low < 0:
        step = max(span.high, -span.low) / 127
        return (x / step).round().clamp(-128, 127) * step
    step = span.high / 255
    return (x / step).round().clamp(0, 255) * step


@pytest.mark.slow
def test_a_file_computes_what_its_codes_say(tiniest_config: VGGTConfig, tmp_path: Path) -> None:
    model = random_vggt(tiniest_config).with_heads(["depth"])
    layers, images = find_layers(model), torch.rand(1, 2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    told = {layers[1].name: "bfloat16"}
    with torch.no_grad(), packed(model, uniform_assignment(layers, "int4_two_level_16")), ExitStack() as undo:
        with spans_of(model) as spans:
            exact = model(images)["depth"]
        chosen = operands(model, told, spans.inputs)
        write(trace(model, Shapes(32, 48, 2), chosen, standard=True), tmp_path / "model.onnx")
        evaluator = ReferenceEvaluator(str(tmp_path / "model.onnx"))
        outputs = dict(zip(evaluator.output_names, evaluator.run(None, {"images": images.numpy()}), strict=True))
        for name, weight in chosen.items():
            if weight is not None and not isinstance(weight, Expanded):
                hook = partial(rounding, spans.inputs[name])
                undo.callback(model.get_submodule(name).register_forward_pre_hook(hook).remove)
        with spans_of(model):  # in the order of operations of the file
            expected = model(images)["depth"]
    assert {type(weight) for weight in chosen.values()} == {QdqWeight, Unsigned, Expanded}
    assert isinstance(chosen[layers[1].name], Expanded)
    assert isinstance(chosen["depth_head.scratch.refinenet1.resConfUnit2.conv1"], Unsigned)
    found = torch.from_numpy(outputs["depth"])
    assert nmse(expected, found) < 0.1 * nmse(exact, found)


def test_evidence_of_inputs_is_that_of_one_scale() -> None:
    backend = BACKENDS["openvino"]
    assert backend.rounds_inputs_to("int3_two_level_16") == "int8_tensor"
    assert backend.rounds_inputs_to("int4_group_32") is None
