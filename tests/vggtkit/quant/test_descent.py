"""Coordinate descent on codes and scales: against plain numpy, exhaustive search, and every single change."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.vggtkit.quant.test_rounding import CODED, a_weight, moments_of
from vggtkit.quant import FORMATS, QuantizedTensor, dequantize, quantize, quantized_nbytes
from vggtkit.quant.grid import codes_of, grid_of, with_codes
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.quant.rounding.base import DAMPING
from vggtkit.quant.rounding.descent import descended

INT2 = "int2_group_32"
MANY = 60
"""Sweeps after which nothing changes any more."""


def damped(moments: Tensor) -> Tensor:
    return moments[0].double() + DAMPING * moments[0].double().diagonal().mean() * torch.eye(moments.shape[1])


def error_of(weight: Tensor, q: QuantizedTensor, moments: Tensor) -> float:
    error = (dequantize(q) - weight).double()
    return float((error @ damped(moments) * error).sum())


@pytest.mark.parametrize("key", CODED)
def test_what_gptq_began_is_made_better_at_the_same_bytes(key: str) -> None:
    weight, moments = a_weight(), moments_of(70)
    begun, ours = (ROUNDINGS[name].round(weight, key, moments) for name in ("gptq", "descent"))
    assert ours.nbytes == begun.nbytes == quantized_nbytes((6, 70), key)
    QuantizedTensor.from_tensors(key, ours.shape, ours.tensors())
    assert error_of(weight, ours, moments) < error_of(weight, begun, moments)


@pytest.mark.parametrize("key", ["int3_group_32", "int3_asym_64", "int2_two_level_16", "int8_per_tensor_sym"])
def test_no_code_and_no_step_alone_could_be_better(key: str) -> None:
    weight, moments = a_weight(2, 40), moments_of(40)
    q = descended(weight, quantize(weight, key), moments, sweeps=MANY)
    least, codes = error_of(weight, q, moments), codes_of(q)
    low, high = FORMATS[key].code_range
    for row, column in itertools.product(range(2), range(40)):
        for code in {low, high, *(int(codes[row, column]) + step for step in (-2, -1, 1, 2))}:
            other = codes.clone()
            other[row, column] = min(high, max(low, code))
            assert error_of(weight, with_codes(q, other), moments) >= least * (1 - 1e-5)
    if q.multipliers is None and FORMATS[key].granularity != "tensor":
        assert q.scales is not None
        for index, away in itertools.product(range(q.scales.numel()), (0.9, 0.99, 1.01, 1.1)):
            scales = q.scales.clone()
            scales.view(-1)[index] *= away
            moved = QuantizedTensor(q.format, q.shape, q.codes, scales, q.zero_points)
            assert error_of(weight, moved, moments) >= least * (1 - 1e-5)


def in_numpy(weight: Tensor, q: QuantizedTensor, moments: Tensor, sweeps: int) -> np.ndarray:
    """The same, a number at a time, in float64."""
    grid, size = grid_of(q), q.format.group_size or weight.shape[1]
    w, h, codes = weight.double().numpy(), damped(moments).numpy(), codes_of(q).double().numpy()
    zeros, steps = grid.zeros.double().numpy(), grid.steps.double().numpy()
    low, high = q.format.code_range
    for _ in range(sweeps):
        for start in range(0, w.shape[1], size):
            part = slice(start, start + size)
            for row in range(len(w)):
                error = (codes[row] - zeros[row]) * steps[row] - w[row]
                own = np.zeros_like(error)
                own[part] = (codes[row] - zeros[row])[part]
                wanted = np.float16(steps[row, start] - own @ h @ error / (own @ h @ own)).astype(float)
                new = steps[row].copy()
                new[part] = wanted
                moved = (codes[row] - zeros[row]) * new - w[row]
                if moved @ h @ moved < error @ h @ error:
                    steps[row] = new
                for column in range(start, min(start + size, w.shape[1])):
                    error = (codes[row] - zeros[row]) * steps[row] - w[row]
                    best = codes[row, column] - error @ h[:, column] / h[column, column] / steps[row, column]
                    codes[row, column] = np.clip(np.round(best), low, high)
    return (codes - zeros) * steps


@pytest.mark.parametrize("key", ["int3_group_64", "int8_per_channel_sym", "int4_asym_32"])
def test_it_is_what_plain_numpy_does(key: str) -> None:
    weight, moments = a_weight(3, 150), moments_of(150)  # more than one block of columns
    begun = ROUNDINGS["gptq"].round(weight, key, moments)
    ours, plain = descended(weight, begun, moments, sweeps=2), in_numpy(weight, begun, moments, sweeps=2)
    same = np.isclose(dequantize(ours).numpy(), plain, rtol=1e-3, atol=1e-5)
    assert same.mean() > 0.95  # a wanted value that lies halfway may go either way, and others follow
    expected = plain - weight.double().numpy()
    theirs = float((expected @ damped(moments).numpy() * expected).sum())
    assert error_of(weight, ours, moments) == pytest.approx(theirs, rel=0.02)


def test_nearer_to_the_best_of_all_codes_than_gptq() -> None:
    """2 bits and 4 weights: for the step that was found 256 ways, all tried."""
    every = torch.tensor(list(itertools.product(range(-2, 2), repeat=4)), dtype=torch.float64)
    found: dict[str, list[float]] = {"gptq": [], "ours": [], "best": []}
    for seed in range(40):
        weight, moments = a_weight(1, 4, seed), moments_of(4, seed=seed + 100)
        begun, ours = (ROUNDINGS[name].round(weight, INT2, moments) for name in ("gptq", "descent"))
        assert ours.scales is not None
        errors = every * float(ours.scales) - weight.double()
        found["best"].append(float((errors @ damped(moments) * errors).sum(1).min()))
        found["gptq"].append(error_of(weight, begun, moments))
        found["ours"].append(error_of(weight, ours, moments))
    assert all(best <= ours * (1 + 1e-5) for best, ours in zip(found["best"], found["ours"], strict=True))
    assert sum(found["ours"]) < 0.8 * sum(found["gptq"])
    assert np.median(np.array(found["ours"]) / np.array(found["best"])) < 1.05


def test_inputs_that_are_always_zero_change_nothing() -> None:
    weight = a_weight()
    q = quantize(weight, "int4_group_32")
    assert descended(weight, q, torch.zeros(1, 70, 70)) is q
