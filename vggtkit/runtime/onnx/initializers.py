"""The tensors of a graph that was traced with placeholders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vggtkit.runtime.onnx.tensors import FileTensor, Stored, onnx_type

if TYPE_CHECKING:
    import onnx_ir


def fill(model: onnx_ir.Model, sources: Mapping[str, FileTensor]) -> None:
    """Put the tensors of the file, and what is computed of them, in the places of the placeholders.

    Numbers are made when they are written.

    Raises:
        ValueError: a tensor has no place.
    """
    if unknown := sources.keys() - model.graph.initializers.keys():
        raise ValueError(f"the graph has no place for {len(unknown)} tensors, the first is {min(unknown)}")
    for name, tensor in sources.items():
        _set(model.graph, name, tensor)


def _set(graph: onnx_ir.Graph, name: str, tensor: FileTensor) -> None:
    import onnx_ir as ir

    placeholder = graph.initializers.pop(name)
    placeholder.name = f"{name}.placeholder"
    builder = _Builder(name)
    given = {
        part: _initializer(graph, f"{name}.{part}" if part else name, stored) for part, stored in tensor.parts.items()
    }
    if tensor.compute is not None:
        result = tensor.compute(builder, given)
    else:
        (result,) = given.values()
        if result.dtype != ir.DataType[onnx_type(tensor.dtype)]:
            result = builder("Cast", [result], to=onnx_type(tensor.dtype))
    for node in reversed(builder.nodes):
        graph.insert_before(graph[0], node)
    ir.convenience.replace_all_uses_with(placeholder, result)


class _Builder:
    """Adds nodes; whole numbers among the inputs become constants."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx_ir.Node] = []

    def __call__(self, operator: str, inputs: list[Any], **attributes: Any) -> onnx_ir.Value:  # noqa: ANN401
        import onnx_ir as ir

        values = [value if isinstance(value, ir.Value) else self._constant(value) for value in inputs]
        if isinstance(kind := attributes.get("to"), str):
            attributes["to"] = int(ir.DataType[kind])
        return self._added(ir.node(operator, values, attributes))

    def _constant(self, numbers: list[int]) -> onnx_ir.Value:
        import onnx_ir as ir

        return self._added(ir.node("Constant", [], {"value_ints": numbers}))

    def _added(self, node: onnx_ir.Node) -> onnx_ir.Value:
        node.name = f"{self.name}.{node.op_type.lower()}.{len(self.nodes)}"
        node.outputs[0].name = node.name
        self.nodes.append(node)
        return node.outputs[0]


def _initializer(graph: onnx_ir.Graph, name: str, stored: Stored) -> onnx_ir.Value:
    import onnx_ir as ir

    kind, shape = ir.DataType[stored.type], ir.Shape(stored.shape)
    lazy = ir.LazyTensor(lambda: _made(stored, name), dtype=kind, shape=shape, name=name)
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(kind), const_value=lazy)
    graph.register_initializer(value)
    return value


def _made(stored: Stored, name: str) -> onnx_ir.TensorProtocol:
    import ml_dtypes
    import onnx_ir as ir

    array = stored.make().contiguous().numpy().reshape(stored.shape)
    four_bits = {"INT4": ml_dtypes.int4, "UINT4": ml_dtypes.uint4}
    if stored.type in four_bits:
        array = array.astype(four_bits[stored.type])
    return ir.Tensor(array, dtype=ir.DataType[stored.type], name=name)
