"""The style for TensorRT: standard operators alone, by its rules, and the numbers of torch."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from mixedprec import packed
from tests.random_vggt import random_vggt
from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse
from vggtkit.model import VGGT
from vggtkit.model.config import VGGTConfig
from vggtkit.model.layers import Attention, CrossAttention
from vggtkit.quant import find_layers
from vggtkit.runtime.codes import converted
from vggtkit.runtime.onnx.file import write
from vggtkit.runtime.onnx.qdq import Int4, QdqWeight, Span, input_spans, qdq_operators
from vggtkit.runtime.onnx.session import Session
from vggtkit.runtime.onnx.standins import attend_in_steps
from vggtkit.runtime.onnx.trace import Shapes, trace
from vggtkit.runtime.onnx.weights import OnnxWeight

TAKEN = ("int4_group_64", "int8_per_channel_sym", "int4_two_level_16", "fp16")
SIZE = (32, 48)


class Exported(NamedTuple):
    """A file, its weights, its input, and what torch gives."""

    model: onnx.ModelProto
    path: Path
    weights: dict[str, OnnxWeight | None]
    again: dict[str, float]
    spans: dict[str, Span]
    images: Tensor
    expected: dict[str, Tensor]


@pytest.fixture(scope="module")
def exported(tiniest_config: VGGTConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """Cameras alone; INT4 groups of 64 fit only rows of 64 weights and more."""
    model = random_vggt(tiniest_config).with_heads(["camera", "depth"])
    formats = {layer.name: TAKEN[number % len(TAKEN)] for number, layer in enumerate(find_layers(model))}
    images = torch.rand(1, 2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("qdq") / "model.onnx"
    with torch.no_grad(), packed(model, formats):
        with input_spans(model) as spans:
            expected = model(images)
        weights, again = qdq_operators(model, spans, convert=True)
        write(trace(model, Shapes(*SIZE, 2), weights, standard=True), path)
        yield Exported(onnx.load(path), path, weights, again, spans, images, expected)


def test_outputs_are_near_those_of_torch(exported: Exported) -> None:
    for name, value in Session(exported.path)(images=exported.images).items():
        assert 0 < nmse(exported.expected[name], value) < 1e-3, name


def test_the_rules_are_kept(exported: Exported) -> None:
    """Standard operators, no zero points, signed codes, a scale per tensor of activations, per channel of weights."""
    graph = exported.model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    assert {node.domain for node in graph.node} == {""}
    assert not any("Sequence" in node.op_type for node in graph.node)
    activations, weights = Counter(), Counter()
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        assert len(node.input) == 2
        scales = numpy_helper.to_array(values[node.input[1]])
        assert scales.dtype == np.float32
        assert (scales > 0).all()
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if node.input[0] not in values:
            assert scales.shape == ()
            activations[node.op_type] += 1
            continue
        codes = values[node.input[0]]
        assert codes.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.INT4)
        if "block_size" in attributes:
            assert (attributes["block_size"], attributes["axis"]) == (64, 1)
        else:
            assert scales.shape == (codes.dims[attributes["axis"]],)
        weights[onnx.TensorProto.DataType.Name(codes.data_type)] += 1
    assert activations["QuantizeLinear"] == activations["DequantizeLinear"] > weights["INT8"] - 1
    kinds = Counter(type(weight) for weight in exported.weights.values())
    assert weights == {"INT8": kinds[QdqWeight], "INT4": kinds[Int4]}


def test_what_is_rounded_once_more_is_said_with_its_error(exported: Exported, tiniest_config: VGGTConfig) -> None:
    assert exported.again
    assert 0 < max(exported.again.values()) < 1e-3
    model: VGGT = random_vggt(tiniest_config)
    name = "camera_head.trunk.0.attn.proj"
    formats = dict.fromkeys((layer.name for layer in find_layers(model)), "fp16") | {name: "int3_asym_32"}
    with packed(model, formats):
        with pytest.raises(InputError, match=rf"1 layers .* {name} \(int3_asym_32\)"):
            qdq_operators(model, exported.spans)
        weights, again = qdq_operators(model, {name: 1.0}, convert=True)
        assert again == {name: converted(model.get_submodule(name).packed.quantized)[1]}
    assert [layer for layer, weight in weights.items() if weight] == [name]


@pytest.mark.slow
def test_queries_and_keys_are_rounded_where_they_are_asked_for(
    tiniest_config: VGGTConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime against torch with the rounding written out; scales so coarse that it shows."""
    model = random_vggt(tiniest_config).with_heads(["camera"])
    images = torch.rand(1, 2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    largest = {name: (40.0, 30.0) for name, part in model.named_modules() if isinstance(part, Attention)}
    weights = dict.fromkeys(layer.name for layer in find_layers(model))
    write(trace(model, Shapes(*SIZE, 2), weights, standard=True, largest_scored=largest), tmp_path / "model.onnx")
    found = Session(tmp_path / "model.onnx")(images=images)["pose_enc"]
    exact, parts = Attention.parts, (40.0 / 127, 30.0 / 127)

    def rounded(self: Attention, *given: object) -> tuple[Tensor, ...]:
        q, k, v = exact(self, *given)
        return (q / parts[0]).round() * parts[0], (k / parts[1]).round() * parts[1], v

    with torch.no_grad():
        plain = model(images)["pose_enc"]
        monkeypatch.setattr(Attention, "parts", rounded)
        expected = model(images)["pose_enc"]
    assert nmse(expected, found) < 0.01 * nmse(plain, found)


def test_the_trackers_attention_in_steps_is_the_published_one() -> None:
    generator = torch.Generator().manual_seed(0)
    attention = CrossAttention(16, 2)
    x, context = torch.randn(2, 5, 16, generator=generator), torch.randn(2, 7, 16, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(attend_in_steps(attention, x, context), attention(x, context))
        torch.testing.assert_close(attend_in_steps(attention, x, x), attention(x, x))
