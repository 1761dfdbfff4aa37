"""Whole numbers are multiplied exactly, each row with a scale of its own."""

import os
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from vggtkit.runtime import kernels
from vggtkit.runtime.codes import Int8Weight
from vggtkit.runtime.kernels import KERNELS, InFP32, IntMM, Kernel, choose, quantize_rows, usable_kernels


@pytest.fixture(params=KERNELS, ids=lambda kernel: kernel.key)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    if request.param not in usable_kernels():
        pytest.skip("not exact on this processor, or too slow")
    found: Kernel = request.param
    return found


def random_codes(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(-127, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def measured_anew() -> None:
    choose.cache_clear()


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (3, 5, 7), (21, 64, 48), (300, 130, 33)])
def test_products_are_numpys_in_whole_numbers(kernel: Kernel, rows: int, inputs: int, outputs: int) -> None:
    codes, weight = random_codes(rows, inputs), random_codes(outputs, inputs, seed=1)
    loaded = kernel.load(Int8Weight(weight, torch.ones(outputs)))
    y = kernel.multiply(codes, torch.ones(rows, 1), loaded, None, torch.float32)
    expected = codes.numpy().astype(np.int32) @ weight.numpy().astype(np.int32).T
    np.testing.assert_array_equal(y.numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scales_of_rows_and_channels_and_the_bias_come_after(kernel: Kernel, dtype: torch.dtype) -> None:
    """Powers of two, so that nothing but the last sum is rounded."""
    codes, weight, bias = random_codes(4, 16), random_codes(3, 16, seed=1), torch.tensor([1.0, -2.0, 0.5])
    steps, scales = torch.tensor([[1.0], [0.5], [2.0], [2.0**-10]]), torch.tensor([0.25, 2.0, 2.0**-8])
    y = kernel.multiply(codes, steps, kernel.load(Int8Weight(weight, scales)), bias, dtype)
    exact = (codes.double() @ weight.double().T) * scales.double() * steps.double() + bias.double()
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_rounded_by_half_a_step_of_its_own_at_most(dtype: torch.dtype) -> None:
    x = torch.randn(50, 33, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 50)[:, None]
    codes, steps = quantize_rows(x, dtype)
    assert codes.abs().max() <= 127
    assert steps.to(dtype).float().equal(steps)
    exact = x.abs().amax(1, keepdim=True) / 127
    assert bool((steps >= exact * (1 - 1e-6)).all())
    assert bool((steps <= exact * (1 + 2 * torch.finfo(dtype).eps)).all())
    assert bool(((codes * steps - x).abs() <= steps / 2 * (1 + 1e-5)).all())


def test_a_row_does_not_see_the_others() -> None:
    x = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))
    louder = x.clone()
    louder[3] *= 1e6
    codes, steps = quantize_rows(x)
    of_louder, louder_steps = quantize_rows(louder)
    others = [0, 1, 2, 4, 5]
    assert of_louder[others].equal(codes[others])
    assert louder_steps[others].equal(steps[others])
    torch.testing.assert_close(louder_steps[3], steps[3] * 1e6)


def test_rows_of_zeros_stay_zeros() -> None:
    codes, steps = quantize_rows(torch.zeros(2, 3))
    assert not codes.any()
    assert bool(steps.isfinite().all())


class Saturating(IntMM):
    """As processors without VNNI may: sums of two products stop at 16 bits."""

    key = "saturating"

    def multiply(
        self, codes: Tensor, steps: Tensor, weight: tuple[Tensor, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        return super().multiply(codes, steps, weight, bias, dtype).clamp(max=2.0**15 - 1)


class Failing(IntMM):
    key = "failing"

    def load(self, weight: Int8Weight) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        raise RuntimeError("no such operator")


def test_kernels_that_are_wrong_absent_or_slow_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(torch.get_num_threads(), kernels=(Saturating(), Failing())) is None
    chosen = choose(torch.get_num_threads(), kernels=(Saturating(), IntMM()))
    assert chosen is None or chosen.once.key == "torch._int_mm"
    choose.cache_clear()
    monkeypatch.setattr(kernels, "SLOWEST", 0.0)
    assert choose(torch.get_num_threads()) is None


@pytest.mark.skipif(
    not torch.cpu._is_vnni_supported() or bool(os.environ.get("ONEDNN_MAX_CPU_ISA")), reason="no AVX512-VNNI"
)
def test_with_vnni_a_faster_kernel_than_fp32_is_exact() -> None:
    assert len(usable_kernels()) > 1


def test_any_processor_has_an_exact_kernel() -> None:
    """However many inputs, and at the largest sums that there are: FP32 loses the last digit beyond 1,040."""
    assert isinstance(usable_kernels()[-1], InFP32)
    codes, weight = random_codes(5, 3000).abs().clamp(min=120), random_codes(7, 3000, seed=1).abs().clamp(min=121)
    sums = InFP32().whole(codes, weight.t())
    exact = codes.numpy().astype(np.int64) @ weight.numpy().astype(np.int64).T
    np.testing.assert_array_equal(sums.numpy().astype(np.int64), exact)
    assert not np.array_equal((codes.float() @ weight.float().t()).numpy().astype(np.int64), exact)


class Crawling(InFP32):
    """As torch's own product of int8 matrices does without the instructions."""

    key = "crawling"
    calls = 0

    def whole(self, codes: Tensor, weight: Tensor) -> Tensor:
        if len(codes) > 100:
            type(self).calls += 1
            time.sleep(0.5)
        return super().whole(codes, weight)


def test_what_is_hopeless_is_measured_no_longer_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "HOPELESS", 2)
    chosen = choose(torch.get_num_threads(), kernels=(Crawling(), InFP32()))
    assert chosen is not None
    assert type(chosen.once) is type(chosen.each) is InFP32
    assert Crawling.calls == 2
    assert "crawling" not in chosen.said


def test_the_choice_says_what_was_measured() -> None:
    found = choose(torch.get_num_threads())
    assert found is not None
    assert {found.once.key, found.each.key} <= {kernel.key for kernel in usable_kernels()}
    assert all(f"{kernel.key} " in found.said for kernel in (found.once, found.each))
