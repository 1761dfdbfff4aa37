"""Learned weights: they begin at the codes, and their gradients are those of the surrogate."""

import itertools

import pytest
import torch
from torch import Tensor

from vggtkit.quant import FORMATS, QuantizedTensor, dequantize, quantize
from vggtkit.quant.grid import codes_of, with_codes
from vggtkit.quant.learned import LearnedWeight

CODED = [key for key, fmt in FORMATS.items() if not fmt.is_float]
SHAPE = (5, 70)
"""Leaves ragged groups."""


def weight_of(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shaken(key: str, spread: float) -> LearnedWeight:
    """A weight some way from its start, so that some codes have changed and some are beyond their range."""
    weight, generator = weight_of(), torch.Generator().manual_seed(1)
    learned = LearnedWeight(weight, quantize(weight, key))
    for name, parameter in learned.parameters.items():
        wide = spread if name == "latent" else 0.1 * spread
        parameter += wide * torch.randn(parameter.shape, generator=generator)
    return learned


def same(ours: QuantizedTensor, theirs: QuantizedTensor) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours.tensors().values(), theirs.tensors().values(), strict=True))


@pytest.mark.parametrize("key", CODED)
def test_it_begins_at_whatever_codes_it_is_given(key: str) -> None:
    weight = weight_of()
    q = quantize(weight, key)
    assert same(LearnedWeight(weight, q).encoded(), q)
    low, high = q.format.code_range
    moved = with_codes(q, (codes_of(q) + torch.randint(-1, 2, SHAPE)).clamp(low, high))  # as calibration moves them
    assert same(LearnedWeight(weight, moved).encoded(), moved)


@pytest.mark.parametrize("key", CODED)
def test_what_is_trained_with_is_what_is_stored(key: str) -> None:
    learned = shaken(key, 1.0)
    stored = learned.encoded()
    assert not same(stored, learned.start)
    torch.testing.assert_close(learned.values(), dequantize(stored), rtol=2e-7, atol=0)
    assert same(QuantizedTensor.from_tensors(key, SHAPE, stored.tensors()), stored)  # a file may hold it


def surrogate(learned: LearnedWeight, at: dict[str, Tensor], changes: dict[str, Tensor]) -> Tensor:
    """The weight in float64 at changed parameters, where every rounding is what it was ``at`` these plus the change."""
    before = {name: value.double() for name, value in at.items()}
    after = {name: value + changes.get(name, torch.zeros(1)).double() for name, value in before.items()}

    def rounded(now: Tensor, then: Tensor, low: float, high: float) -> Tensor:
        """Straight through: beyond the range a constant."""
        whole = then.round()
        return torch.where((whole >= low) & (whole <= high), now + whole - then, whole.clamp(low, high))

    def step(parameters: dict[str, Tensor]) -> Tensor:
        scales = learned.scale.double() * parameters["scales"].exp()
        if learned.multiplier is None:
            return scales
        now, then = (learned.multiplier.double() * p["multipliers"].exp() for p in (parameters, before))
        return scales * rounded(now, then, 1, 2.0**learned.start.format.multiplier_bits)

    now, then = (p["latent"] * learned.step.double() / step(p) + learned.zero for p in (after, before))
    blocks = (rounded(now, then, *learned.start.format.code_range) - learned.zero) * step(after)
    return blocks.reshape(-1, blocks.numel() // SHAPE[0])[:, : SHAPE[1]].reshape(SHAPE)


@pytest.mark.parametrize(
    "key",
    [
        "int8_per_tensor_sym",
        "int8_per_channel_asym",
        "int2_group_32",
        "int3_asym_32",
        "int2_two_level_16",
        "int4_two_level_64",
    ],
)
@pytest.mark.parametrize("name", ["latent", "scales", "multipliers"])
def test_gradients_are_those_of_the_surrogate(key: str, name: str) -> None:
    """Against central differences in float64; scales in FP32 there, as FP16 would hide small changes."""
    weight = weight_of()
    q = quantize(weight, key)
    learned = LearnedWeight(weight, QuantizedTensor(**{**vars(q), "scales": q.scales.float()}))
    generator = torch.Generator().manual_seed(2)
    for parameter in learned.parameters.values():
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    if name not in learned.parameters:
        pytest.skip("one level of scales")
    outer = torch.randn(SHAPE, generator=generator)
    gradient = learned.gradients(outer)[name]
    at = {own: value.clone() for own, value in learned.parameters.items()}
    torch.testing.assert_close(surrogate(learned, at, {}).float(), learned.values(), rtol=1e-4, atol=1e-5)
    places = list(itertools.product(*map(range, gradient.shape)))
    chosen = [places[i] for i in torch.randperm(len(places), generator=generator)[:40].tolist()]
    for place in chosen:
        change = torch.zeros_like(gradient, dtype=torch.float64)
        change[place] = 1e-7
        more, less = (surrogate(learned, at, {name: sign * change}) for sign in (1, -1))
        expected = float(((more - less) * outer.double()).sum() / 2e-7)
        assert float(gradient[place]) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_scale_of_lsq() -> None:
    """Its published gradient: within the range code - v/s, beyond it the bound (Esser et al. 2020, eq. 3)."""
    weight = torch.tensor([[7.0, 2.2, -3.4, 20.0]])
    q = quantize(torch.tensor([[7.0, 2.0, -3.0, 7.0]]), "int4_group_32")
    learned = LearnedWeight(weight, q)
    learned.parameters["latent"][0, 0, 3] = 20.0
    outer = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
    gradients = learned.gradients(outer)
    assert float(gradients["scales"]) == pytest.approx(10 * (2 - 2.2) + 100 * (-3 + 3.4) + 1000 * 7)
    assert gradients["latent"][0, 0, :4].tolist() == [1, 10, 100, 0]


def test_scales_stay_such_as_a_file_holds() -> None:
    for shift in (-60.0, 60.0):
        learned = LearnedWeight(weight_of(), quantize(weight_of(), "int2_two_level_16"))
        for name in ("scales", "multipliers"):
            learned.parameters[name] += shift
        stored = learned.encoded()
        assert stored.scales is not None
        assert bool((stored.scales.isfinite() & (stored.scales > 0)).all())
        torch.testing.assert_close(learned.values(), dequantize(stored), rtol=2e-7, atol=0)


def test_a_weight_without_codes_is_refused() -> None:
    with pytest.raises(ValueError, match="no codes"):
        LearnedWeight(weight_of(), quantize(weight_of(), "fp16"))
