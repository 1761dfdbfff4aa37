"""The sketch, sent through each output's response curve (`sensitivity.response`): damage of a layer alone."""

from __future__ import annotations

from collections.abc import Mapping

from sensitivity.response import PAIRS
from sensitivity.scores.registry import MEASURED_SCENES, Score, ScoringContext, register
from sensitivity.scores.sketch import sketch_passes
from vggtkit.core.arrays import Array


def response(context: ScoringContext) -> Mapping[str, Array]:
    """Per output ``[layers, schemes]``."""
    curves = context.responses
    return {name: curves[name](values) for name, values in context.sketched.items()}


RESPONSE = register(
    Score(
        "response",
        "sketch + response",
        response,
        lambda known: sketch_passes(known) + PAIRS * min(MEASURED_SCENES, len(known.scenes)),
    )
)
