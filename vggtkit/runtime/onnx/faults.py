"""What ONNX Runtime is known to compute wrongly, and a trial of every operator of a file on this processor.

Known, and refused in a graph:

- ``MatMulNBits`` with blocks above 256 gives zeros (onnxruntime #28551);
- a block-wise ``DequantizeLinear`` along the first axis of a product's weight is fused into ``MatMulNBits`` as if it
  were along the second (onnxsim #749).

Known, and not seen in a graph: 8-bit activations with few large channels lose the others (onnxruntime #29849), and
whole-number products with signed weights overflow on processors without VNNI. So every kind of operator is tried with
a weight of the model on this processor, and the whole file is compared with torch (`vggtkit.runtime.onnx.file`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse_or_inf
from vggtkit.quant import dequantize
from vggtkit.runtime.onnx.initializers import fill
from vggtkit.runtime.onnx.session import Session
from vggtkit.runtime.onnx.weights import DOMAIN, LARGEST_BLOCK, OnnxWeight, RuntimeWeight

if TYPE_CHECKING:
    import onnx_ir

MOST_ERROR = 2e-3
"""NMSE of a product of normal activations, of which 8 bits cost up to 2e-4 and an overflow a hundred times that."""
ROWS = 33
"""Activations of a trial; some kernels take many rows another way than one."""


def known_faults(model: onnx_ir.Model) -> list[str]:
    """What ONNX Runtime would compute wrongly, in words."""
    return [fault for node in model.graph if (fault := _fault(node))]


def check_faults(model: onnx_ir.Model) -> None:
    """Refuse a graph that ONNX Runtime would compute wrongly.

    Raises:
        InputError: with the first of its nodes.
    """
    if faults := known_faults(model):
        raise InputError(f"ONNX Runtime would compute {len(faults)} nodes wrongly, the first: {faults[0]}")


def _fault(node: onnx_ir.Node) -> str:
    attributes = node.attributes
    block = attributes["block_size"].as_int() if "block_size" in attributes else 0
    if node.op_type == "MatMulNBits" and block > LARGEST_BLOCK:
        return f"{node.name} has blocks of {block}, above {LARGEST_BLOCK} it gives zeros (onnxruntime #28551)"
    axis = attributes["axis"].as_int() if "axis" in attributes else 1
    if node.op_type != "DequantizeLinear" or not block or axis != 0:
        return ""
    if any(user.op_type in ("MatMul", "Gemm") for user, _ in node.outputs[0].uses()):
        return f"{node.name} has blocks along axis 0 of a product's weight, which are mixed up (onnxsim #749)"
    return ""


def check_operators(weights: Mapping[str, OnnxWeight | None]) -> dict[str, float]:
    """Run every kind of ONNX Runtime's own operators once, with a layer's weight, and compare with the FP32 product.

    Args:
        weights: by layer, as `Graph.weights`.

    Returns:
        NMSE by kind.

    Raises:
        InputError: one errs by more than 8 bits can.
    """
    errors: dict[str, float] = {}
    for layer, weight in _one_of_each(weights):
        kind = f"{weight.way}{_block(weight)}"
        errors[kind] = max(trial(weight), errors.get(kind, 0.0))
        if not errors[kind] <= MOST_ERROR:
            raise InputError(
                f"ONNX Runtime computes {kind} wrongly on this processor (NMSE {errors[kind]:.1e} for {layer}, "
                f"at most {MOST_ERROR:.0e} is expected): choose another style, such as exact"
            )
    return errors


def trial(weight: RuntimeWeight) -> float:
    """NMSE of one operator with random activations, against the product in FP32."""
    codes = weight.codes
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, codes.columns, generator=generator)
    (y,) = Session(_alone(weight))(x=x).values()
    exact = x @ dequantize(codes.q).view(codes.q.shape[0], -1)[codes.slice].t()
    return nmse_or_inf(exact, y)


def _one_of_each(weights: Mapping[str, OnnxWeight | None]) -> Iterator[tuple[str, RuntimeWeight]]:
    """The first layer of every operator, format and width of input."""
    seen = set()
    for layer, weight in weights.items():
        if not isinstance(weight, RuntimeWeight):
            continue
        kind = (weight.way, weight.codes.q.format.key, weight.codes.columns)
        if kind not in seen:
            seen.add(kind)
            yield layer, weight


def _block(weight: RuntimeWeight) -> str:
    block = weight.operator.attributes.get("block_size")
    return f" in blocks of {block}" if block else ""


def _alone(weight: RuntimeWeight) -> bytes:
    """A file of one operator."""
    import onnx_ir as ir

    name, reads, attributes = weight.operator
    tensors = weight.tensors()
    x = ir.Value(name="x", shape=ir.Shape([None, weight.codes.columns]), type=ir.TensorType(ir.DataType.FLOAT))
    values = {part: ir.Value(name=part, const_value=ir.tensor(0.0)) for part in tensors}
    given = [values.get(part) for part in reads]
    while given[-1] is None:
        given.pop()
    node = ir.node(name, [x, *given], dict(attributes), domain=DOMAIN)
    (y,) = node.outputs
    y.name, y.dtype, y.shape = "y", ir.DataType.FLOAT, ir.Shape([None, weight.codes.rows])
    graph = ir.Graph(
        [x], [y], nodes=[node], initializers=list(values.values()), opset_imports={"": 21, DOMAIN: 1}, name="trial"
    )
    model = ir.Model(graph, ir_version=10)
    fill(model, tensors)
    result: bytes = ir.to_proto(model).SerializeToString()
    return result
