"""Two-level scales, and low-bit groups with and without a zero point: against numpy, bit for bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vggtkit.core.errors import InputError
from vggtkit.quant import (
    FORMATS,
    TWO_LEVEL,
    Format,
    QuantizedTensor,
    as_int8_per_channel,
    dequantize,
    find_layers,
    pack_layer,
    quantize,
    quantize_layer,
    quantized_nbytes,
    scale_count,
)
from vggtkit.quant.formats import ASYMMETRIC, INT2_GROUPS, INT3_GROUPS

SHAPES = [(3, 5), (1, 1), (2, 256), (5, 70), (4, 33), (3, 3, 5, 5), (2, 129)]
NEW = [*INT3_GROUPS, *INT2_GROUPS, *ASYMMETRIC, *TWO_LEVEL]


def weights(magnitude: float = 10.0) -> st.SearchStrategy[np.ndarray]:
    elements = st.floats(-magnitude, magnitude, width=32)
    return st.sampled_from(SHAPES).flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=elements))


def unpacked(data: torch.Tensor, bits: int, count: int, *, signed: bool) -> np.ndarray:
    """Codes from bytes by numpy's own bit order."""
    columns = np.unpackbits(data.numpy(), bitorder="little")[: count * bits].reshape(count, bits)
    values = (columns * 2 ** np.arange(bits)).sum(1).astype(int)
    return np.where(values >= 2 ** (bits - 1), values - 2**bits, values) if signed else values


