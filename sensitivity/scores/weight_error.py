"""Error of the weight itself, relative to its energy; the model is not run at all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sensitivity.scores.registry import Score, ScoringContext, register
from vggtkit.core.arrays import Array
from vggtkit.quant import weight_of


def weight_error(context: ScoringContext) -> Mapping[str, Array]:
    """``|dW|^2 / |W|^2``, ``[layers, schemes]``."""
    rows = []
    for layer in context.layers:
        weight = weight_of(context.subject.model, layer).detach()
        rows.append((context.errors(layer).double().square().sum(1) / weight.double().square().sum()).cpu().numpy())
    return context.everywhere(np.stack(rows))


WEIGHT_ERROR = register(Score("weight_error", "weight error", weight_error, lambda _: 0.0))
