"""The weight without packing is the weight through packing, bit for bit, and its bytes are those of the file."""

import pytest
import torch

from vggtkit.core.errors import InputError
from vggtkit.quant import FORMATS, candidates, dequantize, quantize, simulate, simulate_layer, stored_nbytes
from vggtkit.quant.blocks import CutWeight
from vggtkit.quant.formats import get_format
from vggtkit.quant.simulate import simulate_pieces

SHAPES = ((64, 100), (96, 33, 3, 3), (8, 7), (700, 600))


@pytest.mark.parametrize("key", FORMATS)
@pytest.mark.parametrize("magnitude", [1.0, 1e-9], ids=["fp16-scales", "fp32-scales"])
def test_equals_packing_and_unpacking(key: str, magnitude: float) -> None:
    """The last shape takes several pieces, per tensor too; rows of zeros and of one sign are among them."""
    generator = torch.Generator().manual_seed(1)
    for shape in SHAPES:
        weight = magnitude * torch.randn(shape, generator=generator)
        weight[1] = 0
        weight[2].abs_()
        quantized = quantize(weight, key)
        expected = dequantize(quantized)
        assert simulate(weight, key).equal(expected), shape
        rows = torch.tensor([5, 0, 2])
        assert simulate(weight, key, channels=rows).equal(expected[rows]), shape
        assert stored_nbytes(weight, key) == quantized.nbytes, shape


def test_the_weight_itself_is_left_alone() -> None:
    weight = torch.randn(8, 64)
    before = weight.clone()
    for key in FORMATS:
        simulate(weight, key).zero_()
    assert weight.equal(before)


def test_half_precision_weights_of_a_transposed_convolution_keep_their_layout() -> None:
    module = torch.nn.ConvTranspose2d(3, 40, 2).half()
    found = simulate_layer(module, "int4_group_32", channels=torch.tensor([7, 9]))
    expected = dequantize(quantize(module.weight.transpose(0, 1), "int4_group_32")).transpose(0, 1)[:, [7, 9]].half()
    assert found.dtype == torch.float16
    assert found.equal(expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e39])
def test_refuses_what_quantize_refuses(value: float) -> None:
    weight = torch.ones(2, 8, dtype=torch.float64)
    weight[1, 3] = value
    with pytest.raises(InputError, match=r"weight of x (contains NaN or Inf|reaches)"):
        simulate(weight, "int4_group_32", "x")


@pytest.mark.parametrize("shape", [(6, 256), (4, 40), (3, 8, 4, 4), (5, 100)])
def test_extremes_of_larger_groups_follow_from_those_of_smaller_ones(shape: tuple[int, ...]) -> None:
    """Looked at the smallest first or each by itself: the same scales, groups ragged or not."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    formats = [get_format(key) for key in candidates() if not get_format(key).is_float]
    together = CutWeight(weight).look_for(formats)
    for fmt in formats:
        for found, expected in zip(together.extremes(fmt), CutWeight(weight).extremes(fmt), strict=True):
            assert found.equal(expected), fmt.key


@pytest.mark.parametrize("at_once", [1, 300, 10**6])
def test_pieces_are_the_whole(at_once: int) -> None:
    weight, keys = torch.randn(7, 5, 3, 3), candidates()
    whole = torch.stack([simulate(weight, key).flatten() for key in keys])
    found = torch.full_like(whole, torch.nan)
    for part, made in simulate_pieces(CutWeight(weight), keys, at_once):
        found[:, part] = made
    assert found.equal(whole)