def by_hand(q: QuantizedTensor) -> np.ndarray:
    """The values of a quantised weight, from its bytes alone."""
    fmt, rows, columns = q.format, q.shape[0], math.prod(q.shape[1:])
    codes = unpacked(q.codes, fmt.bits, rows * columns, signed=fmt.symmetric).reshape(rows, columns)
    groups = -(-columns // fmt.group_size)
    scales = q.scales.numpy().astype(np.float32)
    if fmt.two_level:
        steps = unpacked(q.multipliers, 8 - fmt.bits, rows * groups, signed=False).reshape(rows, groups) + 1
        products = codes * np.repeat(steps, fmt.group_size, axis=1)[:, :columns]
        assert products.min() >= -128
        assert products.max() <= 127
        return (products.astype(np.float32) * scales[:, None]).reshape(q.shape)
    zero = 0 if q.zero_points is None else np.repeat(q.zero_points.numpy().astype(int), fmt.group_size, 1)[:, :columns]
    return ((codes - zero).astype(np.float32) * np.repeat(scales, fmt.group_size, 1)[:, :columns]).reshape(q.shape)


@pytest.mark.parametrize("key", NEW)
@settings(max_examples=15, deadline=None)
@given(w=weights())
def test_values_are_those_of_the_bytes(key: str, w: np.ndarray) -> None:
    q = quantize(torch.from_numpy(w), key)
    np.testing.assert_array_equal(dequantize(q).numpy(), by_hand(q))
    assert q.nbytes == sum(len(part.numpy().tobytes()) for part in q.tensors().values())
    wide = q.scales.dtype == torch.float32
    assert q.nbytes == quantized_nbytes(w.shape, key) + 2 * wide * scale_count(w.shape, key)
    again = QuantizedTensor.from_tensors(key, w.shape, q.tensors())
    np.testing.assert_array_equal(dequantize(again).numpy(), by_hand(q))


@pytest.mark.parametrize("key", [*INT3_GROUPS, *INT2_GROUPS, *ASYMMETRIC])
@settings(max_examples=15, deadline=None)
@given(w=weights())
def test_groups_err_by_half_a_step_inside_their_range_and_a_step_at_its_end(key: str, w: np.ndarray) -> None:
    q = quantize(torch.from_numpy(w), key)
    size, columns = q.format.group_size, math.prod(w.shape[1:])
    step = np.repeat(q.scales.double().numpy(), size, 1)[:, :columns].reshape(w.shape)
    error = np.abs(dequantize(q).double().numpy() - w)
    assert (error <= step * 1.0001).all()
    zero = 0 if q.zero_points is None else np.repeat(q.zero_points.double().numpy(), size, 1)[:, :columns]
    low, high = q.format.code_range
    position = w.astype(float) / step + (zero if q.zero_points is None else zero.reshape(w.shape))
    inside = (position >= low) & (position <= high)
    assert (error[inside] <= 0.5001 * step[inside]).all()


@pytest.mark.parametrize("key", TWO_LEVEL)
@settings(max_examples=15, deadline=None)
@given(w=weights())
def test_two_levels_are_int8_per_channel_bit_for_bit(key: str, w: np.ndarray) -> None:
    q = quantize(torch.from_numpy(w), key)
    as_int8 = as_int8_per_channel(q)
    assert as_int8.format.key == "int8_per_channel_sym"
    assert as_int8.scales is q.scales
    assert dequantize(as_int8).equal(dequantize(q))
    # The same through the door that files come through, which checks dtypes, shapes and values.
    checked = QuantizedTensor.from_tensors("int8_per_channel_sym", w.shape, as_int8.tensors())
    assert dequantize(checked).equal(dequantize(q))


@pytest.mark.parametrize("key", TWO_LEVEL)
def test_a_multiplier_is_the_best_of_those_near_it(key: str) -> None:
    """No group gets smaller an error from the multiplier that clips nothing, and none is ever worse than clipping."""
    w = torch.randn(8, 256, generator=torch.Generator().manual_seed(0))
    q = quantize(w, key)
    fmt = q.format
    blocks = w.view(8, -1, fmt.group_size)
    low, high = fmt.code_range
    fraction = 0.9 if fmt.bits == 2 else 1.0
    step = q.scales.float()[:, None]
    plain = (blocks.abs().amax(-1) / high / step * fraction).round().clamp(1, 2 ** (8 - fmt.bits)) * step
    codes = (blocks / plain[..., None]).round().clamp(low, high)
    plain_error = (codes * plain[..., None] - blocks).square().sum(-1)
    error = (dequantize(q).view_as(blocks) - blocks).square().sum(-1)
    assert (error <= plain_error * (1 + 1e-5)).all()
    assert fmt.bits > 4 or (error < plain_error * 0.999).any()


@pytest.mark.parametrize("key", TWO_LEVEL)
def test_channels_of_a_large_weight_are_encoded_each_by_itself(key: str) -> None:
    weight = torch.randn(70, 4100, generator=torch.Generator().manual_seed(0))  # several pieces, the last one smaller
    whole = dequantize(quantize(weight, key))
    for row in (0, 30, 31, 63, 64, 69):
        assert whole[row].equal(dequantize(quantize(weight[row, None], key))[0])


@pytest.mark.parametrize("bits", [3, 4])
def test_two_levels_take_fewer_bytes_and_err_less_than_a_scale_per_group(bits: int) -> None:
    w = 0.02 * torch.randn(64, 512, generator=torch.Generator().manual_seed(1))
    group, two_level = (quantize(w, f"int{bits}_{kind}_64") for kind in ("group", "two_level"))
    assert two_level.nbytes < group.nbytes
    errors = [(dequantize(q) - w).square().sum() for q in (group, two_level)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("key", TWO_LEVEL)
@pytest.mark.parametrize(
    "w", [torch.zeros(2, 40), torch.tensor([[0.0, -1e-30], [3e37, 0.0]])], ids=["zeros", "extreme"]
)
def test_extreme_weights_stay_finite(key: str, w: torch.Tensor) -> None:
    q = quantize(w, key)
    found = dequantize(q)
    assert found.isfinite().all()
    assert (found - w).abs().max() <= w.abs().max()
    assert not found[w.abs().amax(1) == 0].any()


@pytest.mark.parametrize("key", NEW)
def test_a_packed_layer_computes_what_the_simulated_one_does(key: str) -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(70, 6), torch.randn(3, 70)
    q = quantize_layer(layer, key)
    with torch.no_grad():
        expected = torch.nn.functional.linear(x, dequantize(q), layer.bias)
        pack_layer(layer, q)
        assert layer(x).equal(expected)
    assert [entry.shape for entry in find_layers(torch.nn.Sequential(layer))] == [(6, 70)]


def test_damaged_multipliers_are_refused() -> None:
    q = quantize(torch.ones(4, 64), "int4_two_level_16")
    for change in ({"multipliers": q.multipliers[:-1]}, {"multipliers": q.multipliers.float()}):
        with pytest.raises(InputError, match="multipliers of a int4_two_level_16 weight"):
            QuantizedTensor.from_tensors("int4_two_level_16", (4, 64), q.tensors() | change)
    with pytest.raises(ValueError, match="has no two levels"):
        as_int8_per_channel(quantize(torch.ones(4, 64), "int4_group_32"))


@pytest.mark.parametrize(
    "options", [{"bits": 8}, {"symmetric": False}, {"granularity": "channel", "group_size": None}], ids=str
)
def test_two_levels_need_symmetric_groups_of_few_bits(options: dict[str, object]) -> None:
    fields = {"bits": 4, "granularity": "group", "symmetric": True, "group_size": 16, "two_level": True} | options
    with pytest.raises(ValueError, match="two levels of scales need symmetric groups"):
        Format("x", "x", **fields)


def test_every_key_leaves_room_in_the_header_of_a_file() -> None:
    assert max(map(len, FORMATS)) <= 32
