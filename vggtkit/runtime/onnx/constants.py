"""What depends on no input; and no products of it, which OpenVINO 2026.4 cannot compute beforehand with 8-bit weights.

The camera head's first pose and the tracker's virtual tokens depend on no picture, and neither does what the first
layers make of them. OpenVINO refuses the whole file then ("Check 'm_element_type.is_static()' failed").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir

PRODUCTS = ("MatMul", "Gemm")


def without_constant_products(graph: onnx_ir.Graph) -> None:
    """To what is multiplied with a weight, and depends on no input of the graph, 0 times an input is added."""
    zero = None
    while product := next((node for node in constant_nodes(graph) if node.op_type in PRODUCTS), None):
        zero = zero or _zero(graph)
        _add(graph, product, zero)


def constant_nodes(graph: onnx_ir.Graph) -> list[onnx_ir.Node]:
    """Those that depend on no input, in the graph's order; a runtime computes them while it loads the file."""
    found, known = [], set(graph.initializers.values())
    for node in graph:
        if all(value is None or value in known for value in node.inputs):
            found.append(node)
            known |= set(node.outputs)
    return found


def _zero(graph: onnx_ir.Graph) -> onnx_ir.Value:
    """A number without axes, made in front of everything."""
    import onnx_ir as ir

    largest = ir.node("ReduceMax", [graph.inputs[0]], {"keepdims": 0}, name="largest_of_input")
    none = ir.node("Constant", [], {"value_float": 0.0}, name="none_of_input")
    zero = ir.node("Mul", [largest.outputs[0], none.outputs[0]], name="zero_of_input")
    for node in (zero, none, largest):
        node.outputs[0].name = node.name
        graph.insert_before(graph[0], node)
    return zero.outputs[0]


def _add(graph: onnx_ir.Graph, node: onnx_ir.Node, zero: onnx_ir.Value) -> None:
    import onnx_ir as ir

    added = ir.node("Add", [node.inputs[0], zero], name=f"{node.name}.of_input")
    added.outputs[0].name = added.name
    graph.insert_before(node, added)
    node.replace_input_with(0, added.outputs[0])
