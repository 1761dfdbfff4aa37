"""Outputs."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.trust.foreign.base import Net, Part, model

Pair = namedtuple("Pair", ("near", "far"))


class Nested(Net):
    """Returns outputs within outputs."""

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401
        """See `Net`."""
        y = super().forward(x)
        return {
            "pair": Pair(y[..., :2], y[..., 2:]),
            "list": [y * 2, {"a/b": y.exp()}],
            "best": y.argmax(-1),
            "no": None,
        }


@model
def nested_outputs() -> nn.Module:
    """Outputs in containers."""
    return Nested()


class Silent(Net):
    """Returns zeros and a constant beside its output."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """See `Net`."""
        y = super().forward(x)
        return {"output": y, "mask": torch.zeros_like(y), "one": torch.ones(3)}


@model
def constant_outputs() -> nn.Module:
    """Outputs that never change."""
    return Silent()


class Several(Part):
    """Returns what it is given beside its result, and constants."""

    def forward(self, x: Tensor, *, scale: float, mask: Tensor | None = None) -> dict[str, Any]:
        """See `Part`."""
        return {"given": x, "made": x + scale * self.branch(x), "count": 3, "mask": mask}


class SeveralNet(Net):
    """Reads all that blocks return."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        x = self.stem(x)
        for block in self.blocks:
            parts = block(x, scale=0.5)
            x = 0.7 * parts["made"] + 0.2 * parts["given"]
        return self.head(x)


@model
def containers_returned() -> nn.Module:
    """Blocks that a pytree sees through."""
    return SeveralNet(Several)


@model
def zero_weight() -> nn.Module:
    """A layer of zeros."""
    net = Net()
    nn.init.zeros_(net.blocks[1].down.weight)
    return net


class Dead(Part):
    """Never gets past its activation."""

    def branch(self, x: Tensor) -> Tensor:
        """See `Part`."""
        return self.down(F.relu(self.up(self.norm(x)) - 100.0))


@model
def dead_layers() -> nn.Module:
    """Layers behind an activation that is always zero."""
    return Net(Dead)


class Hooked(Net):
    """Takes features with hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Tensor] = []
        for block in self.blocks:
            block.register_forward_hook(lambda _module, _arguments, output: self.taken.append(output))

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        self.taken.clear()
        super().forward(x)
        return self.head(torch.stack(self.taken).mean(0))


@model
def features_by_hooks() -> nn.Module:
    """Hooks of the network's own."""
    return Hooked()


class Spectrum(Net):
    """Goes through complex numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        spectrum = torch.fft.rfft(self.stem(x), dim=1)
        return self.head(torch.fft.irfft(spectrum * 0.5, n=x.shape[1], dim=1))


@model
def complex_inside() -> nn.Module:
    """Complex numbers inside."""
    return Spectrum(count=0)


@model
def compiled() -> nn.Module:
    """The whole is compiled."""
    wrapped: Any = torch.compile(Net(), backend="eager")
    return wrapped


@model
def compiled_parts() -> nn.Module:
    """Blocks are compiled."""
    net = Net()
    for block in net.blocks:
        block.compile(backend="eager")
    return net


class Sparse(Net):
    """Returns a tensor that keeps what is not zero."""

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401
        """Half of it."""
        return super().forward(x).relu().to_sparse()


@model
def sparse_output() -> nn.Module:
    """A sparse tensor is returned."""
    return Sparse()
