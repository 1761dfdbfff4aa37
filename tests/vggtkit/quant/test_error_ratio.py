"""What calibrated rounding leaves of a layer's error, beside the weights that it really rounds."""

import pytest
import torch

from tests.vggtkit.quant.test_rounding import CODED, a_weight, moments_of
from vggtkit.quant import dequantize, quantize
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.quant.rounding.error_ratio import error_ratios


def test_of_all_rows_it_is_that_of_the_rounded_weight() -> None:
    """All formats in one elimination: each as if it were alone, in both parts of the weight."""
    weight, moments = a_weight(8, 70), torch.cat([moments_of(70), moments_of(70, seed=5)])
    expected = []
    for key in CODED:
        errors = []
        for q in (ROUNDINGS["gptq"].round(weight, key, moments), quantize(weight, key)):
            parts = (dequantize(q) - weight).double().view(2, 4, 70)
            errors.append(float(((parts @ moments.double()) * parts).sum()))
        expected.append(errors[0] / errors[1])
    ratios = error_ratios(weight, [*CODED, "fp16"], moments, rows=4)
    torch.testing.assert_close(ratios, torch.tensor([*expected, 1.0], dtype=torch.float64), rtol=0.02, atol=0)
    assert all(ratios[:-1] < 0.8)


def test_some_rows_estimate_it() -> None:
    weight, moments = a_weight(256, 40), moments_of(40)
    some, every = (error_ratios(weight, ["int4_group_32", "int2_group_32"], moments, rows=rows) for rows in (32, 256))
    torch.testing.assert_close(some, every, rtol=0.3, atol=0)
    assert not some.equal(every)


@pytest.mark.parametrize("weight", [torch.zeros(3, 8), torch.ones(3, 8)])
def test_where_nothing_is_lost_nothing_can_be_gained(weight: torch.Tensor) -> None:
    assert error_ratios(weight, ["int4_group_32"], moments_of(8)).tolist() == [1.0]
