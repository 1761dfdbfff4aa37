"""Codes chosen otherwise than to the nearest: against plain numpy, exhaustive search, and what must not change."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.quant import FORMATS, QuantizedTensor, dequantize, quantize, quantized_nbytes
from vggtkit.quant.grid import Grid, codes_of, grid_of, with_codes
from vggtkit.quant.rounding import ROUNDINGS, compensated
from vggtkit.quant.rounding.gptq import DAMPING
from vggtkit.quant.rounding.nearest import FRACTIONS

CODED = [key for key, fmt in FORMATS.items() if not fmt.is_float]
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def a_weight(out: int = 6, inputs: int = 70, seed: int = 0) -> Tensor:
    return torch.randn(out, inputs, generator=torch.Generator().manual_seed(seed)) * 0.1


def moments_of(inputs: int, rows: int = 400, seed: int = 1) -> Tensor:
    """Of inputs that go together and do not lie around 0, as activations do."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, inputs, generator=generator) @ torch.randn(inputs, inputs, generator=generator)
    x = mixed / inputs**0.5 + torch.randn(inputs, generator=generator)
    return (x.T @ x)[None]


def squared_error(weight: Tensor, q: QuantizedTensor, moments: Tensor) -> float:
    error = (dequantize(q) - weight).double()
    return float((error @ moments[0].double() * error).sum())


@pytest.mark.parametrize("key", CODED)
def test_a_grid_holds_what_the_format_stands_for(key: str) -> None:
    q = quantize(a_weight(), key)
    grid = grid_of(q)
    torch.testing.assert_close(grid.values(codes_of(q)), dequantize(q))
    again = with_codes(q, codes_of(q))
    assert all(again.tensors()[name].equal(tensor) for name, tensor in q.tensors().items())


def by_elimination(weight: Array, steps: Array, low: int, high: int, moments: Array) -> Array:
    """Optimal brain surgeon, column by column, as its paper has it: the inverse loses a row and a column each time."""
    damped = moments + DAMPING * np.mean(np.diag(moments)) * np.eye(len(moments))
    order = np.argsort(-np.diag(moments), kind="stable")
    inverse, left, codes = np.linalg.inv(damped), weight.copy(), np.zeros_like(weight)
    for column in order:
        codes[:, column] = np.clip(np.round(left[:, column] / steps[:, column]), low, high)
        error = (left[:, column] - codes[:, column] * steps[:, column]) / inverse[column, column]
        left -= np.outer(error, inverse[column])
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return codes


def test_codes_are_those_of_plain_numpy() -> None:
    weight, moments = a_weight(5, 150), moments_of(150)  # more than one block of columns
    q = quantize(weight, "int4_group_64")
    grid = grid_of(q)
    codes = compensated(weight, grid, moments[0])
    expected = by_elimination(
        weight.double().numpy(), grid.steps.double().numpy(), grid.low, grid.high, moments[0].double().numpy()
    )
    assert np.mean(codes.numpy() == expected) > 0.99  # a wanted value that lies halfway may go either way
    values, others = (grid.values(c.float()) - weight for c in (codes, torch.from_numpy(expected)))
    ours, plain = (float((e @ moments[0] * e).sum()) for e in (values, others))
    assert ours == pytest.approx(plain, rel=0.02)


def test_between_the_nearest_and_the_best_of_all_codes() -> None:
    """2 bits and 4 weights: 256 ways, all tried."""
    grid = Grid(torch.full((1, 4), 0.1), torch.zeros(1, 4), -2, 1)
    every = torch.tensor(list(itertools.product(range(-2, 2), repeat=4)), dtype=torch.float32)
    found: dict[str, list[float]] = {"nearest": [], "ours": [], "best": []}
    for seed in range(40):
        weight, moments = a_weight(1, 4, seed), moments_of(4, seed=seed + 100)[0]
        errors = every * 0.1 - weight
        found["best"].append(float((errors @ moments * errors).sum(1).min()))
        for name, codes in (("nearest", grid.codes(weight)), ("ours", compensated(weight, grid, moments))):
            error = grid.values(codes) - weight
            found[name].append(float((error @ moments * error).sum()))
    assert all(best <= ours * (1 + 1e-5) for best, ours in zip(found["best"], found["ours"], strict=True))
    assert sum(found["ours"]) < 0.75 * sum(found["nearest"])
    assert np.median(np.array(found["ours"]) / np.array(found["best"])) < 1.3


