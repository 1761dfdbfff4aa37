"""Small networks as people write them, each with one habit that gradients, hooks or caches trip over.

Every function of `MODELS` makes one, seeded; `inputs_of` yields what it is called with. All work on ``[2, 10, 24]``
tokens unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 24
Factory = Callable[[], nn.Module]

MODELS: dict[str, Factory] = {}
REFUSED: dict[str, str] = {}
"""Models that nobody can profile, with words of the reason."""


def inputs_of(name: str, count: int = 2) -> Iterator[Tensor]:
    """What a model is called with, scene by scene."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(count):
        if name in ("pictures", "transposed"):
            yield torch.rand(2, 3, 16, 16, generator=generator)
        else:
            yield torch.randn(2, 10, WIDTH, generator=generator).to(_DTYPES.get(name, torch.float32))


_DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float16_loud": torch.float16,
    "float64": torch.float64,
}


def model(make: Factory) -> Factory:
    """Enter a function that makes a network under its name; it starts from a seed."""

    def seeded() -> nn.Module:
        torch.manual_seed(11)
        return make().eval()

    MODELS[make.__name__] = seeded
    return seeded


class Part(nn.Module):
    """Norm and two layers; the branch of a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

    def branch(self, x: Tensor) -> Tensor:
        """What is added to the stream."""
        return self.down(F.gelu(self.up(self.norm(x))))

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401 - what a block returns is what these networks differ in
        """The stream afterwards."""
        return x + self.branch(x)


class Net(nn.Module):
    """Stem, blocks, head."""

    def __init__(self, block: Callable[[], nn.Module] = Part, count: int = 3) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 6)
        self.blocks = nn.ModuleList(block() for _ in range(count))

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401
        """As a block after the other."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)
