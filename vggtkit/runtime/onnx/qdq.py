"""Weights and activations between ``QuantizeLinear`` and ``DequantizeLinear`` of standard ONNX, for TensorRT.

Its rules for explicit quantisation: symmetric; weights in INT8 with a scale per output channel, or in INT4 with scales
in blocks of 64 or 128 along the input, whose activations stay in floating point; activations in INT8 with one scale per
tensor, fixed beforehand: the largest input of the layer on a scene, over 127. Zero points of 0 are left out: ONNX
Runtime 1.32 cannot load them where a product with a bias follows.

Source: NVIDIA, "TensorRT Documentation: Explicit Quantization".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.model import VGGT
from vggtkit.quant import Layer, PackedWeight, QuantizedTensor, find_layers
from vggtkit.runtime.codes import converted, expanded, is_int8
from vggtkit.runtime.onnx.tensors import FileTensor, Operate, Stored, plain
from vggtkit.runtime.onnx.weights import Codes, OnnxWeight, TensorsByName

if TYPE_CHECKING:
    import onnx_ir

BLOCKS = (64, 128)
"""That TensorRT takes of INT4."""
LARGEST_CODE = 127
INT8, UINT8 = 3, 2
"""ONNX's numbers of the types."""
PLANNABLE = "int8_per_channel_sym,int4_two_level_64,fp16"
"""Formats that a plan may have, as it is asked for."""


class Span(NamedTuple):
    """The smallest and the largest of a layer's inputs, and 0."""

    low: float = 0.0
    high: float = 0.0

    @property
    def magnitude(self) -> float:
        """Of the largest of both signs."""
        return max(-self.low, self.high)

    def with_all(self, x: Tensor) -> Span:
        """The span of these and more."""
        low, high = (float(each) for each in x.detach().aminmax())
        return Span(min(low, self.low), max(high, self.high))


class QdqWeight(OnnxWeight):
    """8 bits per output channel, and 8-bit activations with one scale.

    Args:
        codes: of a weight that is INT8 per channel, in whatever form.
        inputs: of the layer.
        kind: of the layer.
    """

    way = "Q/DQ: INT8 weights and activations"

    def __init__(self, codes: Codes, inputs: Span, kind: str = "linear") -> None:
        super().__init__(codes)
        self.inputs, self.kind = inputs, kind

    def of_rows(self, rows: slice) -> QdqWeight:
        """As `OnnxWeight.of_rows`."""
        return type(self)(Codes(self.codes.q, rows), self.inputs, self.kind)

    def of_kind(self, kind: str) -> QdqWeight:
        """The same for a layer of another kind that computes the same."""
        return type(self)(self.codes, self.inputs, kind)

    def tensors(self) -> dict[str, FileTensor]:
        """As `OnnxWeight.tensors`; the weight is in the layout of its product."""
        shape, rows = self.codes.q.shape, self.codes.rows
        is_swapped = not self.kind.startswith("conv") or self.kind.startswith("conv_transpose")
        layout = (self.codes.columns, rows) if not self.kind.startswith("conv") else tuple(shape)
        if self.kind.startswith("conv_transpose"):
            layout = (shape[1], shape[0], *shape[2:])

        def codes() -> Tensor:
            whole = expanded(self.codes.q).codes[self.codes.slice]
            whole = whole if not self.kind.startswith("conv") else whole.view(shape)
            return whole.transpose(0, 1) if is_swapped else whole

        parts = {
            "codes": Stored(layout, "INT8", codes),
            "scales": Stored((rows,), "FLOAT", lambda: expanded(self.codes.q).scales[self.codes.slice]),
        }
        compute = partial(_dequantised, axis=int(is_swapped))
        return {"matrix": FileTensor(layout, torch.float32, parts, compute), **self.steps()}

    def steps(self) -> dict[str, FileTensor]:
        """What its input is rounded with."""
        return {"step": step_of(self.inputs.magnitude)}

    def rounded(self, x: Tensor, tensors: TensorsByName) -> Tensor:
        """The input, quantised and dequantised."""
        return rounded(x, tensors["step"])

    def multiply(self, x: Tensor, tensors: TensorsByName, bias: Tensor | None) -> Tensor:
        """As `OnnxWeight.multiply`."""
        y = self.rounded(x, tensors) @ tensors["matrix"]
        return y if bias is None else y + bias


def step_of(largest: float, code: int = LARGEST_CODE) -> FileTensor:
    """The scale of codes whose largest stands for a magnitude."""
    step = max(largest, torch.finfo(torch.float32).tiny * code) / code
    return plain((), torch.float32, "FLOAT", lambda: torch.tensor(step))