def test_inputs_that_do_not_go_together_leave_nothing_to_make_up_for() -> None:
    weight = a_weight()
    grid = grid_of(quantize(weight, "int4_group_32"))
    assert compensated(weight, grid, torch.diag(torch.linspace(1, 3, 70))).equal(grid.codes(weight))


@pytest.mark.parametrize("key", [*CODED, "fp16"])
@pytest.mark.parametrize("name", ["mse", "gptq", "output_gptq"])
def test_files_stay_as_large_and_outputs_come_nearer(name: str, key: str) -> None:
    weight, moments = a_weight(), moments_of(70)
    q, nearest = ROUNDINGS[name].round(weight, key, moments), quantize(weight, key)
    assert q.nbytes == nearest.nbytes == quantized_nbytes((6, 70), key)
    QuantizedTensor.from_tensors(key, q.shape, q.tensors())
    ours, theirs = (squared_error(weight, each, moments) for each in (q, nearest))
    if name != "mse":
        assert q.scales is None or q.scales.equal(nearest.scales)  # type: ignore[arg-type]
        assert ours <= (0.8 * theirs if key in CODED else theirs)


@pytest.mark.parametrize("key", ["int4_group_32", "int3_asym_64", "int8_per_channel_sym", "int4_asym_32"])
def test_scales_by_squared_error_are_the_best_of_those_tried(key: str) -> None:
    weight = a_weight(4, 64)
    weight[:, 3] *= 8  # worth clipping
    q, nearest = ROUNDINGS["mse"].round(weight, key), quantize(weight, key)
    groups = FORMATS[key].group_size or 64
    zeros = grid_of(nearest).zeros.numpy()
    errors = []
    for fraction in FRACTIONS:
        scales = (nearest.scales.float() * fraction).half().float().view(4, -1)  # type: ignore[union-attr]
        steps = scales.repeat_interleave(groups, 1).numpy()
        low, high = FORMATS[key].code_range
        values = (np.clip(np.round(weight.numpy() / steps + zeros), low, high) - zeros) * steps
        errors.append(np.square(values - weight.numpy()).reshape(4, -1, groups).sum(2))
    ours = (dequantize(q) - weight).square().view(4, -1, groups).sum(2).numpy()
    np.testing.assert_allclose(ours, np.min(errors, axis=0), rtol=1e-4)
    clipped = q.scales != nearest.scales
    assert isinstance(clipped, Tensor)
    assert bool(clipped.any()) == (FORMATS[key].bits < 8)  # at 8 bits clipping costs more than it brings


def test_dead_inputs_and_few_rows_are_no_trouble() -> None:
    weight = a_weight()
    grid = grid_of(quantize(weight, "int4_group_32"))
    assert compensated(weight, grid, torch.zeros(70, 70)).equal(grid.codes(weight))
    moments = moments_of(70, rows=3)[0]  # of rank 3
    moments[10], moments[:, 10] = 0, 0
    codes = compensated(weight, grid, moments)
    assert bool(codes.isfinite().all())
    assert codes[:, 10].equal(grid.codes(weight)[:, 10])


def test_parts_of_a_weight_have_inputs_of_their_own() -> None:
    weight, first, second = a_weight(6, 20), moments_of(20, seed=1), moments_of(20, seed=2)
    both = ROUNDINGS["gptq"].round(weight, "int8_per_channel_sym", torch.cat([first, second]))
    alone = [
        ROUNDINGS["gptq"].round(part, "int8_per_channel_sym", moments)
        for part, moments in ((weight[:3], first), (weight[3:], second))
    ]
    assert codes_of(both).equal(torch.cat([codes_of(q) for q in alone]))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean gptq"):
        ROUNDINGS.pick("gptk")
