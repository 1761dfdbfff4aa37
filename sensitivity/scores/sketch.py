"""First-order damage at the outputs (`sensitivity.jacobian_sketch`). Plans are made from it."""

from __future__ import annotations

from collections.abc import Mapping

from sensitivity.scores.registry import Score, ScoringContext, register
from vggtkit.core.arrays import Array


def sketched_damage(context: ScoringContext) -> Mapping[str, Array]:
    """Per output ``[layers, schemes]``; it is in the profile."""
    return context.sketched


def sketch_passes(context: ScoringContext) -> float:
    """A forward pass a scene, and backward passes that cost two forward passes each."""
    return float(len(context.scenes) + 2 * context.backward_passes)


SKETCH_SCORE = register(Score("sketch", "sketch", sketched_damage, sketch_passes, reads_model=False))
