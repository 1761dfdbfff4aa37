"""Products of constants alone: none is left, and the numbers are the same."""

import numpy as np
import onnx_ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from vggtkit.runtime.onnx.constants import without_constant_products


def test_only_products_of_constants_are_tied_to_an_input() -> None:
    generator = np.random.default_rng(0)
    matrices = [generator.standard_normal((4, 4)).astype(np.float32) for _ in range(3)]
    weights = [numpy_helper.from_array(matrix, f"w{number}") for number, matrix in enumerate(matrices)]
    nodes = [
        helper.make_node("Transpose", ["w1"], ["turned"]),
        helper.make_node("MatMul", ["w0", "turned"], ["first"]),
        helper.make_node("Sigmoid", ["first"], ["second"]),
        helper.make_node("MatMul", ["second", "w2"], ["third"]),
        helper.make_node("MatMul", ["x", "third"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y"))
    opset = [helper.make_opsetid("", 21)]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=opset)
    changed = onnx_ir.serde.deserialize_model(model)
    without_constant_products(changed.graph)
    tied = [node.name for node in changed.graph if node.op_type == "Add"]
    assert len(tied) == 1  # what follows the first product depends on the input by that
    given = {"x": generator.standard_normal((1, 4)).astype(np.float32)}
    found, expected = (
        ReferenceEvaluator(each).run(None, given)[0] for each in (onnx_ir.serde.serialize_model(changed), model)
    )
    np.testing.assert_array_equal(found, expected)
