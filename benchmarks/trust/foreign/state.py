"""State and chance."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.trust.foreign.base import REFUSED, WIDTH, Net, Part, model

_LAST: Tensor | None = None


class KeepsPositions(Part):
    """Makes positions once."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """See `Part`."""
        if x.shape[1] not in self.cache:
            self.cache[x.shape[1]] = torch.linspace(-1, 1, x.shape[1], device=x.device)[:, None]
        return x + self.branch(x + self.cache[x.shape[1]])


@model
def positions_cached() -> nn.Module:
    """Positions are cached in an attribute."""
    return Net(KeepsPositions)


@lru_cache(maxsize=4)
def _positions(count: int, device: torch.device) -> Tensor:
    return torch.linspace(-1, 1, count, device=device)[:, None]


class CachesPositions(Part):
    """Has a function remember positions."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Part`."""
        return x + self.branch(x + _positions(x.shape[1], x.device))


@model
def positions_in_function() -> nn.Module:
    """Positions are cached by a function."""
    return Net(CachesPositions)


class KeepsFeatures(Net):
    """Computes its stem in the first call alone."""

    features: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        if self.features is None:
            self.features = self.stem(x)
        y = self.features
        for block in self.blocks:
            y = block(y)
        return self.head(y)


@model
def features_cached() -> nn.Module:
    """A result outlives its call."""
    return KeepsFeatures()


class KeepsGlobally(Net):
    """The same in a global variable."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        global _LAST
        if _LAST is None:
            _LAST = self.stem(x)
        return self.head(self.blocks[0](_LAST))


@model
def features_cached_globally() -> nn.Module:
    """A result outlives its call, outside of the network."""
    return KeepsGlobally(count=1)


class Counts(Net):
    """Is another function in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("mean", torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        self.calls += 1
        self.mean.mul_(0.9).add_(0.1 * x.mean((0, 1)))
        return super().forward(x - self.mean) / self.calls


@model
def counts_calls() -> nn.Module:
    """Attributes and buffers change in every call."""
    return Counts()


class Averages(Part):
    """Takes off a mean of what it has seen, which it keeps in a buffer and changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """See `Part`."""
        self.seen.mul_(0.9).add_(0.1 * x.mean((0, 1)).detach())
        return x + self.branch(x - self.seen)


@model
def mean_in_buffer() -> nn.Module:
    """Where ``detach`` is ignored, the buffer would keep the graph of an earlier pass."""
    return Net(Averages)


class Noisy(Net):
    """Adds noise."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return super().forward(x + 0.05 * torch.randn_like(x))


@model
def noisy() -> nn.Module:
    """Noise in the forward."""
    return Noisy()


REFUSED["noisy"] = "two FP32 passes"


class DropsAlways(Net):
    """Dropout that forgets eval."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return super().forward(F.dropout(x, 0.2))


@model
def dropout_always() -> nn.Module:
    """Dropout in eval mode."""
    return DropsAlways()


REFUSED["dropout_always"] = "two FP32 passes"


class Experts(nn.Module):
    """Routes by the sign of a mean; some experts never run."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Part() for _ in range(4))
        self.head = nn.Linear(WIDTH, 6)

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return self.head(self.experts[int(x.mean() > 0)](x))


@model
def experts_never_called() -> nn.Module:
    """Layers that no scene reaches."""
    return Experts()
