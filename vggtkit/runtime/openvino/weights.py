"""What every layer of a plan multiplies with in OpenVINO.

Codes are the plan's, bit for bit. Signed activations are rounded symmetrically, which OpenVINO's products fuse with
what follows them; those that are never negative, as behind a rectifier, to unsigned codes, twice as fine and faster.
Linear layers whose inputs a plan does not round keep 8-bit weights in memory, which are expanded as they are
multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vggtkit.model import VGGT
from vggtkit.quant import Layer, PackedWeight, find_layers
from vggtkit.runtime.backend import is_whole
from vggtkit.runtime.codes import is_int8
from vggtkit.runtime.onnx.qdq import QdqWeight, Span, rounded, step_of
from vggtkit.runtime.onnx.tensors import FileTensor
from vggtkit.runtime.onnx.weights import Codes, TensorsByName
from vggtkit.runtime.processor import missing_for_int8

LARGEST_UNSIGNED = 255
LEAST_OUTPUTS = 16
"""A layer with fewer, as the last of every head, gains nothing in whole numbers, and nothing after it would hide what
rounding its input does."""


class Unsigned(QdqWeight):
    """8-bit weights, and unsigned 8-bit activations with one scale."""

    def steps(self) -> dict[str, FileTensor]:
        """As `QdqWeight.steps`."""
        return {"step": step_of(self.inputs.magnitude, LARGEST_UNSIGNED)}

    def rounded(self, x: Tensor, tensors: TensorsByName) -> Tensor:
        """As `QdqWeight.rounded`."""
        return rounded(x, tensors["step"], signed=False)


class Expanded(QdqWeight):
    """8-bit weights, and activations in floating point."""

    way = "INT8 weights alone"

    def steps(self) -> dict[str, FileTensor]:
        """None."""
        return {}

    def rounded(self, x: Tensor, tensors: TensorsByName) -> Tensor:  # noqa: ARG002
        """As it is."""
        return x


def operands(
    model: VGGT, told: Mapping[str, str], spans: Mapping[str, Span] | None = None
) -> dict[str, QdqWeight | None]:
    """What every layer multiplies with, by name; None for a weight that is expanded while the file is loaded.

    Args:
        model: packed.
        told: of `vggtkit.runtime.backend.EXECUTIONS`, by the layers whose plan decides them.
        spans: of inputs; none where only the kinds of weights matter.
    """
    layers = find_layers(model)
    return {layer.name: _operand(model, layer, told, (spans or {}).get(layer.name, Span())) for layer in layers}


def _operand(model: VGGT, layer: Layer, told: Mapping[str, str], span: Span) -> QdqWeight | None:
    packed = getattr(model.get_submodule(layer.name), "packed", None)
    if not isinstance(packed, PackedWeight) or not is_int8(packed.format.key):
        return None
    codes = Codes(packed.quantized)
    if why_not_whole(model, layer, told):
        return Expanded(codes, span, layer.kind) if layer.kind == "linear" else None
    return (QdqWeight if span.low < 0 else Unsigned)(codes, span, layer.kind)


def why_not_whole(model: VGGT, layer: Layer, told: Mapping[str, str]) -> str:
    """Why a layer is not computed in whole numbers; "" where it is."""
    packed = getattr(model.get_submodule(layer.name), "packed", None)
    if not isinstance(packed, PackedWeight):
        return "kept in FP32"
    if missing := missing_for_int8():
        return f"this processor has no {missing}"
    if not is_whole(told.get(layer.name)):
        return f"the plan keeps it in {told[layer.name]}"
    if not is_int8(packed.format.key):
        return f"{packed.format.key} is not INT8 per channel"
    return "" if layer.shape[0] >= LEAST_OUTPUTS else "its outputs are too few to gain from INT8"
