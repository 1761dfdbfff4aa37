"""Products and activations by oneDNN are those of numpy and scipy; what is not for it is left to torch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import correlate2d
from scipy.special import erf
from torch import Tensor, nn

from vggtkit.runtime.onednn import Then, convolution, linear

Array = NDArray[np.float64]
ACTIVATIONS: dict[Then, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "gelu": lambda x: x * 0.5 * (1 + erf(x / 2**0.5)),
    "relu": lambda x: np.maximum(x, 0),
}


def random(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def exact(x: Tensor) -> Array:
    return x.detach().double().numpy()


@pytest.mark.parametrize("then", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_linear(then: Then, bias: bool) -> None:
    x, weight, added = random((3, 40, 24), (16, 24), (16,))
    expected = ACTIVATIONS[then](exact(x) @ exact(weight).T + bias * exact(added))
    found = linear(x, weight, added if bias else None, then)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("then", ["none", "relu"])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_convolution(then: Then, bias: bool) -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=bias)
    (x,) = random((1, 2, 6, 5))
    added = np.zeros(3) if conv.bias is None else exact(conv.bias)
    maps = [
        sum(correlate2d(exact(x[0, i]), exact(conv.weight[o, i]), mode="same") for i in range(2)) + added[o]
        for o in range(3)
    ]
    expected = ACTIVATIONS[then](np.stack(maps))
    np.testing.assert_allclose(convolution(conv, x, then)[0].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_left_to_torch() -> None:
    x, weight = random((3, 40, 24), (16, 24))
    conv, picture = nn.Conv2d(2, 3, 3, padding=1), torch.randn(1, 2, 6, 5)
    weight.requires_grad_()
    linear(x, weight).sum().backward()
    convolution(conv, picture, "relu").sum().backward()
    assert weight.grad is not None
    assert conv.weight.grad is not None


@torch.no_grad()
def test_other_precisions_are_left_to_torch() -> None:
    """Of data that has one, and where autocast asks for one: such products are not done in FP32."""
    x, weight = random((3, 40, 24), (16, 24))
    double = linear(x.double(), weight.double(), then="gelu")
    np.testing.assert_allclose(double.numpy(), ACTIVATIONS["gelu"](exact(x) @ exact(weight).T), rtol=1e-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight, then="gelu").dtype == torch.bfloat16
        assert linear(x, weight).dtype == torch.bfloat16
