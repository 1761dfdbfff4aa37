"""How large activations are on a scene, which decides on the scales that they are rounded with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.model.dpt_head import Fusion
from vggtkit.model.layers import Attention, Rotary
from vggtkit.runtime.fewer_operations import convolved_before_resized
from vggtkit.runtime.forwards import replaced_forward
from vggtkit.runtime.onnx.qdq import Span, input_spans

HEADROOM = 1.25
"""What scales have room for, of what one scene has: other scenes have larger activations, and one that is cut off does
more than coarser codes do (docs/log.md)."""


@dataclass(frozen=True)
class Spans:
    """Of activations.

    Attributes:
        inputs: of layers, by name.
        scored: magnitudes of the largest query and key, normalised and turned, by name of the attention.
    """

    inputs: Mapping[str, Span]
    scored: dict[str, tuple[float, float]] = field(default_factory=dict)

    def with_room(self, factor: float = HEADROOM) -> Spans:
        """The same for larger activations.

        >>> Spans({"fc1": Span(-1.0, 2.0)}, {"attn": (1.0, 2.0)}).with_room(2.0)
        Spans(inputs={'fc1': Span(low=-2.0, high=4.0)}, scored={'attn': (2.0, 4.0)})
        """
        inputs = {layer: Span(factor * span.low, factor * span.high) for layer, span in self.inputs.items()}
        return Spans(inputs, {name: (factor * q, factor * k) for name, (q, k) in self.scored.items()})


@contextmanager
def spans_of(model: nn.Module) -> Iterator[Spans]:
    """Activations over the passes within the block, in the order of operations of the files.

    >>> import torch
    >>> from vggtkit.model import VGGT
    >>> from vggtkit.model.config import TINY
    >>> model = VGGT(TINY).eval().with_heads(["camera"])
    >>> with torch.no_grad(), spans_of(model) as spans:
    ...     _ = model(torch.rand(1, 3, 64, 64))
    >>> len(spans.scored), min(min(each) for each in spans.scored.values()) > 0
    (18, True)
    """
    with ExitStack() as undo:
        spans = Spans(undo.enter_context(input_spans(model)))
        for name, part in model.named_modules():
            if isinstance(part, Attention):
                undo.enter_context(replaced_forward(part, partial(_attend, part, name, spans.scored)))
            elif isinstance(part, Fusion):
                undo.enter_context(replaced_forward(part, partial(convolved_before_resized, part)))
        yield spans


def _attend(
    self: Attention, name: str, scored: dict[str, tuple[float, float]], x: Tensor, rotary: Rotary | None = None
) -> Tensor:
    """As `Attention.forward`."""
    q, k, v = self.parts(x, rotary)
    before = scored.get(name, (0.0, 0.0))
    scored[name] = (max(before[0], float(q.abs().max())), max(before[1], float(k.abs().max())))
    result: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    return result
