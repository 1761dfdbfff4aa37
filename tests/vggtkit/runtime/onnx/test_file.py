"""A VGGT as a file: any number of views, all heads, the numbers of torch; what is refused."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
import torch
from torch import Tensor

from mixedprec import packed
from tests.random_vggt import random_vggt
from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse
from vggtkit.model import VGGT
from vggtkit.model.config import VGGTConfig
from vggtkit.quant import find_layers
from vggtkit.runtime import int8
from vggtkit.runtime.onnx import file as files
from vggtkit.runtime.onnx.file import WrittenGraph, difference, move_graph, operators_of, write
from vggtkit.runtime.onnx.session import Session
from vggtkit.runtime.onnx.styles import operators
from vggtkit.runtime.onnx.trace import Graph, Shapes, trace
from vggtkit.scenes import SceneSource, load_scenes
from vggtkit.scenes.photos import load_photos

HEIGHT, WIDTH = 32, 48
pytestmark = pytest.mark.slow

MIXED = (
    "int4_two_level_16",
    "int3_asym_32",
    "int8_per_channel_sym",
    "fp16",
    "int2_group_32",
    "fp32",
    "int5_two_level_64",
)
"""Formats that layers get in turn."""


class Exported(NamedTuple):
    """A packed model, its graph and its file."""

    model: VGGT
    graph: Graph
    written: WrittenGraph


def inputs(views: int, points: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(views)
    return torch.rand(1, views, 3, HEIGHT, WIDTH, generator=generator), torch.rand(
        1, points, 2, generator=generator
    ) * 31


def exported(model: VGGT, folder: Path, shapes: Shapes, style: str) -> Iterator[Exported]:
    layers = find_layers(model)
    formats = {layer.name: MIXED[number % len(MIXED)] for number, layer in enumerate(layers)}
    with torch.no_grad(), packed(model, formats):
        graph = trace(model, shapes, operators(model, style))
        yield Exported(model, graph, write(graph, folder / "model.onnx", {"scheme": "mixed"}))


@pytest.fixture(scope="module")
def whole(tiniest_config: VGGTConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """All kinds of heads, FP32 products, a fixed number of views."""
    shapes, model = Shapes(HEIGHT, WIDTH, views=2, points=5), random_vggt(tiniest_config)
    yield from exported(
        model.with_heads(["camera", "point", "track"]), tmp_path_factory.mktemp("whole"), shapes, "exact"
    )


@pytest.fixture(scope="module")
def dense(tiniest_config: VGGTConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """Cameras and depth, 8-bit activations, any number of views."""
    model = random_vggt(tiniest_config).with_heads(["camera", "depth"])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LARGE_WEIGHTS", "SMALL_MODEL"):  # no layer is too small for whole numbers
            patch.setattr(int8, name, 0)
        yield from exported(model, tmp_path_factory.mktemp("dense"), Shapes(HEIGHT, WIDTH), "auto")


def test_with_fp32_products_outputs_are_those_of_torch(whole: Exported) -> None:
    images, points = inputs(2)
    expected, found = whole.model(images, points), Session(whole.written.path)(images=images, query_points=points)
    assert list(found) == ["pose_enc", "world_points", "world_points_conf", "track", "vis", "conf"]
    for name, value in found.items():
        assert value.shape == expected[name].shape
        assert nmse(expected[name], value) < 1e-10, name


@pytest.mark.parametrize("views", [1, 2, 5, 9])
def test_any_number_of_views_is_taken(dense: Exported, views: int) -> None:
    """Nine are more than torch's own dense heads take at once."""
    images, points = inputs(views)
    expected, found = dense.model(images), Session(dense.written.path)(images=images, query_points=points)
    for name, value in found.items():
        assert value.shape == expected[name].shape
        assert 0 < nmse(expected[name], value) < 1e-3, name


