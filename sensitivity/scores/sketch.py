"""First-order damage at the outputs (`sensitivity.jacobian_sketch`). Plans are made from it."""

from __future__ import annotations

from collections.abc import Mapping

from sensitivity.scores.registry import Array, Score, ScoringContext, register


def sketch(context: ScoringContext) -> Mapping[str, Array]:
    """Per output ``[layers, schemes]``; it is in the profile."""
    return context.sketched


def sketch_passes(context: ScoringContext) -> float:
    """A forward pass a scene, and backward passes that cost two forward passes each."""
    return float(len(context.scenes) + 2 * context.backward_passes)


SKETCH = register(Score("sketch", "sketch", sketch, sketch_passes, reads_model=False))
