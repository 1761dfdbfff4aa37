"""A quantised weight as what an operator of ONNX multiplies with: the same numbers, bit for bit, in other containers.

- `NBits`: ``MatMulNBits`` of ONNX Runtime, 2, 4 or 8 bits in blocks along the input with a scale each; activations are
  rounded to 8 bits with a scale per row and block (accuracy level 4). 3 bits are stored in 4, 5 and 6 in 8. A group's
  scale in two levels, ``multiplier * scale``, is exact in FP32, so it is multiplied out when the file is loaded.
- `Dynamic`: ``DynamicQuantizeMatMul`` of ONNX Runtime, 8 bits with a scale per channel; activations are rounded to 8
  bits with one scale for all of them.
- `UnsignedDynamic`: the same with unsigned weights, for x86 without VNNI: there the kernel of signed ones sums two
  products in 16 bits, which overflow, and that of unsigned ones in 32 at about the same speed. With VNNI signed ones
  are exact and faster.
- `Folded`: casts and products of standard ONNX, which a runtime computes once while it loads; any layer, in FP32.

Source: ONNX Runtime, "Contrib Operators".
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vggtkit.quant import QuantizedTensor, as_int8_per_channel, pack_codes, unpack_codes
from vggtkit.runtime.onnx.tensors import FileTensor, Operate, Stored, onnx_type, plain

if TYPE_CHECKING:
    import onnx_ir

TensorsByName = Mapping[str, Tensor]
"""What stands for tensors of the file while a graph is traced, by name."""
DOMAIN = "com.microsoft"
ACCURACY_LEVEL = 4
"""Of ``MatMulNBits``: 8-bit activations."""
BLOCK = 128
"""Of weights with a scale per channel or tensor, where ``MatMulNBits`` wants blocks."""
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 256


class Codes:
    """The numbers of a quantised weight ``[out, in]``, or of some of its rows.

    Args:
        q: the weight; what has more axes is flattened.
        rows: all by default.

    Attributes:
        rows: how many.
        columns: weights of a row.
    """

    def __init__(self, q: QuantizedTensor, rows: slice | None = None) -> None:
        self.q, self.slice = q, rows or slice(0, q.shape[0])
        self.rows, self.columns = self.slice.stop - self.slice.start, math.prod(q.shape[1:])

    def codes(self) -> Tensor:
        """``[rows, columns]``, int8 or uint8."""
        flat = unpack_codes(self.q.codes, self.q.format.bits, math.prod(self.q.shape), signed=self.q.format.symmetric)
        return flat.view(self.q.shape[0], -1)[self.slice]

    def per_block(self, values: Tensor, blocks: int) -> Tensor:
        """A value per tensor, channel or group as one per row and block."""
        matrix = values.view(1, 1) if values.numel() == 1 else values.view(self.q.shape[0], -1)
        return matrix.expand(self.q.shape[0], blocks)[self.slice].contiguous()

    def multipliers(self) -> Tensor:
        """``[rows, groups]`` of a two-level format, from 1; uint8."""
        fmt = self.q.format
        assert self.q.multipliers is not None and fmt.group_size is not None
        count = self.q.shape[0] * -(-self.columns // fmt.group_size)
        flat = unpack_codes(self.q.multipliers, fmt.multiplier_bits, count, signed=False)
        return (flat.view(self.q.shape[0], -1) + 1)[self.slice]

    def scale_parts(self, blocks: int) -> dict[str, Stored]:
        """Scales ``[rows, blocks]``, in two levels ``[rows, 1]`` and multipliers."""
        q = self.q
        assert q.scales is not None
        scales, columns = q.scales, 1 if q.format.two_level else blocks
        parts = {
            "scales": Stored((self.rows, columns), onnx_type(scales.dtype), lambda: self.per_block(scales, columns))
        }
        if q.format.two_level:
            parts["multipliers"] = Stored((self.rows, blocks), "UINT8", self.multipliers)
        return parts


class Operator(NamedTuple):
    """One of ONNX Runtime's own.

    Attributes:
        name: in its domain.
        reads: what stands behind the activations, in the operator's order; "" for what is left out.
        attributes: of the node.
    """

    name: str
    reads: tuple[str, ...]
    attributes: Mapping[str, int]


class OnnxWeight(ABC):
    """A weight as an operator has it.

    Attributes:
        way: the operator, in words.
        codes: its numbers.
    """

    way: str

    def __init__(self, codes: Codes) -> None:
        self.codes = codes

    @abstractmethod
    def tensors(self) -> dict[str, FileTensor]:
        """What the operator reads, by name."""

    @abstractmethod
    def multiply(self, x: Tensor, tensors: TensorsByName, bias: Tensor | None) -> Tensor:
        """``x W^T + bias`` as nodes, with what stands for `tensors`; while a graph is traced."""

    @abstractmethod
    def of_rows(self, rows: slice) -> OnnxWeight:
        """The same of some of its rows."""

    @property
    def nbytes(self) -> int:
        """Bytes of what is read, once it is loaded."""
        return sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in self.tensors().values())


class RuntimeWeight(OnnxWeight):
    """A weight of one of ONNX Runtime's own operators."""

    @property
    @abstractmethod
    def operator(self) -> Operator:
        """Which computes ``x W^T + bias``."""

    def of_rows(self, rows: slice) -> RuntimeWeight:
        """As `OnnxWeight.of_rows`."""
        return type(self)(Codes(self.codes.q, rows))

    def multiply(self, x: Tensor, tensors: TensorsByName, bias: Tensor | None) -> Tensor:
        """As `OnnxWeight.multiply`, one node."""
        name, reads, attributes = self.operator
        given: list[Tensor | None] = [x, *({**tensors, "bias": bias}.get(part) for part in reads)]
        while given[-1] is None:
            given.pop()
        shape = (*x.shape[:-1], self.codes.rows)
        result: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::{name}", given, dict(attributes), dtype=torch.float32, shape=shape, version=1
        )
        return result


