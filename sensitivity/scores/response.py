"""The sketch, sent through each output's response curve (`sensitivity.response`): damage of a layer alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sensitivity.damage import pair_damage
from sensitivity.response import PAIRS, Response, fit_response, spread_pairs
from sensitivity.scores.registry import Array, Evidence, Score, register
from sensitivity.scores.sketch import sketch_passes

SCENES = 2
"""Calibration scenes on which the pairs are measured, at most."""


def responses(evidence: Evidence) -> dict[str, Response]:
    """The curve of every output, from pairs measured on calibration scenes."""
    pairs = spread_pairs(evidence.sketched)
    named = [(evidence.layers[layer], evidence.schemes[scheme]) for layer, scheme in pairs]
    measured = [pair_damage(evidence.model, named, scene) for scene in evidence.scenes[:SCENES]]
    rows, columns = np.transpose(pairs)
    return {
        name: fit_response(values[rows, columns], np.mean([found[name] for found in measured], axis=0))
        for name, values in evidence.sketched.items()
    }


def answered(curves: Mapping[str, Response], sketched: Mapping[str, Array]) -> Array:
    """Mean over outputs of the damage that the curves give for sketched damage of any one shape."""
    return np.asarray(np.mean([curves[name](values) for name, values in sketched.items()], axis=0))


def response(evidence: Evidence) -> Array:
    """``[layers, schemes]``."""
    return answered(responses(evidence), evidence.sketched)


RESPONSE = register(
    Score(
        "response",
        "sketch + response",
        response,
        lambda known: sketch_passes(known) + PAIRS * min(SCENES, len(known.scenes)),
    )
)
