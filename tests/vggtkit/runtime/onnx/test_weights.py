"""Weights in the containers of ONNX Runtime: every format, exactly, and its operators on this processor."""

import math
from collections.abc import Iterator

import onnx_ir as ir
import pytest
import torch

from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse
from vggtkit.quant import FORMATS, Format, QuantizedTensor, dequantize, get_format, quantize
from vggtkit.runtime.onnx import faults
from vggtkit.runtime.onnx.faults import MOST_ERROR, check_operators, known_faults, trial
from vggtkit.runtime.onnx.initializers import fill
from vggtkit.runtime.onnx.session import Session
from vggtkit.runtime.onnx.styles import STYLES
from vggtkit.runtime.onnx.weights import Codes, Dynamic, NBits, OnnxWeight, UnsignedDynamic, decoded_weight

INTEGER = [key for key, fmt in FORMATS.items() if not fmt.is_float]
ROWS, COLUMNS = 5, 40


def weight_in(key: str) -> QuantizedTensor:
    generator = torch.Generator().manual_seed(1)
    return quantize(torch.randn(ROWS, COLUMNS, generator=generator), key)


def as_operators(key: str) -> Iterator[OnnxWeight]:
    q, fmt = weight_in(key), get_format(key)
    kinds = {STYLES[style](fmt) for style in ("nbits", "dynamic")}
    if kinds & {Dynamic, UnsignedDynamic} and fmt.symmetric:
        kinds |= {Dynamic, UnsignedDynamic}  # whatever this processor would get
    for kind in kinds - {None}:
        for rows in (None, slice(1, 4)):
            yield kind(Codes(q, rows))


@pytest.mark.parametrize("key", INTEGER)
def test_operators_multiply_with_the_numbers_of_the_format(key: str) -> None:
    """One input at a time is rounded to 8 bits without loss, so the products are the weight itself, but for FP32."""
    for weight in as_operators(key):
        (found,) = Session(faults._alone(weight))(x=torch.eye(COLUMNS)).values()
        exact = dequantize(weight.codes.q)[weight.codes.slice].t()
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", INTEGER)
def test_a_folded_weight_is_the_dequantised_one_bit_for_bit(key: str) -> None:
    q = quantize(torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(2)), key)
    tensor = decoded_weight(q, (5, 6, 3, 3), transposed=True)
    value = ir.Value(name="weight", const_value=ir.tensor(0.0))
    node = ir.node("Identity", [value])
    node.outputs[0].name, node.outputs[0].dtype = "y", ir.DataType.FLOAT
    graph = ir.Graph([], list(node.outputs), nodes=[node], initializers=[value], opset_imports={"": 21}, name="folded")
    fill(model := ir.Model(graph, ir_version=10), {"weight": tensor})
    (found,) = Session(ir.to_proto(model).SerializeToString())().values()
    assert found.equal(dequantize(q).transpose(0, 1))


@pytest.mark.parametrize("key", INTEGER)
def test_bytes_are_those_of_the_containers(key: str) -> None:
    """From the sizes alone: codes at 2, 4 or 8 bits, FP32 scales, zero points at the bits of codes."""
    fmt, q = get_format(key), weight_in(key)
    block = fmt.group_size or 128
    blocks, bits = math.ceil(COLUMNS / block), {2: 2, 3: 4, 4: 4}.get(fmt.bits, 8)
    zeros = 0 if fmt.symmetric else ROWS * math.ceil(blocks * bits / 8)
    assert NBits(Codes(q)).nbytes == ROWS * (blocks * block * bits // 8 + 4 * blocks) + zeros
    for name, tensor in NBits(Codes(q)).tensors().items():
        for part in tensor.parts.values():
            assert part.make().numel() == math.prod(part.shape), name


def test_sums_of_unsigned_weights_do_not_overflow() -> None:
    """Whole-number products as the operator is specified; signed weights lose sums where there is no VNNI."""
    generator = torch.Generator().manual_seed(3)
    q = quantize(torch.randn(24, 512, generator=generator), "int8_per_channel_sym")
    for rows in (1, 33):
        x = torch.rand(rows, 512, generator=generator)  # many large ones, which is where sums overflow
        scale = x.max() / 255
        exact = ((x / scale).round() * scale).double() @ dequantize(q).double().t()
        (y,) = Session(faults._alone(UnsignedDynamic(Codes(q))))(x=x).values()
        assert nmse(exact, y.double()) < 1e-10


@pytest.mark.parametrize("overflows", [False, True])
def test_styles_choose_by_what_is_exact(overflows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggtkit.runtime.onnx.styles.may_overflow", lambda: overflows)
    symmetric = "UnsignedDynamic" if overflows else "Dynamic"

    def chosen(style: str, key: str) -> str:
        kind = STYLES[style](get_format(key))
        return kind.__name__ if kind else "FP32"

    assert [chosen("auto", key) for key in ("int4_two_level_64", "int5_two_level_64", "int8_per_tensor_asym")] == [
        "NBits", symmetric, "Dynamic",
    ]  # fmt: skip
    assert [chosen("dynamic", key) for key in ("int2_two_level_16", "int4_group_32")] == [symmetric, "NBits"]
    assert {chosen("nbits", key) for key in INTEGER} == {"NBits"}
    assert {chosen("exact", key) for key in INTEGER} == {"FP32"}
    odd = Format("odd", "groups of 48", 4, "group", symmetric=True, group_size=48)
    wide = Format("wide", "groups of 512", 4, "group", symmetric=True, group_size=512)
    assert STYLES["auto"](odd) is STYLES["nbits"](wide) is None


def faulty(operator: str, reader: str, **attributes: int) -> ir.Model:
    """A graph of one operator whose output another reads."""
    node = ir.node(operator, [ir.Value(name="w"), ir.Value(name="s")], attributes)
    node.name = "the_node"
    after = ir.node(reader, [ir.Value(name="x"), node.outputs[0]])
    graph = ir.Graph([], list(after.outputs), nodes=[node, after], opset_imports={"": 21}, name="faulty")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (("MatMulNBits", "Add", {"block_size": 512}), "28551"),
        (("MatMulNBits", "Add", {"block_size": 256}), None),
        (("DequantizeLinear", "MatMul", {"block_size": 32, "axis": 0}), "749"),
        (("DequantizeLinear", "MatMul", {"block_size": 32, "axis": 1}), None),
        (("DequantizeLinear", "MatMul", {"axis": 0}), None),
        (("DequantizeLinear", "Add", {"block_size": 32, "axis": 0}), None),
    ],
)
def test_known_faults_are_seen(graph: tuple[str, str, dict[str, int]], said: str | None) -> None:
    operator, reader, attributes = graph
    found = known_faults(faulty(operator, reader, **attributes))
    assert len(found) == (said is not None)
    if said:
        assert "the_node" in found[0] and said in found[0]


class Halved(Dynamic):
    """As a processor would compute it whose sums overflow."""

    def _per_row(self, values: torch.Tensor) -> torch.Tensor:
        return super()._per_row(values) / 2


def test_an_operator_that_computes_wrongly_is_refused() -> None:
    codes = Codes(weight_in("int8_per_channel_sym"))
    assert trial(Dynamic(codes)) < MOST_ERROR < trial(Halved(codes))
    assert check_operators({"a": Dynamic(codes), "b": None}).keys() == {"DynamicQuantizeMatMul"}
    with pytest.raises(InputError, match=r"DynamicQuantizeMatMul wrongly .* for b"):
        check_operators({"a": NBits(codes), "b": Halved(codes)})
