"""Error of the weight itself, relative to its energy; the model is not run at all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sensitivity.scores.registry import Array, Evidence, Score, register


def weight_error(evidence: Evidence) -> Mapping[str, Array]:
    """``|dW|^2 / |W|^2``, ``[layers, schemes]``."""
    rows = []
    for layer in evidence.layers:
        weight = evidence.model.get_parameter(layer.weight_name).detach()
        rows.append((evidence.errors(layer).double().square().sum(1) / weight.double().square().sum()).cpu().numpy())
    return evidence.everywhere(np.stack(rows))


WEIGHT_ERROR = register(Score("weight_error", "weight error", weight_error, lambda _: 0.0))