def rounded(x: Tensor, step: Tensor, *, signed: bool = True) -> Tensor:
    """Activations, quantised and dequantised, as two nodes."""
    kind, dtype = (INT8, torch.int8) if signed else (UINT8, torch.uint8)
    q = torch.onnx.ops.symbolic(
        "QuantizeLinear", (x, step), {"output_dtype": kind}, dtype=dtype, shape=x.shape, version=21
    )
    y: Tensor = torch.onnx.ops.symbolic("DequantizeLinear", (q, step), dtype=torch.float32, shape=x.shape, version=21)
    return y


class Int4(OnnxWeight):
    """4 bits in blocks, activations in floating point."""

    way = "DQ: INT4 weights"

    def of_rows(self, rows: slice) -> Int4:
        """As `OnnxWeight.of_rows`."""
        return Int4(Codes(self.codes.q, rows))

    def tensors(self) -> dict[str, FileTensor]:
        """As `OnnxWeight.tensors`."""
        q, shape = self.codes.q, (self.codes.rows, self.codes.columns)
        assert q.scales is not None and q.format.group_size is not None
        scales, blocks = q.scales, self.codes.columns // q.format.group_size
        parts = {
            "codes": Stored(shape, "INT4", self.codes.codes),
            "scales": Stored((shape[0], blocks), "FLOAT", lambda: self.codes.per_block(scales, blocks).float()),
        }
        compute = partial(_dequantised, axis=1, block_size=q.format.group_size)
        return {"matrix": FileTensor(shape, torch.float32, parts, compute)}

    def multiply(self, x: Tensor, tensors: TensorsByName, bias: Tensor | None) -> Tensor:
        """As `OnnxWeight.multiply`."""
        return F.linear(x, tensors["matrix"], bias)


def qdq_operators(
    model: VGGT, spans: Mapping[str, Span], *, convert: bool = False
) -> tuple[dict[str, OnnxWeight | None], dict[str, float]]:
    """What every layer of a packed model multiplies with, by name; None for layers in floating point.

    Args:
        model: packed.
        spans: as `input_spans` gives them.
        convert: round weights that TensorRT does not take once more, to INT8 per channel, instead of refusing them.

    Returns:
        The weights, and the NMSE of those that were rounded once more, by layer.

    Raises:
        InputError: TensorRT does not take a weight, and ``convert`` is off.
    """
    weights: dict[str, OnnxWeight | None] = {}
    again: dict[str, float] = {}
    refused: list[tuple[str, str]] = []
    for layer in find_layers(model):
        packed = getattr(model.get_submodule(layer.name), "packed", None)
        weights[layer.name] = None
        if not isinstance(packed, PackedWeight) or packed.format.is_float:
            continue
        q = packed.quantized
        if _is_int4(q, layer):
            weights[layer.name] = Int4(Codes(q))
            continue
        if not is_int8(q.format.key):
            refused.append((layer.name, q.format.key))
            if not convert:
                continue
            q, again[layer.name] = converted(q)
        weights[layer.name] = QdqWeight(Codes(q), spans[layer.name], layer.kind)
    if refused and not convert:
        name, key = refused[0]
        raise InputError(
            f"{setting('onnx', 'qdq')}: {len(refused)} layers are neither INT8 per channel nor INT4 in groups of 64 or "
            f"128, first {name} ({key}): plan with {setting('formats', PLANNABLE)}, or give "
            f"{setting('convert')} to round them once more"
        )
    return weights, again


def _is_int4(q: QuantizedTensor, layer: Layer) -> bool:
    fmt = q.format
    is_grouped = fmt.bits == 4 and fmt.symmetric and not fmt.two_level and fmt.group_size in BLOCKS
    return is_grouped and not layer.kind.startswith("conv") and q.shape[1] % (fmt.group_size or 1) == 0


@contextmanager
def input_spans(model: nn.Module) -> Iterator[dict[str, Span]]:
    """The smallest and the largest input of every layer over the passes within the block, by name.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> with input_spans(model) as spans:
    ...     _ = model(torch.tensor([[1.0, -3.0]])), model(torch.tensor([[2.0, 0.0]]))
    >>> spans, spans["0"].magnitude
    ({'0': Span(low=-3.0, high=2.0)}, 3.0)
    """
    spans: dict[str, Span] = {}

    def see(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for x in inputs:
            spans[name] = spans[name].with_all(x)

    handles = []
    for layer in find_layers(model):
        spans[layer.name] = Span()
        handles.append(model.get_submodule(layer.name).register_forward_pre_hook(partial(see, layer.name)))
    try:
        yield spans
    finally:
        for handle in handles:
            handle.remove()


def _dequantised(operate: Operate, given: Mapping[str, onnx_ir.Value], axis: int, block_size: int = 0) -> onnx_ir.Value:
    more = {"block_size": block_size} if block_size else {}
    return operate("DequantizeLinear", [given["codes"], given["scales"]], axis=axis, **more)