def assert_as_in_torch(dense: Exported, images: Tensor) -> None:
    """Pictures ``[S, 3, H, 48]``, of which the upper rows are seen."""
    seen = images[None, :, :, :HEIGHT]
    expected, found = dense.model(seen), Session(dense.written.path)(images=seen)
    assert found.keys() == {"pose_enc", "depth", "depth_conf"}
    for name, value in found.items():
        assert nmse(expected[name], value) < 1e-3, name


def test_rendered_rooms_come_out_as_in_torch(dense: Exported) -> None:
    source = SceneSource(count=1, views=3)
    assert_as_in_torch(dense, load_scenes(source, "evaluation", img_size=WIDTH, patch_size=8)[0].images)


def test_photographs_come_out_as_in_torch(dense: Exported, shared_dir: Path) -> None:
    photographs = sorted((shared_dir / "data" / "kitchen").glob("*.png"))[:3]
    assert_as_in_torch(dense, load_photos(photographs, target_size=WIDTH, patch_size=8))


def test_the_file_is_of_the_form_and_says_what_it_is(dense: Exported) -> None:
    model = onnx.load(dense.written.path)
    onnx.checker.check_model(model)
    assert {entry.key: entry.value for entry in model.metadata_props}["scheme"] == "mixed"
    assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][2:] == [
        3,
        32,
        48,
    ]
    counted = dict(dense.written.operators)
    nodes = [node.op_type for node in model.graph.node]
    for operator in ("MatMulNBits", "DynamicQuantizeMatMul", "MultiHeadAttention", "Conv"):
        assert counted[operator] == nodes.count(operator) > 0
    assert "Cast" in nodes
    weights = [weight.way for weight in dense.graph.weights.values() if weight]
    assert len(weights) == counted["MatMulNBits"] + counted["DynamicQuantizeMatMul"] - repeated(dense)


def repeated(dense: Exported) -> int:
    """Further products with weights that are multiplied with several times, as the camera head's in its iterations."""
    head = [name for name, weight in dense.graph.weights.items() if weight and name.startswith("camera_head.")]
    return 3 * len(head)


def test_weights_take_the_bytes_of_their_containers(dense: Exported) -> None:
    """Kept tensors are in FP16, as the packed model has them, and no placeholder is left."""
    model = onnx.load(dense.written.path)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    norms = [kind for name, kind in kinds.items() if ".norm" in name]
    assert set(norms) == {onnx.TensorProto.FLOAT16}
    assert onnx.TensorProto.INT4 in kinds.values()
    assert not any(name.endswith("placeholder") for name in kinds)


def test_operators_of_the_weights_alone_are_not_counted(dense: Exported) -> None:
    assert sum(operators_of(dense.graph.model).values()) < len(list(dense.graph.model.graph)) / 2


def test_large_weights_go_into_a_file_beside_it(
    dense: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST_IN_ONE", 1000)
    written = move_graph(write(dense.graph, tmp_path / "model.onnx"), tmp_path / "there" / "model.onnx")
    assert written.data == tmp_path / "there" / "model.onnx.data"
    assert written.size_bytes == sum(path.stat().st_size for path in (written.path, written.data))
    assert os.listdir(tmp_path) == ["there"]  # noqa: PTH208
    images, points = inputs(3)
    ours, other = (Session(path)(images=images, query_points=points) for path in (dense.written.path, written.path))
    assert all(ours[name].equal(other[name]) for name in ours)


def test_what_is_computed_wrongly_is_refused(dense: Exported) -> None:
    images, points = inputs(3)
    expected, session = dense.model(images), Session(dense.written.path)
    assert max(difference(session, expected, images, points).values()) < 1e-3
    for broken in (-expected["depth"], expected["depth"] * float("nan")):
        with pytest.raises(InputError, match="another depth than torch"):
            difference(session, {**expected, "depth": broken}, images, points)


def test_names_that_are_not_of_the_kind_are_refused(dense: Exported, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        write(dense.graph, tmp_path / "model.bin")
    with pytest.raises(InputError, match="ONNX style"):
        operators(dense.model, "fast")
    assert not list(tmp_path.iterdir())
