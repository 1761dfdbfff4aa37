"""How large queries and keys are, which decides on the scales that they are rounded with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.model.layers import Attention, Rotary
from vggtkit.runtime.forwards import replaced_forward


@contextmanager
def largest_scored(model: nn.Module) -> Iterator[dict[str, tuple[float, float]]]:
    """Magnitudes of the largest query and key of every attention over the passes within the block, by name.

    They are those that scores are made of: normalised and turned.

    >>> import torch
    >>> from vggtkit.model import VGGT
    >>> from vggtkit.model.config import TINY
    >>> model = VGGT(TINY).eval().with_heads(["camera"])
    >>> with torch.no_grad(), largest_scored(model) as largest:
    ...     _ = model(torch.rand(1, 3, 64, 64))
    >>> len(largest), min(min(each) for each in largest.values()) > 0
    (18, True)
    """
    largest: dict[str, tuple[float, float]] = {}
    with ExitStack() as undo:
        for name, part in model.named_modules():
            if isinstance(part, Attention):
                undo.enter_context(replaced_forward(part, partial(_attend, part, name, largest)))
        yield largest


def _attend(
    self: Attention, name: str, largest: dict[str, tuple[float, float]], x: Tensor, rotary: Rotary | None = None
) -> Tensor:
    """As `Attention.forward`."""
    q, k, v = self.parts(x, rotary)
    before = largest.get(name, (0.0, 0.0))
    largest[name] = (max(before[0], float(q.abs().max())), max(before[1], float(k.abs().max())))
    result: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    return result
