"""Errors of a layer's own output, which everyone reports: MAE, cosine, SSIM and NMSE.

*Isolated* on clean input with only this layer quantised, *accumulated* with the whole model under the scheme; both are
in the profile. A similarity counts as its distance from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sensitivity.scores.registry import Score, ScoringContext, register
from sensitivity.store import ERROR_KINDS, SCORE_METRICS
from vggtkit.core.arrays import Array

TITLES = {"mae": "MAE", "cosine": "cosine", "ssim": "SSIM", "nmse": "NMSE"}
SIMILARITIES = ("cosine", "ssim")


def layer_output(kind: str, metric: str) -> Callable[[ScoringContext], Mapping[str, Array]]:
    """The score that reads a metric of the profile, ``[layers, schemes]``; SSIM is NaN where there is no picture."""

    def compute(context: ScoringContext) -> Mapping[str, Array]:
        values = context.profile.scores[kind][metric]
        return context.everywhere(1 - values if metric in SIMILARITIES else values)

    return compute


def side_by_side_passes(context: ScoringContext) -> float:
    """FP32 and every scheme once per scene."""
    return float(len(context.scenes) * (1 + len(context.schemes)))


LAYER_OUTPUT = [
    register(
        Score(
            f"{kind}_{metric}",
            f"{kind} {TITLES[metric]}",
            layer_output(kind, metric),
            side_by_side_passes,
            reads_model=False,
        )
    )
    for kind in ERROR_KINDS
    for metric in SCORE_METRICS
]
