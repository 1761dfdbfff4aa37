"""Quantise one weight tensor, count its bytes exactly, and get the same numbers back.

A scale is rounded to the precision it is stored in *before* codes and zero points are computed from it, so
the simulated model and the packed file hold the same numbers, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.quant.blocks import CutWeight, blocks_of, check_magnitude, label_of, unblocked
from vggtkit.quant.formats import Format, get_format
from vggtkit.quant.packing import pack_codes, packed_nbytes, unpack_codes
from vggtkit.quant.two_level import encode

_FLOAT_DTYPES = {16: torch.float16, 32: torch.float32}
PARTS = ("codes", "scales", "zero_points", "multipliers")
"""Tensors that a quantised weight can consist of."""


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """One weight tensor as a file holds it.

    Attributes:
        format: the format of ``codes``.
        shape: shape of the weight, output channels first.
        codes: packed codes, uint8 ``[ceil(weights * bits / 8)]``; for ``fp16`` and ``fp32`` the values
            themselves in the weight's shape.
        scales: FP16 or FP32, ``[1]`` per tensor, ``[out]`` per channel and in two levels, ``[out, groups]`` in
            other groups; ``None`` for floating-point formats.
        zero_points: uint8, shaped as ``scales``; ``None`` for symmetric formats.
        multipliers: of two-level formats, each minus 1, packed: uint8 ``[ceil(out * groups * (8 - bits) / 8)]``.
        bias: what the layer adds instead of its own bias, ``[out]``; None for its own. In a file it has that one's
            place, so it takes no bytes beside.
    """

    format: Format
    shape: tuple[int, ...]
    codes: Tensor
    scales: Tensor | None = None
    zero_points: Tensor | None = None
    multipliers: Tensor | None = None
    bias: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that land in the file (its header is counted with the file)."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """What lands in a file, by the names of `part_names`."""
        return {name: tensor for name in PARTS if (tensor := getattr(self, name)) is not None}

    @classmethod
    def from_tensors(cls, format_key: str, shape: Sequence[int], tensors: Mapping[str, Tensor]) -> QuantizedTensor:
        """Undo ``tensors()``, refusing whatever ``quantize`` cannot have written.

        Args:
            format_key: key of the format.
            shape: shape of the weight, output channels first.
            tensors: what ``tensors()`` returned.

        Returns:
            The same quantised tensor; it shares memory with ``tensors``.

        Raises:
            InputError: an unknown format, or a tensor that is missing, unexpected, or of the wrong dtype or
                shape, or a scale that is not a positive number.

        >>> q = quantize(torch.tensor([[1.0, -2.0]]), "int8_per_channel_sym")
        >>> QuantizedTensor.from_tensors("int8_per_channel_sym", (1, 2), q.tensors()).nbytes
        4
        """
        fmt, shape = get_format(format_key), tuple(shape)
        _check_shape(shape)
        _check_tensors(fmt, shape, tensors)
        return cls(fmt, shape, **tensors)


def quantize(weight: Tensor, key: str, name: str = "") -> QuantizedTensor:
    """Quantise a weight by plain rounding in one of the registered formats.

    With ``s`` the scale as stored (symmetric ``max|w| / qmax``, asymmetric ``(max - min) / qmax`` with 0
    inside ``[min, max]``; 1 where all weights are 0): symmetric ``clamp(round(w / s))``; asymmetric
    ``zero_point = round(-min / s)``, ``clamp(round(w / s + zero_point))``. Halves round to even.

    Two-level formats choose their multipliers by the squared error, see `vggtkit.quant.two_level`.

    Scales are FP16; if one of them vanishes there (rounding it would move the largest code by more than
    half a step) or overflows, all scales of this tensor are FP32. No scale is below 1.2e-38, the smallest
    normal FP32 number; that only concerns weights that are below 1e-35 throughout.

    Args:
        weight: ``[out, in]`` or ``[out, in, ...]`` (flattened to ``[out, -1]``), any floating dtype;
            computed in FP32.
        key: key of the format.
        name: the layer, for error messages.

    Returns:
        The quantised tensor, on the weight's device.

    Raises:
        InputError: unknown format; fewer than two dimensions; empty; NaN or Inf; a magnitude that the
            format cannot hold (65504 for ``fp16``, 1e38 for integer formats).

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018 (affine codes, zero point).

    >>> q = quantize(torch.tensor([[7.0, -3.5, 0.0, 2.0]]), "int4_group_32")
    >>> dequantize(q)
    tensor([[ 7., -4.,  0.,  2.]])
    >>> q.nbytes  # two bytes of codes, one FP16 scale
    4
    """
    fmt = get_format(key)
    shape, label = tuple(weight.shape), label_of(name)
    _check_shape(shape, label)
    if not weight.is_floating_point():
        raise InputError(f"{label} is {weight.dtype}: only floating-point weights can be quantised")
    cut = CutWeight(weight, name)
    if fmt.is_float:
        return _quantize_float(cut.weight, fmt, label)
    if fmt.two_level:
        return _quantize_two_level(cut, fmt)
    scales, zero_points = cut.scales(fmt)
    codes = cut.blocks(fmt) / scales.float()
    if zero_points is not None:
        codes += zero_points
        zero_points = zero_points.to(torch.uint8).view(_scales_shape(shape, fmt))
    codes = codes.round_().clamp_(*fmt.code_range).to(torch.int8 if fmt.symmetric else torch.uint8)
    packed = pack_codes(unblocked(codes, shape), fmt.bits)
    return QuantizedTensor(fmt, shape, packed, scales.view(_scales_shape(shape, fmt)), zero_points)


def dequantize(q: QuantizedTensor) -> Tensor:
    """The numbers that a quantised tensor stands for: ``(codes - zero_point) * scale`` in FP32.

    In two levels ``(codes * multiplier) * scale``; the product of whole numbers is exact.

    Args:
        q: a quantised tensor.

    Returns:
        float32 of shape ``q.shape``, in memory of its own.

    >>> dequantize(quantize(torch.tensor([[0.5, -0.25]]), "fp16"))
    tensor([[ 0.5000, -0.2500]])
    """
    if q.scales is None:
        return q.codes.to(torch.float32, copy=True)
    codes = unpack_codes(q.codes, q.format.bits, math.prod(q.shape), signed=q.format.symmetric)
    blocks = blocks_of(codes.to(torch.float32).view(q.shape[0], -1), q.format)
    if q.multipliers is not None:
        blocks *= _unpacked_multipliers(q)[..., None]
        blocks *= q.scales.float().view(-1, 1, 1)
        return unblocked(blocks, q.shape)
    per_block = (*blocks.shape[:2], 1)
    if q.zero_points is not None:
        blocks -= q.zero_points.view(per_block)
    blocks *= q.scales.float().view(per_block)
    return unblocked(blocks, q.shape)


def quantized_nbytes(shape: Sequence[int], key: str) -> int:
    """Bytes of a weight in the file, from its shape alone, with all scales in FP16.

    The few tensors whose scales do not fit FP16 take 2 bytes more per scale, which only
    ``quantize(...).nbytes`` knows.

    Args:
        shape: shape of the weight, output channels first.
        key: key of the format.

    Returns:
        Bytes of codes, scales and zero points.

    Raises:
        InputError: unknown format, or a shape that cannot be quantised.

    >>> quantized_nbytes((1024, 4096), "int4_group_128")  # 2 MiB of codes, 32,768 scales
    2162688
    """
    fmt, shape = get_format(key), tuple(shape)
    _check_shape(shape)
    codes = packed_nbytes(math.prod(shape), fmt.bits)
    if fmt.is_float:
        return codes
    multipliers = packed_nbytes(_blocks_of(shape, fmt), fmt.multiplier_bits) if fmt.two_level else 0
    return codes + multipliers + math.prod(_scales_shape(shape, fmt)) * (2 if fmt.symmetric else 3)


def scale_count(shape: Sequence[int], key: str) -> int:
    """Scales of a weight; each takes 2 bytes more where they do not fit FP16.

    >>> scale_count((8, 100), "int4_group_32"), scale_count((8, 100), "int4_two_level_32")
    (32, 8)
    """
    fmt = get_format(key)
    return 0 if fmt.is_float else math.prod(_scales_shape(tuple(shape), fmt))


def part_names(fmt: Format) -> tuple[str, ...]:
    """Names of the tensors that a weight in this format consists of.

    >>> part_names(get_format("int4_group_32")), part_names(get_format("fp16"))
    (('codes', 'scales'), ('codes',))
    """
    there = (True, not fmt.is_float, not fmt.symmetric, fmt.two_level)
    return tuple(name for name, is_there in zip(PARTS, there, strict=True) if is_there)


def as_int8_per_channel(q: QuantizedTensor) -> QuantizedTensor:
    """A two-level weight as INT8 per channel: the same numbers, bit for bit, for kernels that know only those.

    Args:
        q: in a two-level format.

    Returns:
        In ``int8_per_channel_sym``, with the same scales.

    Raises:
        ValueError: another format.

    >>> q = quantize(torch.tensor([[14.0, 7.0, -3.0, 0.5]]), "int4_two_level_16")
    >>> dequantize(as_int8_per_channel(q)).equal(dequantize(q))
    True
    """
    if q.multipliers is None:
        raise ValueError(f"{q.format.key} has no two levels of scales")
    codes = unpack_codes(q.codes, q.format.bits, math.prod(q.shape), signed=True)
    blocks = blocks_of(codes.view(q.shape[0], -1), q.format)  # int8 as well: products fit by the choice of ranges
    products = unblocked(blocks * _unpacked_multipliers(q, torch.int8)[..., None], q.shape)
    return QuantizedTensor(get_format("int8_per_channel_sym"), q.shape, pack_codes(products, 8), q.scales)


def _quantize_two_level(cut: CutWeight, fmt: Format) -> QuantizedTensor:
    codes, scales, multipliers = encode(cut.blocks(fmt), cut.magnitudes(fmt), fmt)
    shape = cut.shape
    return QuantizedTensor(
        fmt,
        shape,
        pack_codes(unblocked(codes.to(torch.int8), shape), fmt.bits),
        scales,
        multipliers=pack_codes((multipliers - 1).to(torch.uint8), fmt.multiplier_bits),
    )


def _unpacked_multipliers(q: QuantizedTensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """``[out, groups]``, from 1."""
    assert q.multipliers is not None
    count = _blocks_of(q.shape, q.format)
    return unpack_codes(q.multipliers, q.format.multiplier_bits, count, signed=False).to(dtype).view(q.shape[0], -1) + 1


def _blocks_of(shape: tuple[int, ...], fmt: Format) -> int:
    """Number of groups in a weight of grouped format."""
    assert fmt.group_size is not None
    return shape[0] * -(-math.prod(shape[1:]) // fmt.group_size)


def _quantize_float(weight: Tensor, fmt: Format, label: str) -> QuantizedTensor:
    low, high = weight.aminmax()
    limit = torch.finfo(_FLOAT_DTYPES[fmt.bits]).max
    check_magnitude(torch.maximum(-low, high), limit, label)
    values = weight.to(_FLOAT_DTYPES[fmt.bits], copy=True).contiguous()
    return QuantizedTensor(fmt, tuple(weight.shape), values)


def _scales_shape(shape: tuple[int, ...], fmt: Format) -> tuple[int, ...]:
    if fmt.granularity == "tensor":
        return (1,)
    if fmt.group_size is None or fmt.two_level:
        return (shape[0],)
    return shape[0], -(-math.prod(shape[1:]) // fmt.group_size)


def _check_shape(shape: tuple[int, ...], label: str = "weight") -> None:
    if len(shape) < 2 or min(shape) < 1:
        raise InputError(
            f"{label} has shape {list(shape)}: only non-empty weights of two or more dimensions "
            "[out, in, ...] can be quantised; leave others in floating point"
        )


def _check_tensors(fmt: Format, shape: tuple[int, ...], tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that ``quantize`` cannot have written for this format and shape."""
    expected = _expected_tensors(fmt, shape)
    if set(tensors) != set(expected):
        raise _damaged(f"{fmt.key} weight holds {sorted(tensors)}, must hold {sorted(expected)}")
    for part, (dtypes, part_shape) in expected.items():
        tensor = tensors[part]
        if tensor.dtype not in dtypes or tuple(tensor.shape) != part_shape:
            wanted = f"{' or '.join(map(str, dtypes))} of shape {list(part_shape)}"
            actual = f"{tensor.dtype} of shape {list(tensor.shape)}"
            raise _damaged(f"{part} of a {fmt.key} weight are {actual}, must be {wanted}")
    if fmt.is_float and not bool(tensors["codes"].isfinite().all()):
        raise _damaged(f"values of a {fmt.key} weight contain NaN or Inf")
    if not fmt.is_float and not bool((tensors["scales"].isfinite() & (tensors["scales"] > 0)).all()):
        raise _damaged(f"scales of a {fmt.key} weight are not all finite and positive")


def _damaged(what: str) -> InputError:
    return InputError(f"{what}: the file is damaged, export it again")


def _expected_tensors(
    fmt: Format, shape: tuple[int, ...]
) -> dict[str, tuple[tuple[torch.dtype, ...], tuple[int, ...]]]:
    """Name -> allowed dtypes and shape of every tensor of this format."""
    if fmt.is_float:
        return {"codes": ((_FLOAT_DTYPES[fmt.bits],), shape)}
    scales_shape = _scales_shape(shape, fmt)
    expected: dict[str, tuple[tuple[torch.dtype, ...], tuple[int, ...]]] = {
        "codes": ((torch.uint8,), (packed_nbytes(math.prod(shape), fmt.bits),)),
        "scales": ((torch.float16, torch.float32), scales_shape),
    }
    if not fmt.symmetric:
        expected["zero_points"] = ((torch.uint8,), scales_shape)
    if fmt.two_level:
        expected["multipliers"] = ((torch.uint8,), (packed_nbytes(_blocks_of(shape, fmt), fmt.multiplier_bits),))
    return expected
