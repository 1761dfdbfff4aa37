"""What is handed on goes past arguments and results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.trust.foreign.base import WIDTH, Net, Part, model

_HELD: dict[str, Tensor] = {}


class Remembers(Part):
    """Keeps what it computed; returns what it was given."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Part`."""
        self.update = self.branch(x)
        return x


class RemembersNet(Net):
    """Reads what blocks remember."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x) + block.update
        return self.head(x)


@model
def result_in_attribute() -> nn.Module:
    """Results go through attributes."""
    return RemembersNet(Remembers)


class Conditioned(Part):
    """Reads an attribute that the network sets."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Part`."""
        return x + self.branch(x + self.context)


class ConditionedNet(Net):
    """Sets an attribute of its blocks."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            block.context = torch.tanh(x).mean(1, keepdim=True)
            x = block(0.5 * x)
        return self.head(x)


@model
def input_in_attribute() -> nn.Module:
    """Inputs go through attributes."""
    return ConditionedNet(Conditioned)


class ThroughGlobal(Part):
    """Leaves its result in a dictionary of the Python module."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Part`."""
        _HELD["skip"] = self.up(x)
        return super().forward(x)


class ThroughGlobalNet(Net):
    """Uses what the last block left there."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return super().forward(x) + _HELD["skip"].mean(-1, keepdim=True)


@model
def result_in_global() -> nn.Module:
    """Results go through a global variable."""
    return ThroughGlobalNet(ThroughGlobal)


class Asks(Part):
    """Is given a function that knows a tensor."""

    def forward(self, x: Tensor, more: Callable[[Tensor], Tensor]) -> Tensor:
        """See `Part`."""
        return x + self.branch(more(x))


class AsksNet(Net):
    """Hands a function on."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, partial(torch.add, x.flip(1)))
        return self.head(x)


@model
def tensor_in_closure() -> nn.Module:
    """Inputs go through a function."""
    return AsksNet(Asks)


class Pieces(nn.Module):
    """Blocks are lists of parts, and the parts are called."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)]) for _ in range(3)
        )
        self.head = nn.Linear(WIDTH, 6)

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        for norm, first, second in self.blocks:
            x = x + second(torch.relu(first(norm(x))))
        return self.head(x)


@model
def lists_of_parts() -> nn.Module:
    """Blocks have no forward."""
    return Pieces()


class ByMethod(Net):
    """Calls a method of its blocks, not the blocks."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            x = x + block.branch(x)
        return self.head(x)


@model
def methods_called() -> nn.Module:
    """Blocks are not called."""
    return ByMethod()
