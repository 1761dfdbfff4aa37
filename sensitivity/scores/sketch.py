"""First-order damage at the outputs (`sensitivity.jacobian_sketch`). Plans are made from it."""

from __future__ import annotations

from collections.abc import Mapping

from sensitivity.scores.registry import Array, Evidence, Score, register


def sketch(evidence: Evidence) -> Mapping[str, Array]:
    """Per output ``[layers, schemes]``; it is in the profile."""
    return evidence.sketched


def sketch_passes(evidence: Evidence) -> float:
    """A forward pass a scene, and backward passes that cost two forward passes each."""
    return float(len(evidence.scenes) + 2 * evidence.backward_passes)


SKETCH = register(Score("sketch", "sketch", sketch, sketch_passes))
