"""The arithmetic of every format, against a plain loop over its formula; bytes; refusals."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vggtkit.core.errors import InputError
from vggtkit.quant.formats import FORMATS, UNIFORM_SCHEMES, Format
from vggtkit.quant.packing import unpack_codes
from vggtkit.quant.quantizer import QuantizedTensor, dequantize, quantize, quantized_nbytes

# Key -> (weights that share a scale: all, a row, or this many of a row; symmetric; largest code)
CONTRACT: dict[str, tuple[int | str, bool, int]] = {
    "int8_per_tensor_sym": ("all", True, 127),
    "int8_per_tensor_asym": ("all", False, 255),
    "int8_per_channel_sym": ("row", True, 127),
    "int8_per_channel_asym": ("row", False, 255),
    "int4_group_128": (128, True, 7),
    "int4_group_64": (64, True, 7),
    "int4_group_32": (32, True, 7),
}
SHAPES = [(3, 5), (1, 1), (2, 256), (5, 70), (4, 33), (3, 3, 5, 5), (2, 129)]


def runs_of(shape: tuple[int, ...], key: str) -> list[slice]:
    """Which runs of the flattened weight share a scale."""
    share, row = CONTRACT[key][0], math.prod(shape[1:])
    if share == "all":
        return [slice(0, shape[0] * row)]
    size = row if share == "row" else int(share)
    return [
        slice(r * row + start, r * row + min(start + size, row))
        for r, start in itertools.product(range(shape[0]), range(0, row, size))
    ]


def loop_quantize(w: np.ndarray, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The contract's formulas, one weight at a time: codes, scales, zero points, dequantised weight."""
    _, symmetric, largest = CONTRACT[key]
    flat, scales, f32 = w.reshape(-1), [], np.float32
    for run in runs_of(w.shape, key):
        low, high = min(0, *flat[run]), max(0, *flat[run])
        extent = f32(max(-low, high)) if symmetric else f32(high) - f32(low)
        scales.append(max(extent / f32(largest), np.finfo(f32).tiny) if extent else f32(1))
    with np.errstate(over="ignore", divide="ignore"):
        half = np.array(scales, np.float16)
        fits = all(abs(s / f32(h) - f32(1)) * f32(largest) <= 0.5 for s, h in zip(scales, half, strict=True))
    stored = half if fits else np.array(scales, f32)
    codes, zero_points, back = np.zeros(flat.size, int), [], np.zeros(flat.size, f32)
    for run, scale in zip(runs_of(w.shape, key), stored.astype(f32), strict=True):
        zero = 0 if symmetric else min(max(round(float(-f32(min(0, *flat[run])) / scale)), 0), 255)
        zero_points.append(zero)
        lowest, highest = (-largest - 1, largest) if symmetric else (0, 255)
        for i in range(*run.indices(flat.size)):
            codes[i] = min(max(round(float(flat[i] / scale + f32(zero))), lowest), highest)
            back[i] = f32(codes[i] - zero) * scale
    return codes, stored, np.array(zero_points), back.reshape(w.shape)


def weights(magnitude: float = 10.0) -> st.SearchStrategy[np.ndarray]:
    elements = st.floats(-magnitude, magnitude, width=32)
    return st.sampled_from(SHAPES).flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=elements))


