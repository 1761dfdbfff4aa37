"""Work in place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.trust.foreign.base import Net, Part, model


class AddsToInput(Part):
    """Adds to what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Part`."""
        x += self.branch(x)
        return x


@model
def block_in_place() -> nn.Module:
    """Blocks work on what they are given."""
    return Net(AddsToInput)


class ActsInPlace(Part):
    """Clips what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Part`."""
        return x + self.branch(F.relu(x, inplace=True))


@model
def activation_in_place() -> nn.Module:
    """An activation works on the input of a block, which its residual reads."""
    return Net(ActsInPlace)


class AddsToOutput(Net):
    """Adds to what blocks return."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            y = block(x)
            y += x
            x = 0.5 * y
        return self.head(x)


@model
def output_in_place() -> nn.Module:
    """What blocks return is worked on."""
    return AddsToOutput()


class AddsToStream(Net):
    """Adds what blocks return to what they were given."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            x += block(x)
        return self.head(0.1 * x)


@model
def stream_in_place() -> nn.Module:
    """What blocks were given is worked on afterwards."""
    return AddsToStream()


class ScalesInput(Net):
    """Normalises its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return super().forward(x.sub_(0.3).mul_(2.0))


@model
def input_in_place() -> nn.Module:
    """The input of the network is worked on."""
    return ScalesInput()


class Writes(Part):
    """Writes halves of its result into an empty tensor."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Part`."""
        out = torch.empty_like(x)
        out[:, ::2], out[:, 1::2] = self.branch(x[:, ::2]), x[:, 1::2]
        return out


@model
def written_by_halves() -> nn.Module:
    """Results are written into an empty tensor."""
    return Net(Writes)
