"""Parameters that several places share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.trust.foreign.base import WIDTH, Net, Part, model


@model
def parameter_in_two_blocks() -> nn.Module:
    """One weight in two blocks."""
    net = Net()
    net.blocks[2].up.weight = net.blocks[0].up.weight
    return net


class UsedOutside(Net):
    """Uses a layer of a block once more."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return super().forward(x) + self.blocks[0].up(x).mean(-1, keepdim=True)


@model
def layer_used_outside_of_its_block() -> nn.Module:
    """A layer belongs to a block and runs outside of it, too."""
    return UsedOutside()


class GivenWeight(Part):
    """Is given a weight of another module."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """See `Part`."""
        return x + self.branch(F.linear(x, weight))


class GivesWeight(Net):
    """Hands its stem's weight to its blocks."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, self.stem.weight)
        return self.head(x)


@model
def weight_as_argument() -> nn.Module:
    """A weight is an argument."""
    return GivesWeight(GivenWeight)


class ReadsWeight(Net):
    """Never calls its head."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        for block in self.blocks:
            x = block(x)
        return F.linear(self.stem(x), self.head.weight, self.head.bias)


@model
def weight_read() -> nn.Module:
    """A weight is read past its layer."""
    return ReadsWeight()


@model
def block_in_two_places() -> nn.Module:
    """One block stands in a list twice."""
    net = Net()
    net.blocks[2] = net.blocks[0]
    return net


class Tied(nn.Module):
    """Two layers on one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        """One after the other."""
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


@model
def tied_layers() -> nn.Module:
    """Two layers on one weight."""
    return Tied()


class Fused(nn.Module):
    """Puts three weights together in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Attention."""
        weight = torch.cat([self.q.weight, self.k.weight, self.v.weight])
        return x + self.out(F.scaled_dot_product_attention(*F.linear(x, weight).chunk(3, -1)))


@model
def weights_put_together() -> nn.Module:
    """One product for three layers."""
    return Net(Fused)
