"""Codes of all output channels together: the error that is made small, and that nothing single is better."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vggtkit.quant import dequantize, quantize
from vggtkit.quant.grid import codes_of, with_codes
from vggtkit.quant.packing import pack_codes, unpack_codes
from vggtkit.quant.quantizer import QuantizedTensor
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.quant.rounding.base import DAMPING
from vggtkit.quant.rounding.together import CHANNEL_DAMPING, descended_together

KEYS = ("int4_group_32", "int3_asym_32", "int3_two_level_16", "int8_per_channel_sym", "int8_per_tensor_asym")


def problem(parts: int = 1, out: int = 6, inputs: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """A weight, and correlated second moments of its inputs and of the gradients at its output channels."""
    generator = torch.Generator().manual_seed(parts)
    rows = torch.randn(parts, 40, inputs, generator=generator) + 1
    gradients = torch.randn(parts, 40, out, generator=generator) + 2
    weight = torch.randn(parts * out, inputs, generator=generator)
    return weight, rows.transpose(1, 2) @ rows, gradients.transpose(1, 2) @ gradients


def error(weight: Tensor, q: QuantizedTensor, moments: Tensor, channels: Tensor) -> float:
    """``tr(G E H E^T)``, both with their damping, written out in float64."""
    total, share = 0.0, len(weight) // len(moments)
    for part, (h, g) in enumerate(zip(moments.double(), channels.double(), strict=True)):
        h = h + DAMPING * h.diagonal().mean() * torch.eye(len(h))
        g = g + CHANNEL_DAMPING * g.diagonal().mean() * torch.eye(len(g))
        e = (dequantize(q).double() - weight.double())[part * share : (part + 1) * share]
        total += float(torch.trace(g @ e @ h @ e.T))
    return total


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("key", KEYS)
def test_it_makes_the_error_less_until_no_code_alone_is_better(key: str, parts: int) -> None:
    weight, moments, channels = problem(parts)
    start = ROUNDINGS["descent"].round(weight, key, moments)
    found = descended_together(weight, start, moments, channels, sweeps=100)
    least = error(weight, found, moments, channels)
    assert least <= error(weight, start, moments, channels)
    low, high = found.format.code_range
    codes = codes_of(found)
    for row in range(len(weight)):
        for column in range(weight.shape[1]):
            for step in (-1, 1):
                other = codes.clone()
                other[row, column] += step
                if low <= other[row, column] <= high:
                    assert error(weight, with_codes(found, other), moments, channels) >= least * (1 - 1e-4)


def test_no_step_of_a_group_alone_is_better() -> None:
    weight, moments, channels = problem(inputs=48)
    found = descended_together(weight, quantize(weight, "int3_two_level_16"), moments, channels, sweeps=100)
    least, bits = error(weight, found, moments, channels), found.format.multiplier_bits
    assert found.multipliers is not None
    counts = unpack_codes(found.multipliers, bits, 6 * 3, signed=False)
    for group in range(len(counts)):
        for step in (-1, 1):
            other = counts.clone()
            other[group] += step
            if 0 <= int(counts[group]) + step < 2**bits:
                changed = replace(found, multipliers=pack_codes(other, bits))
                assert error(weight, changed, moments, channels) >= least * (1 - 1e-4)


def test_half_of_what_each_channel_by_itself_leaves() -> None:
    weight, moments, channels = problem(out=24, inputs=150)
    by_themselves = ROUNDINGS["descent"].round(weight, "int3_two_level_16", moments)
    together = ROUNDINGS["joint_descent"].round(weight, "int3_two_level_16", moments, "", channels)
    errors = [error(weight, q, moments, channels) for q in (by_themselves, together)]
    assert errors[1] < 0.5 * errors[0]
    assert together.nbytes == by_themselves.nbytes


def test_channels_that_are_heard_apart_gain_nothing_from_each_other() -> None:
    """With G a multiple of the identity it is coordinate descent on each row, where it already was."""
    weight, moments, _ = problem()
    found = descended_together(weight, quantize(weight, "int4_group_32"), moments, 3 * torch.eye(6)[None], sweeps=100)
    for row in range(len(weight)):
        alone = descended_together(
            weight[row : row + 1], quantize(weight[row : row + 1], "int4_group_32"), moments, torch.ones(1, 1, 1),
            sweeps=100,
        )  # fmt: skip
        assert dequantize(found)[row].equal(dequantize(alone)[0])


def test_without_channels_it_is_descent() -> None:
    weight, moments, _ = problem()
    pair = [ROUNDINGS[key].round(weight, "int4_group_32", moments) for key in ("joint_descent", "descent")]
    assert dequantize(pair[0]).equal(dequantize(pair[1]))
