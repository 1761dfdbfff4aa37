"""How well a score orders layers and formats: rank correlations with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from vggtkit.core.arrays import Array

RESAMPLES = 200
FEWEST = 3
"""Rank correlations of fewer pairs say nothing."""


@dataclass(frozen=True)
class Correlation:
    """A rank correlation and its bootstrap interval of 95 %; NaN where there are too few pairs."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """How a score orders pairs of layer and format, against their true damage.

    Attributes:
        pairs: that both have a number for; layers that the outputs do not depend on do not count.
        spearman: over all pairs.
        kendall: over all pairs.
        within: Spearman over the layers of one format, averaged over formats: without the help of the bits.
    """

    pairs: int
    spearman: Correlation
    kendall: Correlation
    within: float


def rank_agreement(score: Array, truth: Array, seed: int = 0) -> Agreement:
    """Compare a score with true damage, both ``[layers, formats]``.

    The bootstrap draws layers, with all their formats, as the pairs of a layer are not independent.

    >>> truth = np.arange(1.0, 13.0).reshape(6, 2)
    >>> agreement = rank_agreement(truth**3, truth)
    >>> agreement.pairs, round(agreement.spearman.value, 6), round(agreement.kendall.low, 6), round(agreement.within, 6)
    (12, 1.0, 1.0, 1.0)
    """
    there = np.isfinite(score) & np.isfinite(truth) & (truth > 0)
    draws = _draws(len(truth), seed)
    within = [_spearman(score[there[:, j], j], truth[there[:, j], j]) for j in range(truth.shape[1])]
    known = [value for value in within if np.isfinite(value)]
    return Agreement(
        pairs=int(there.sum()),
        spearman=_correlation(_spearman, score, truth, there, draws),
        kendall=_correlation(_kendall, score, truth, there, draws),
        within=float(np.mean(known)) if known else float("nan"),
    )


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman over what both have, of any one shape; NaN for fewer than three values or a constant.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    there = np.isfinite(first) & np.isfinite(second)
    return _spearman(first[there], second[there])


def _correlation(
    measure: Callable[[Array, Array], float], score: Array, truth: Array, there: NDArray[np.bool_], draws: Array
) -> Correlation:
    value = measure(score[there], truth[there])
    samples = []
    for rows in draws.astype(int):
        drawn = there[rows]
        samples.append(measure(score[rows][drawn], truth[rows][drawn]))
    low, high = np.nanquantile(samples, [0.025, 0.975]) if np.isfinite(value) else (np.nan, np.nan)
    return Correlation(value, float(low), float(high))


def _draws(layers: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(layers, size=(RESAMPLES, layers)).astype(np.float64)


def _spearman(first: Array, second: Array) -> float:
    return float(scipy.stats.spearmanr(first, second).statistic) if _comparable(first, second) else float("nan")


def _kendall(first: Array, second: Array) -> float:
    return float(scipy.stats.kendalltau(first, second).statistic) if _comparable(first, second) else float("nan")


def _comparable(first: Array, second: Array) -> bool:
    return len(first) >= FEWEST and bool(np.ptp(first) > 0) and bool(np.ptp(second) > 0)
