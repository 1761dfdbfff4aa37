"""What is handed on is hidden in an object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from benchmarks.trust.foreign.base import Net, Part, model


@model
def plain() -> nn.Module:
    """Nothing special."""
    return Net()


@dataclass
class Stream:
    """Tokens in a box that is no pytree."""

    tokens: Tensor
    mask: Tensor | None = None


class Bag:
    """The same without a declaration."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens


class BoxedNet(Net):
    """Unpacks what blocks return."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x).tokens
        return self.head(x)


class InStream(Part):
    """Returns a dataclass."""

    def forward(self, x: Tensor) -> Stream:
        """See `Part`."""
        return Stream(super().forward(x))


@model
def dataclass_returned() -> nn.Module:
    """Blocks return a dataclass."""
    return BoxedNet(InStream)


class OnBag(Part):
    """Takes and returns a plain object."""

    def forward(self, bag: Bag) -> Bag:
        """See `Part`."""
        return Bag(bag.tokens + self.branch(bag.tokens))


class ChangesBag(OnBag):
    """Takes a plain object and puts the result into it."""

    def forward(self, bag: Bag) -> None:
        """See `Part`."""
        bag.tokens = bag.tokens + self.branch(bag.tokens)


class BagNet(Net):
    """Hands a plain object from block to block."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        bag = Bag(self.stem(x))
        for block in self.blocks:
            bag = block(bag) or bag
        return self.head(bag.tokens)


@model
def object_handed_on() -> nn.Module:
    """Blocks take and return a plain object."""
    return BagNet(OnBag)


@model
def object_changed() -> nn.Module:
    """Blocks change the object that they are given."""
    return BagNet(ChangesBag)


class FillsDict(Part):
    """Puts its result into the dictionary that it is given."""

    def forward(self, features: dict[str, Tensor]) -> None:
        """See `Part`."""
        features["x"] = features["x"] + self.branch(features["x"])


class DictNet(Net):
    """Hands a dictionary from block to block."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        features = {"x": self.stem(x)}
        for block in self.blocks:
            block(features)
        return self.head(features["x"])


@model
def dictionary_filled() -> nn.Module:
    """Blocks change the dictionary that they are given."""
    return DictNet(FillsDict)


class Lazily(Part):
    """Returns a generator of its results."""

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        """See `Part`."""
        yield x + self.branch(x)


class LazyNet(Net):
    """Takes the first of what a block generates."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            x = next(block(x))
        return self.head(x)


@model
def generator_returned() -> nn.Module:
    """Blocks are generators."""
    return LazyNet(Lazily)
