"""Parts of a tensor without sequences of tensors, which torch's exporter makes and TensorRT does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir


def without_sequences(graph: onnx_ir.Graph) -> None:
    """``SplitToSequence`` into parts of one length, of which ``SequenceAt`` takes single ones, becomes ``Split``."""
    for node in list(graph):
        if node.op_type == "SplitToSequence":
            _replace(graph, node)


def _replace(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    import onnx_ir as ir

    length, axis = _number(node.inputs[1]), node.attributes["axis"].as_int()
    x, users = node.inputs[0], [user for user, _ in node.outputs[0].uses()]
    whole = x.shape[axis] if x is not None and x.shape is not None else None
    if not isinstance(whole, int) or whole % length or any(user.op_type != "SequenceAt" for user in users):
        raise ValueError(f"{node.name} is no split into parts of one length")
    count = whole // length
    split = ir.node("Split", [x], {"axis": axis, "num_outputs": count}, num_outputs=count, name=f"{node.name}.split")
    for number, output in enumerate(split.outputs):
        output.name = f"{split.name}.{number}"
    graph.insert_before(node, split)
    for user in users:
        part = split.outputs[_number(user.inputs[1]) % count]
        part.shape, part.type = user.outputs[0].shape, user.outputs[0].type
        ir.convenience.replace_all_uses_with(user.outputs[0], part)
    graph.remove([*users, node], safe=True)


def _number(value: onnx_ir.Value | None) -> int:
    """A constant."""
    import onnx_ir as ir

    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError("the length of a part is no constant")
    return int(tensor.numpy())
