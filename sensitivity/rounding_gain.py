"""What calibrated rounding leaves of every layer's error, so that plans can be made for it.

To second order a layer's error in its output is ``tr(E H E^T)`` with H the second moments of its inputs
(`sensitivity.moments`). The sketch knows what rounding to the nearest does to the model's outputs; a calibrated
rounding is taken to do as much less of it as it makes this error less. Codes fit the inputs that they are chosen by, so
where there are two scenes or more they are chosen by one half of them and their error is that on the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sensitivity.moments import Moments, groups_of, input_moments, moment_bytes, room_for_moments
from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.quant import Layer, get_format, out_first, weight_of
from vggtkit.quant.rounding.error_ratio import error_ratios
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

CALIBRATED = "gptq"
"""Key of the rounding that profiles score: it needs no more than the inputs of the layers."""
ON_OTHERS = "roundings_on_other_scenes"
"""Fact of a profile: whether codes were judged on scenes that they were not chosen by."""


def rounding_gain(
    subject: Subject,
    layers: Sequence[Layer],
    scenes: Sequence[Scene],
    candidates: Sequence[str],
) -> dict[str, Array]:
    """What is left of the squared error of each layer's output, over that of rounding to the nearest.

    Args:
        subject: not packed; computes as it is to be calibrated.
        layers: of it.
        scenes: to calibrate with; every second one judges, if there are two or more.
        candidates: keys of formats.

    Returns:
        By key of a rounding, ``[layers, candidates]``; NaN for layers that cannot be calibrated, 1 for formats without
        codes. Empty where the second moments of a single layer do not fit into memory: they are taken for as many
        layers at a time as do.
    """
    by_name = {layer.name: layer for layer in layers}
    halves = [scenes[::2], scenes[1::2]] if len(scenes) > 1 else [scenes]
    rows = {name: _of_layer(subject, layer, candidates, []) for name, layer in by_name.items()}
    try:
        for group in groups_of(moment_bytes(subject, layers), room_for_moments(subject, len(halves))):
            moments = [input_moments(subject, [by_name[name] for name in group], half) for half in halves]
            rows |= {name: _of_layer(subject, by_name[name], candidates, moments) for name in group}
    except InputError:
        return {}
    return {CALIBRATED: np.stack(list(rows.values()))}


def _of_layer(subject: Subject, layer: Layer, candidates: Sequence[str], moments: Sequence[Moments]) -> Array:
    """By the halves of the scenes in which the layer's inputs are known; by one alone it is judged on itself."""
    known = [of_half for each in moments if (of_half := each.get(layer.name)) is not None]
    if not known:
        return np.array([1.0 if get_format(key).is_float else np.nan for key in candidates])
    weight = out_first(weight_of(subject.model, layer), layer.kind)
    ratios: Array = error_ratios(weight, candidates, known[0], layer.name, unseen=known[-1]).numpy()
    return ratios