class NBits(RuntimeWeight):
    """For ``MatMulNBits``.

    >>> from vggtkit.quant import quantize
    >>> weight = NBits(Codes(quantize(torch.ones(3, 40), "int3_group_32")))
    >>> weight.way, {name: tensor.shape for name, tensor in weight.tensors().items()}
    ('MatMulNBits, 4 bits', {'codes': (3, 2, 16), 'scales': (3, 2)})
    """

    def __init__(self, codes: Codes) -> None:
        super().__init__(codes)
        fmt = codes.q.format
        self.bits = 2 if fmt.bits == 2 else 4 if fmt.bits <= 4 else 8
        self.block = fmt.group_size or BLOCK
        self.blocks = -(-codes.columns // self.block)
        self.way = f"MatMulNBits, {self.bits} bits"

    def tensors(self) -> dict[str, FileTensor]:
        """As `OnnxWeight.tensors`."""
        shape, zeros = (self.codes.rows, self.blocks), self.codes.q.zero_points
        codes = (*shape, self.block * self.bits // 8)
        tensors = {
            "codes": plain(codes, torch.uint8, "UINT8", self._packed),
            "scales": FileTensor(shape, torch.float32, self.codes.scale_parts(self.blocks), _scales),
        }
        if zeros is not None:
            packed = (shape[0], -(-self.blocks * self.bits // 8))
            tensors["zero_points"] = plain(packed, torch.uint8, "UINT8", self._packed_zeros)
        return tensors

    @property
    def operator(self) -> Operator:
        """As `OnnxWeight.operator`."""
        sizes = {"K": self.codes.columns, "N": self.codes.rows, "bits": self.bits, "block_size": self.block}
        reads = ("codes", "scales", "zero_points", "", "bias")
        return Operator("MatMulNBits", reads, sizes | {"accuracy_level": ACCURACY_LEVEL})

    def _packed(self) -> Tensor:
        codes = _unsigned(self.codes.codes(), self.bits)
        filled = F.pad(codes, (0, self.blocks * self.block - self.codes.columns))
        return pack_codes(filled, self.bits).view(self.codes.rows, self.blocks, -1)

    def _packed_zeros(self) -> Tensor:
        zeros = self.codes.q.zero_points
        assert zeros is not None
        filled = F.pad(self.codes.per_block(zeros, self.blocks), (0, -self.blocks % (8 // self.bits)))
        return pack_codes(filled, self.bits).view(self.codes.rows, -1)


class Dynamic(RuntimeWeight):
    """For ``DynamicQuantizeMatMul``: weights of 8 bits per channel or tensor, two-level formats among them."""

    way = "DynamicQuantizeMatMul"

    def __init__(self, codes: Codes) -> None:
        super().__init__(codes)
        if codes.q.format.two_level:
            self.codes = Codes(as_int8_per_channel(codes.q), codes.slice)

    @property
    def is_signed(self) -> bool:
        """Whether x86 without VNNI may lose sums of it."""
        return self.codes.q.format.symmetric

    def tensors(self) -> dict[str, FileTensor]:
        """As `OnnxWeight.tensors`."""
        q, rows = self.codes.q, self.codes.rows
        assert q.scales is not None
        scales, zeros, dtype = q.scales, q.zero_points, torch.int8 if q.format.symmetric else torch.uint8
        tensors = {
            "codes": plain((self.codes.columns, rows), dtype, onnx_type(dtype), lambda: self.codes.codes().t()),
            "scales": plain((rows,), torch.float32, onnx_type(scales.dtype), lambda: self._per_row(scales)),
        }
        if zeros is not None:
            tensors["zero_points"] = plain((rows,), torch.uint8, "UINT8", lambda: self._per_row(zeros))
        return tensors

    @property
    def operator(self) -> Operator:
        """As `OnnxWeight.operator`."""
        return Operator("DynamicQuantizeMatMul", ("codes", "scales", "zero_points", "bias"), {})

    def _per_row(self, values: Tensor) -> Tensor:
        return self.codes.per_block(values, 1).view(-1)


class UnsignedDynamic(Dynamic):
    """For ``DynamicQuantizeMatMul``: signed weights, moved to 0 to 255 with a zero point of 128.

    >>> from vggtkit.quant import quantize
    >>> weight = UnsignedDynamic(Codes(quantize(torch.tensor([[1.0, 0.0, -1.0]]), "int8_per_channel_sym")))
    >>> [part.make().tolist() for name in ("codes", "zero_points") for part in weight.tensors()[name].parts.values()]
    [[[255], [128], [1]], [128]]
    """

    way = f"{Dynamic.way}, unsigned"
    is_signed = False

    def tensors(self) -> dict[str, FileTensor]:
        """As `OnnxWeight.tensors`."""
        columns, rows = self.codes.columns, self.codes.rows
        return super().tensors() | {
            "codes": plain((columns, rows), torch.uint8, "UINT8", lambda: _unsigned(self.codes.codes(), 8).t()),
            "zero_points": plain((rows,), torch.uint8, "UINT8", lambda: torch.full((rows,), 128, dtype=torch.uint8)),
        }


def _unsigned(codes: Tensor, bits: int) -> Tensor:
    """Signed codes moved to 0 and above; unsigned ones as they are."""
    return codes if codes.dtype == torch.uint8 else (codes.short() + 2 ** (bits - 1)).to(torch.uint8)


def decoded_weight(q: QuantizedTensor, shape: tuple[int, ...], *, transposed: bool = False) -> FileTensor:
    """A weight in FP32 that the graph computes from codes, with the operations of `dequantize` in their order.

    Args:
        q: of any format with codes.
        shape: of the weight in its module.
        transposed: whether that has its first two axes swapped.
    """
    codes, fmt = Codes(q), q.format
    block = fmt.group_size or codes.columns
    blocks = -(-codes.columns // block)
    container = ("INT" if fmt.symmetric else "UINT") + ("4" if fmt.bits <= 4 else "8")
    missing = blocks * block - codes.columns
    parts = {
        "codes": Stored((codes.rows, blocks, block), container, lambda: F.pad(codes.codes(), (0, missing)))
    } | codes.scale_parts(blocks)
    if (zeros := q.zero_points) is not None:
        parts["zero_points"] = Stored((codes.rows, blocks), "UINT8", lambda: codes.per_block(zeros, blocks))

    def compute(operate: Operate, given: Mapping[str, onnx_ir.Value]) -> onnx_ir.Value:
        def wide(name: str, axes: tuple[int, ...]) -> onnx_ir.Value:
            value = operate("Cast", [given[name]], to="FLOAT")
            return operate("Reshape", [value, list(axes)])

        weight = operate("Cast", [given["codes"]], to="FLOAT")
        if "multipliers" in given:
            weight = operate("Mul", [weight, wide("multipliers", (codes.rows, blocks, 1))])
        if "zero_points" in given:
            weight = operate("Sub", [weight, wide("zero_points", (codes.rows, blocks, 1))])
        weight = operate("Mul", [weight, wide("scales", (codes.rows, -1, 1))])
        if missing:
            weight = operate("Reshape", [weight, [codes.rows, -1]])
            weight = operate("Slice", [weight, [0], [codes.columns], [1]])
        weight = operate("Reshape", [weight, list(q.shape)])
        return operate("Transpose", [weight], perm=[1, 0, *range(2, len(shape))]) if transposed else weight

    return FileTensor(shape, torch.float32, parts, compute)


def _scales(operate: Operate, given: Mapping[str, onnx_ir.Value]) -> onnx_ir.Value:
    scales = operate("Cast", [given["scales"]], to="FLOAT")
    if "multipliers" not in given:
        return scales
    return operate("Mul", [operate("Cast", [given["multipliers"]], to="FLOAT"), scales])
