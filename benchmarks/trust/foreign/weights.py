"""Precision, weights that are computed, layers of a subclass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.trust.foreign.base import REFUSED, WIDTH, Net, model


@model
def bfloat16() -> nn.Module:
    """In BF16."""
    return Net().bfloat16()


@model
def float16() -> nn.Module:
    """In FP16."""
    return Net().half()


@model
def float64() -> nn.Module:
    """In FP64."""
    return Net().double()


@model
def weight_norm() -> nn.Module:
    """A weight of direction and length."""
    net = Net()
    nn.utils.parametrizations.weight_norm(net.blocks[1].up)
    return net


@model
def spectral_norm() -> nn.Module:
    """A weight by its largest singular value."""
    net = Net()
    nn.utils.parametrizations.spectral_norm(net.head)
    return net


class LowRank(nn.Linear):
    """A layer with an adapter."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.a, self.b = nn.Linear(inputs, 3, bias=False), nn.Linear(3, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Both added up."""
        return super().forward(x) + self.b(self.a(x))


@model
def adapter() -> nn.Module:
    """A layer with an adapter inside."""
    net = Net()
    net.stem = LowRank(WIDTH, WIDTH)
    return net


class WithExtra(nn.Linear):
    """A layer that returns more than a tensor."""

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401
        """Output and norm."""
        y = super().forward(x)
        return y, y.norm()


class TakesFirst(nn.Module):
    """Reads one of the two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = WithExtra(WIDTH, WIDTH), nn.Linear(WIDTH, 6)

    def forward(self, x: Tensor) -> Tensor:
        """The norm scales."""
        y, size = self.first(x)
        return self.last(torch.tanh(y)) / (1 + 0.01 * size)


@model
def layer_returns_tuple() -> nn.Module:
    """A layer returns a tuple."""
    return TakesFirst()


class LoudNet(Net):
    """Puts out more than FP16 can sum the squares of."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return 3000 * super().forward(x)


@model
def float16_loud() -> nn.Module:
    """In FP16, with a norm beyond it."""
    return LoudNet().half()


class Renormalises(Net):
    """Keeps its weight at length 1, in every call."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        self.head.weight.data.div_(self.head.weight.data.norm())
        return super().forward(x)


@model
def weight_renormalised() -> nn.Module:
    """A pass changes a weight."""
    return Renormalises()


REFUSED["weight_renormalised"] = "changes the parameter head.weight"
