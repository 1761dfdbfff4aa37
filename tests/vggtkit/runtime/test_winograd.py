"""Winograd convolution gives what the direct sum gives, for half the products."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vggtkit.runtime.winograd import filtered, is_plain_3x3, pays

SHAPES = [(1, 1, 1, 4, 1), (2, 3, 5, 8, 7), (1, 4, 2, 12, 16), (3, 8, 8, 20, 3)]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("n", "i", "o", "height", "width"), SHAPES)
@torch.no_grad()
def test_it_is_the_convolution(
    n: int, i: int, o: int, height: int, width: int, bias: bool, channels_last: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(i, o, 3, padding=1, bias=bias).double()
    x = torch.randn(n, i, height, width, dtype=torch.float64, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    before = x.clone()
    torch.testing.assert_close(
        filtered(conv, x), F.conv2d(x, conv.weight, conv.bias, padding=1), rtol=1e-11, atol=1e-12
    )
    assert x.equal(before)


@torch.no_grad()
def test_half_the_products() -> None:
    conv, x = nn.Conv2d(64, 64, 3, padding=1), torch.randn(1, 64, 32, 32)
    with FlopCounterMode(display=False) as direct:
        conv(x)
    with FlopCounterMode(display=False) as minimal:
        filtered(conv, x)
    assert direct.get_total_flops() == 2 * 9 * 64 * 64 * 32 * 32
    assert minimal.get_total_flops() < 0.51 * direct.get_total_flops()


@torch.no_grad()
def test_rounding_is_about_that_of_the_direct_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    conv, x = nn.Conv2d(64, 64, 3, padding=1), torch.randn(2, 64, 32, 32, generator=generator)
    exact = conv.double()(x.double())
    conv.float()
    errors = [(y - exact).square().mean().sqrt().item() for y in (filtered(conv, x), conv(x))]
    assert errors[0] < 6 * errors[1] < 1e-5 * exact.abs().max()


def test_only_where_it_pays() -> None:
    large, small = torch.zeros(1, 64, 32, 32), torch.zeros(1, 64, 8, 8)
    conv = nn.Conv2d(64, 64, 3, padding=1)
    with torch.no_grad():
        assert pays(conv, large)
        assert not pays(conv, small)
        assert not pays(conv, torch.zeros(1, 64, 33, 32))  # no multiple of four rows
        assert not pays(nn.Conv2d(16, 64, 3, padding=1), torch.zeros(1, 16, 64, 64))
        assert not pays(conv.double(), large.double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not pays(conv.float(), large)
    assert not pays(conv, large)  # gradients are left to torch


def test_other_convolutions_are_left_alone() -> None:
    others = [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 3, padding=1),
        nn.Linear(4, 4),
    ]
    assert not any(map(is_plain_3x3, others))
    assert is_plain_3x3(nn.Conv2d(4, 6, 3, padding=1))
