"""One layer from close by: its weights and activations, its outliers, and what every format does to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from analysis.audit.attribution import by_task
from sensitivity import Profile
from sensitivity.rounding_gain import CALIBRATED
from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.quant import Layer, dequantize_layer, one_layer, quantize_layer, weight_of
from vggtkit.quant.packed import out_first

BINS = 61
OUTLIER_DEVIATIONS = 6.0
"""Values further than this many standard deviations from the mean are outliers; of normal ones, 2 in 10^9 are."""


@dataclass(frozen=True)
class Distribution:
    """The distribution of some numbers.

    Attributes:
        count: how many.
        mean: of them.
        deviation: standard.
        largest: the largest magnitude.
        outliers: how many lie more than `OUTLIER_DEVIATIONS` from the mean.
        kurtosis: excess; 0 for normal values, higher for heavy tails.
        edges: of the histogram, ``[BINS + 1]``.
        histogram: counts, ``[BINS]``.
    """

    count: int
    mean: float
    deviation: float
    largest: float
    outliers: int
    kurtosis: float
    edges: Array
    histogram: NDArray[np.int64]


@dataclass(frozen=True)
class FormatRow:
    """What one format does to the layer.

    Attributes:
        key: of the format.
        size_bytes: of the weight in a file.
        weight_error: squared error of the weight over its energy.
        largest_error: of a single weight.
        local: errors of the layer's own output on clean input, by metric; empty where they were not captured.
        damage: sketched damage at the outputs, by task.
        total: sketched damage, mean over outputs.
        noise: the same of Gaussian noise of the error's norm; None where the profile has none.
        left: what calibrated rounding leaves of the squared error of the layer's own output, over that of rounding to
            the nearest; None where it is not known.
    """

    key: str
    size_bytes: int
    weight_error: float
    largest_error: float
    local: Mapping[str, float]
    damage: Mapping[str, float]
    total: float
    noise: float | None = None
    left: float | None = None


@dataclass(frozen=True)
class Inspection:
    """A layer from close by.

    Attributes:
        layer: which.
        rank: its place among all layers by sketched damage at INT4, 1 the most sensitive.
        layers: how many there are.
        weight: its distribution.
        channel_ratio: largest over median of the output channels' largest weights: what one scale for all wastes.
        activation: of its sampled FP32 outputs; None where none were kept.
        outlier_channels: output channels whose activations reach 10 times the median channel's largest.
        formats: every candidate.
        inputs: sketched damage of rounding its input, by activation format and task, with the mean over outputs as
            ``total``; empty where it is no product with each token.
    """

    layer: Layer
    rank: int
    layers: int
    weight: Distribution
    channel_ratio: float
    activation: Distribution | None
    outlier_channels: Sequence[int]
    formats: Sequence[FormatRow]
    inputs: Mapping[str, Mapping[str, float]]


def look_at(model: nn.Module, profile: Profile, name: str, coarse: str) -> Inspection:
    """Look at one layer.

    Args:
        model: the profiled one.
        profile: of it.
        name: as `one_layer` takes it.
        coarse: format by which layers are ranked.
    """
    row = one_layer(profile.layers, name)
    layer = profile.layers[row]
    weight = out_first(weight_of(model, layer).detach(), layer.kind).flatten(1).double()
    peaks = weight.abs().amax(1)
    samples = _activations(profile, layer.name)
    order = np.argsort(-profile.total_damage[:, profile.column(coarse)], kind="stable")
    return Inspection(
        layer=layer,
        rank=int(np.flatnonzero(order == row)[0]) + 1,
        layers=len(profile.layers),
        weight=distribution(weight.cpu().numpy()),
        channel_ratio=float(peaks.max() / peaks.median()) if peaks.median() > 0 else float("nan"),
        activation=distribution(samples) if samples.size else None,
        outlier_channels=_outlier_channels(samples) if samples.size else (),
        formats=[_format_row(model, profile, row, key) for key in profile.candidates],
        inputs=_inputs(profile, row),
    )


def distribution(values: Array) -> Distribution:
    """Moments, outliers and histogram of values of any shape; those that are not finite do not count.

    >>> values = distribution(np.array([0.0] * 99 + [10.0]))
    >>> values.count, values.outliers, values.largest
    (100, 1, 10.0)
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    flat = flat[np.isfinite(flat)]
    mean, deviation = (float(flat.mean()), float(flat.std())) if flat.size else (0.0, 0.0)
    away = (flat - mean) / deviation if deviation > 0 else np.zeros_like(flat)
    histogram, edges = np.histogram(flat, bins=BINS)
    return Distribution(
        count=flat.size,
        mean=mean,
        deviation=deviation,
        largest=float(np.abs(flat).max()) if flat.size else 0.0,
        outliers=int((np.abs(away) > OUTLIER_DEVIATIONS).sum()),
        kurtosis=float((away**4).mean() - 3) if deviation > 0 else 0.0,
        edges=edges,
        histogram=histogram,
    )


def _activations(profile: Profile, name: str) -> Array:
    """Sampled FP32 outputs ``[tokens, channels]``; none where the profile kept none."""
    try:
        sampled = profile.activations("fp32", name)
    except InputError:
        return np.zeros((0, 1))
    tokens = sampled.reshape(-1, sampled.shape[-1]).astype(np.float64)
    return np.asarray(tokens[np.isfinite(tokens).all(1)])


def _outlier_channels(samples: Array) -> list[int]:
    peaks = np.abs(samples).max(0)
    return [int(channel) for channel in np.flatnonzero(peaks > 10 * np.median(peaks))]


def _format_row(model: nn.Module, profile: Profile, row: int, key: str) -> FormatRow:
    layer, column = profile.layers[row], profile.column(key)
    module = model.get_submodule(layer.name)
    weight = weight_of(model, layer).detach()
    error = (dequantize_layer(quantize_layer(module, key, layer.name), module) - weight).double()
    captured = profile.schemes.index(key) if key in profile.schemes else None
    local = profile.scores["isolated"]
    tasks = by_task(profile.damage)
    return FormatRow(
        key=key,
        size_bytes=int(profile.size_bytes[row, column]),
        weight_error=_relative(float(error.square().sum()), float(weight.double().square().sum())),
        largest_error=float(error.abs().max()),
        local={} if captured is None else {name: float(values[row, captured]) for name, values in local.items()},
        damage={task: float(values[row, column]) for task, values in tasks.items()},
        total=float(profile.total_damage[row, column]),
        noise=float(np.mean([values[row, column] for values in profile.noise.values()])) if profile.noise else None,
        left=_known(profile.roundings[CALIBRATED][row, column]) if CALIBRATED in profile.roundings else None,
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _inputs(profile: Profile, row: int) -> dict[str, dict[str, float]]:
    inputs = {}
    for key in profile.activation_formats:
        total = float(profile.total_activation_damage(key)[row])
        if not np.isnan(total):
            tasks = by_task(profile.activation_damage(key))
            inputs[key] = {"total": total, **{task: float(values[row]) for task, values in tasks.items()}}
    return inputs


def _relative(error: float, energy: float) -> float:
    """A squared error over an energy; zeros that stay zeros have none.

    >>> _relative(1.0, 4.0), _relative(0.0, 0.0)
    (0.25, 0.0)
    """
    return error / energy if energy > 0 else 0.0 if error == 0 else float("inf")