def random_weight(shape: tuple[int, ...], scale: float = 0.02, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def codes_of(q: QuantizedTensor) -> torch.Tensor:
    return unpack_codes(q.codes, q.format.bits, math.prod(q.shape), signed=q.format.symmetric)


def assert_equals_loop(w: np.ndarray, key: str) -> None:
    q = quantize(torch.from_numpy(w), key)
    codes, scales, zero_points, back = loop_quantize(w, key)
    np.testing.assert_array_equal(codes_of(q).numpy(), codes)
    assert q.scales is not None
    assert q.scales.numpy().dtype == scales.dtype
    np.testing.assert_array_equal(q.scales.numpy().reshape(-1), scales)
    if q.zero_points is not None:
        np.testing.assert_array_equal(q.zero_points.numpy().reshape(-1), zero_points)
    np.testing.assert_array_equal(dequantize(q).numpy(), back)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("key", UNIFORM_SCHEMES)
def test_codes_scales_and_values_equal_a_plain_loop(key: str, shape: tuple[int, ...]) -> None:
    for seed, scale in enumerate([0.02, 3e-5, 1e-9, 1e30]):
        assert_equals_loop(random_weight(shape, scale, seed).numpy(), key)


@pytest.mark.parametrize("key", UNIFORM_SCHEMES)
@settings(max_examples=20, deadline=None)
@given(w=weights())
def test_any_weight_equals_a_plain_loop(key: str, w: np.ndarray) -> None:
    assert_equals_loop(w, key)


@pytest.mark.parametrize("key", UNIFORM_SCHEMES)
@settings(max_examples=20, deadline=None)
@given(w=weights(2.0**100))
def test_error_is_at_most_half_a_step_where_nothing_is_clamped(key: str, w: np.ndarray) -> None:
    """And a step where it is: a scale rounded down to FP16 may push the extreme weight past the last code."""
    q = quantize(torch.from_numpy(w), key)
    error = np.abs(dequantize(q).double().numpy() - w).reshape(-1)
    assert q.scales is not None
    steps = q.scales.double().view(-1).tolist()
    zero_points = [0] * len(steps) if q.zero_points is None else q.zero_points.view(-1).tolist()
    lowest, highest = (-CONTRACT[key][2] - 1, CONTRACT[key][2]) if CONTRACT[key][1] else (0, 255)
    for run, step, zero_point in zip(runs_of(w.shape, key), steps, zero_points, strict=True):
        position = w.reshape(-1)[run].astype(float) / step + zero_point
        inside = (position >= lowest) & (position <= highest)
        assert (error[run] <= np.where(inside, 0.5, 1.0) * step * 1.0001).all()


@pytest.mark.parametrize("shape", [*SHAPES, (128, 256), (64, 588)], ids=str)
@pytest.mark.parametrize("key", UNIFORM_SCHEMES)
def test_bytes_equal_an_independent_count(key: str, shape: tuple[int, ...]) -> None:
    _, symmetric, largest = CONTRACT[key]
    count, scales = math.prod(shape), len(runs_of(shape, key))
    expected = (count if largest > 7 else (count + 1) // 2) + scales * (2 if symmetric else 3)
    q = quantize(random_weight(shape), key)
    assert q.nbytes == quantized_nbytes(shape, key) == expected
    assert q.nbytes == sum(len(tensor.numpy().tobytes()) for tensor in q.tensors().values())


@pytest.mark.parametrize(("key", "bytes_per_weight"), [("fp16", 2), ("fp32", 4)])
def test_floating_point_formats_keep_the_rounded_values(key: str, bytes_per_weight: int) -> None:
    w = random_weight((3, 4, 2, 2))
    q = quantize(w, key)
    assert dequantize(q).equal(w.half().float() if key == "fp16" else w)
    assert q.nbytes == quantized_nbytes(w.shape, key) == 48 * bytes_per_weight
    w.zero_()
    assert dequantize(q).any()  # a copy, not a view of the weight


@pytest.mark.parametrize("key", UNIFORM_SCHEMES)
def test_all_zero_rows_have_scale_one_and_stay_zero(key: str) -> None:
    w = random_weight((3, 40))
    w[1] = 0
    q = quantize(w, key)
    assert q.scales is not None
    assert dequantize(q)[1].eq(0).all()
    if q.format.granularity != "tensor":
        assert q.scales[1].eq(1).all()
        assert q.scales[0].lt(1).all()
    assert dequantize(quantize(torch.zeros(3, 40), key)).eq(0).all()


@pytest.mark.parametrize("key", ["int8_per_tensor_asym", "int8_per_channel_asym"])
@pytest.mark.parametrize("sign", [1, -1])
def test_asymmetric_range_includes_zero(key: str, sign: int) -> None:
    """A weight all on one side of 0 keeps a representable zero point, at the end of the codes."""
    q = quantize(sign * (random_weight((4, 50)).abs() + 5), key)
    assert q.zero_points is not None
    assert q.zero_points.eq(0 if sign > 0 else 255).all()


@pytest.mark.parametrize("key", UNIFORM_SCHEMES)
@pytest.mark.parametrize("magnitude", [1e30, 1e37, 1e-7, 1e-30, 1e-44])
def test_scales_that_fp16_cannot_hold_are_fp32_and_counted(key: str, magnitude: float) -> None:
    w = (random_weight((3, 40), 1.0).clamp(-1, 1).double() * magnitude).float()
    q = quantize(w, key)
    assert q.scales is not None
    assert q.scales.dtype == torch.float32
    assert q.nbytes == quantized_nbytes(w.shape, key) + 2 * q.scales.numel()
    error = (dequantize(q) - w).abs().max()
    assert error <= 0.51 * q.scales.max()


def test_one_vanishing_scale_makes_all_of_its_tensor_fp32() -> None:
    w = random_weight((3, 40))
    w[2] *= 1e-12
    q = quantize(w, "int8_per_channel_sym")
    assert q.scales is not None
    assert q.scales.dtype == torch.float32
    assert dequantize(q)[2].any()


@pytest.mark.parametrize("key", ["fp32", "fp16", *UNIFORM_SCHEMES])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_inf_are_refused_with_the_layers_name(key: str, bad: float) -> None:
    w = random_weight((3, 40))
    w[1, 7] = bad
    with pytest.raises(InputError, match=r"weight of depth_head\.norm contains NaN or Inf"):
        quantize(w, key, name="depth_head.norm")


@pytest.mark.parametrize(
    ("weight", "key", "message"),
    [
        (torch.ones(4), "int4_group_32", r"shape \[4\]"),
        (torch.ones(0, 4), "int8_per_tensor_sym", r"shape \[0, 4\]"),
        (torch.ones(2, 2, dtype=torch.int32), "int8_per_tensor_sym", r"torch\.int32"),
        (torch.full((2, 2), 70000.0), "fp16", "65504"),
        (torch.full((2, 2), 3e38), "int8_per_channel_asym", r"1e\+38"),
        (torch.ones(2, 2), "int5", "unknown format 'int5'"),
    ],
    ids=["one-dimensional", "empty", "integers", "fp16 overflow", "fp32 overflow", "unknown format"],
)
def test_weights_that_cannot_be_quantised_are_refused(weight: torch.Tensor, key: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantize(weight, key)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_floating_dtypes_are_computed_in_fp32(dtype: torch.dtype) -> None:
    w = random_weight((4, 64)).to(dtype)
    assert dequantize(quantize(w, "int4_group_32")).equal(dequantize(quantize(w.float(), "int4_group_32")))


@pytest.mark.parametrize("key", FORMATS)
def test_neither_the_weight_nor_the_quantised_tensor_is_written_to(key: str) -> None:
    w = torch.nn.Parameter(random_weight((4, 70)))
    before = w.detach().clone()
    q = quantize(w, key)
    first = dequantize(q)
    dequantize(q).add_(1)
    assert w.detach().equal(before)
    assert dequantize(q).equal(first)


@pytest.mark.parametrize("bits", [2, 3])
def test_a_format_registered_later_works_everywhere(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fmt = Format(f"int{bits}_group_16", "later", bits, "group", symmetric=True, group_size=16)
    monkeypatch.setitem(FORMATS._values, fmt.key, fmt)
    w = random_weight((5, 37))
    q = quantize(w, fmt.key)
    assert q.nbytes == quantized_nbytes(w.shape, fmt.key) == math.ceil(5 * 37 * bits / 8) + 5 * 3 * 2
    assert q.scales is not None
    steps = q.scales.float().repeat_interleave(16, dim=1)[:, :37]
    assert ((dequantize(q) - w).abs() <= 0.501 * steps).all()


@pytest.mark.parametrize("key", FORMATS)
def test_from_tensors_undoes_tensors(key: str) -> None:
    q = quantize(random_weight((3, 5, 3, 3)), key)
    back = QuantizedTensor.from_tensors(key, list(q.shape), q.tensors())
    assert dequantize(back).equal(dequantize(q))
    assert back.nbytes == q.nbytes


@pytest.mark.parametrize("key", ["fp16", "int8_per_channel_asym", "int4_group_32"])
def test_every_tampered_tensor_is_refused(key: str) -> None:
    q = quantize(random_weight((3, 40)), key)
    for part, tensor in q.tensors().items():
        others = {name: other for name, other in q.tensors().items() if name != part}
        tampered = [others, {**others, part: tensor[:-1]}, {**others, part: tensor.double()}]
        if tensor.is_floating_point():
            tampered += [{**others, part: torch.full_like(tensor, bad)} for bad in (math.nan, math.inf)]
        if part == "scales":
            tampered += [{**others, part: torch.zeros_like(tensor)}]
        for tensors in tampered:
            with pytest.raises(InputError, match="the file is damaged"):
                QuantizedTensor.from_tensors(key, q.shape, tensors)
    with pytest.raises(InputError, match="the file is damaged"):
        QuantizedTensor.from_tensors(key, q.shape, {**q.tensors(), "surprise": q.codes})
    with pytest.raises(InputError, match="the file is damaged"):
        QuantizedTensor.from_tensors(key, (3, 39), q.tensors())
