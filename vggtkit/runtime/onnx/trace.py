"""A packed VGGT -> a graph of ONNX, whose tensors are made when it is written.

Only the structure is traced, with placeholders that take no memory: a weight is unpacked, and packed as its operator
wants it, once, when the file is written.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from vggtkit.model import VGGT
from vggtkit.model.dpt_head import DPTFeatures, Fusion
from vggtkit.model.layers import Attention, CrossAttention, QKVProjection
from vggtkit.model.loading import skeleton
from vggtkit.model.outputs import OUTPUTS, outputs_of_head
from vggtkit.quant import Layer, PackedWeight, find_layers, from_out_first
from vggtkit.runtime.fewer_operations import convolved_before_resized
from vggtkit.runtime.onnx import standins
from vggtkit.runtime.onnx.constants import without_constant_products
from vggtkit.runtime.onnx.initializers import fill
from vggtkit.runtime.onnx.qdq import QdqWeight
from vggtkit.runtime.onnx.splits import without_sequences
from vggtkit.runtime.onnx.tensors import WRITERS, FileTensor, as_it_is, check_packages, plain
from vggtkit.runtime.onnx.weights import OnnxWeight, decoded_weight

if TYPE_CHECKING:
    import onnx_ir

OPSET = 21
"""The first whose casts know 4 bits."""
ANY = 0
"""Any number, of `Shapes`."""
NOT_READ = ("aggregator.patch_embed.mask_token", "aggregator.patch_embed.pos_embed")
"""Parameters that a pass does not read: one for training, and one that is resized beforehand."""
TRACED_VIEWS, TRACED_POINTS = 4, 5
"""While the graph is traced for any number of them: the tracer takes some small ones for special cases."""


class Shapes(NamedTuple):
    """What a graph is made for.

    Attributes:
        height: of pictures, in pixels.
        width: likewise.
        views: pictures a scene, or `ANY`.
        points: that are tracked, or `ANY`.
    """

    height: int
    width: int
    views: int = ANY
    points: int = ANY


@dataclass(frozen=True)
class Graph:
    """A graph that is not written yet.

    Attributes:
        model: of `onnx_ir`.
        weights: what every layer multiplies with, by name; None for layers that are computed in FP32.
    """

    model: onnx_ir.Model
    weights: Mapping[str, OnnxWeight | None]


def trace(
    model: VGGT,
    shapes: Shapes,
    weights: Mapping[str, OnnxWeight | None],
    *,
    standard: bool = False,
    largest_scored: Mapping[str, tuple[float, float]] | None = None,
) -> Graph:
    """The graph of a VGGT that is packed; layers that are not are FP32.

    Args:
        model: unchanged; the graph is to be written while it is packed.
        shapes: of its inputs.
        weights: as `operators` gives them, or `qdq_operators`.
        standard: attention in operators of standard ONNX.
        largest_scored: magnitudes of queries and keys of the attentions whose are rounded, by name.

    Raises:
        InputError: a package is missing.
    """
    check_packages(*WRITERS)
    structure = _Structure(model, shapes, weights, largest_scored or {}, standard=standard)
    inputs, names = _inputs(shapes, model)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _InOrder(structure.model).eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=[name for head in model.config.heads for name in outputs_of_head(head)],
            dynamic_shapes=_dynamic(shapes, names),
            optimize=False,
            verbose=False,
        )
    assert program is not None
    fill(program.model, {f"model.{name}": tensor for name, tensor in structure.sources.items()})
    without_sequences(program.model.graph)
    without_constant_products(program.model.graph)
    for node in program.model.graph:
        node.metadata_props.clear()  # where in torch it comes from, most of a small file
    return Graph(program.model, weights)


class _InOrder(nn.Module):
    """The published outputs in their order."""

    def __init__(self, model: VGGT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, query_points: Tensor | None = None) -> tuple[Tensor, ...]:
        returned = self.model(images, query_points)
        return tuple(returned[name] for name in OUTPUTS if name in returned)


class _Structure:
    """The structure of a VGGT whose parameters are placeholders and whose layers are stand-ins.

    Attributes:
        model: that structure.
        sources: tensors of the file, by their names in it.
    """

    def __init__(
        self,
        source: VGGT,
        shapes: Shapes,
        weights: Mapping[str, OnnxWeight | None],
        largest_scored: Mapping[str, tuple[float, float]],
        *,
        standard: bool,
    ) -> None:
        self.source, self.model = source, skeleton(source.config)
        self.sources: dict[str, FileTensor] = {}
        heads = (part for part in self.model.modules() if isinstance(part, DPTFeatures))
        self.of_tokens = {project for head in heads for project in head.projects}
        for layer in find_layers(source):
            self._stand_in(layer, weights[layer.name])
        for name, parameter in list(self.model.named_parameters()):
            if name not in self.sources:
                self._keep(name, parameter)
        for name in NOT_READ:
            del self.sources[name]
        for name, part in self.model.named_modules():
            if isinstance(part, Attention) and name in largest_scored:
                part.forward = attention = standins.RoundedAttention(part, largest_scored[name])  # type: ignore[method-assign]
                self.sources |= {f"{name}.{each}": tensor for each, tensor in attention.tensors.items()}
            elif isinstance(part, Attention) and not standard:
                part.forward = partial(standins.attend_symbolic, part)  # type: ignore[method-assign]
            elif isinstance(part, CrossAttention):
                attend = standins.attend_in_steps if standard else standins.attend_across
                part.forward = partial(attend, part)  # type: ignore[method-assign]
            elif isinstance(part, nn.GroupNorm):
                part.forward = partial(standins.normalise_rows, part)  # type: ignore[method-assign]
            elif isinstance(part, Fusion):
                part.forward = partial(convolved_before_resized, part)  # type: ignore[method-assign]
            elif isinstance(part, DPTFeatures) and shapes.views == ANY:
                part.forward = partial(standins.all_frames, part)  # type: ignore[method-assign]
        self._place(shapes)

    def _stand_in(self, layer: Layer, weight: OnnxWeight | None) -> None:
        """A layer whose weight is packed."""
        packed = getattr(self.source.get_submodule(layer.name), "packed", None)
        if not isinstance(packed, PackedWeight):
            return
        if weight is None:
            self._set(layer.weight_name, self._in_fp32(layer, packed))
            return
        module = self.model.get_submodule(layer.name)
        module.register_parameter(layer.parameter, None)
        if isinstance(module, QKVProjection):
            query, rest = weight.of_rows(slice(0, module.dim)), weight.of_rows(slice(module.dim, 3 * module.dim))
            parts = [standins.Linear(module, query, "query_"), standins.Linear(module, rest, "rest_")]
            module.parts = standins.Projections(*parts)  # type: ignore[method-assign]
        else:
            parts = [self._stand_in_for(layer, module, weight)]
            module.forward = parts[0]
        for part in parts:
            self.sources |= {f"{layer.name}.{name}": tensor for name, tensor in part.tensors.items()}

    def _stand_in_for(self, layer: Layer, module: nn.Module, weight: OnnxWeight) -> standins.Linear:
        """What a layer is traced as."""
        if layer.kind == "linear":
            return standins.Linear(module, weight)
        if module in self.of_tokens and isinstance(weight, QdqWeight):
            return standins.OfTokens(module, weight)
        return standins.Convolution(module, weight)

    def _in_fp32(self, layer: Layer, packed: PackedWeight) -> FileTensor:
        """The weight of a layer that is computed in FP32, in the layout of its module."""
        q, shape = packed.quantized, tuple(self.model.get_parameter(layer.weight_name).shape)
        if q.format.is_float:
            return plain(shape, torch.float32, "FLOAT16", lambda: from_out_first(q.codes, packed.kind))
        return decoded_weight(q, shape, transposed=layer.kind.startswith("conv_transpose"))

    def _keep(self, name: str, parameter: nn.Parameter) -> None:
        """A parameter that is kept in floating point."""
        value = self.source.get_parameter(name)
        assert value.shape == parameter.shape
        self._set(name, as_it_is(value))

    def _set(self, name: str, tensor: FileTensor) -> None:
        """A tensor in the place of a parameter."""
        owner, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(owner)
        module.register_parameter(leaf, nn.Parameter(tensor.placeholder(), requires_grad=False))
        self.sources[name] = tensor

    def _place(self, shapes: Shapes) -> None:
        """The position embedding for this size of picture, as torch resizes it."""
        backbone, patch = self.model.aggregator.patch_embed, self.source.config.patch_size
        with torch.no_grad():
            value = self.source.aggregator.patch_embed._position(shapes.height // patch, shapes.width // patch)
        tensor = as_it_is(value.clone())
        backbone.register_buffer("position", tensor.placeholder(), persistent=False)
        self.sources["aggregator.patch_embed.position"] = tensor
        backbone._position = partial(_registered, backbone)  # type: ignore[method-assign]


def _registered(backbone: nn.Module, *_size: int) -> Tensor:
    position = backbone.position
    assert isinstance(position, Tensor)
    return position


def _inputs(shapes: Shapes, model: VGGT) -> tuple[tuple[Tensor, ...], list[str]]:
    """Inputs to trace with, and their names."""
    views, points = shapes.views or TRACED_VIEWS, shapes.points or TRACED_POINTS
    images = torch.zeros(1, views, 3, shapes.height, shapes.width)
    if "track" not in model.config.heads:
        return (images,), ["images"]
    return (images, torch.zeros(1, points, 2)), ["images", "query_points"]


def _dynamic(shapes: Shapes, names: list[str]) -> tuple[dict[int, torch.export.Dim], ...] | None:
    """The axes of the inputs that may have any length; None where none may."""
    lengths = {"images": (shapes.views, "views", 3), "query_points": (shapes.points, "points", 2)}
    axes = []
    for name in names:
        length, axis, least = lengths[name]
        axes.append({1: torch.export.Dim(axis, min=least, max=2**20)} if length == ANY else {})
    return tuple(axes) if any(axes) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of itself."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
