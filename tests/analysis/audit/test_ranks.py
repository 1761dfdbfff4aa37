"""Rank agreement against scipy, and its limits."""

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from analysis.audit.ranks import rank_agreement, rank_correlation


@pytest.fixture
def noisy() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = 10 ** generator.uniform(-9, -3, (40, 5))
    return truth * np.exp(generator.standard_normal((40, 5))), truth


def test_correlations_are_those_of_scipy(noisy: tuple[np.ndarray, np.ndarray]) -> None:
    score, truth = noisy
    found = rank_agreement(score, truth)
    assert found.pairs == 200
    assert found.spearman.value == pytest.approx(spearmanr(score.ravel(), truth.ravel()).statistic)
    assert found.kendall.value == pytest.approx(kendalltau(score.ravel(), truth.ravel()).statistic)
    columns = [spearmanr(score[:, column], truth[:, column]).statistic for column in range(5)]
    assert found.within == pytest.approx(np.mean(columns))
    for correlation in (found.spearman, found.kendall):
        assert correlation.low < correlation.value < correlation.high


def test_pairs_without_damage_or_score_do_not_count(noisy: tuple[np.ndarray, np.ndarray]) -> None:
    score, truth = noisy
    score[3, 2], truth[7] = np.nan, 0.0
    assert rank_agreement(score, truth).pairs == 200 - 1 - 5


@pytest.mark.slow
def test_the_interval_covers_the_correlation_of_the_population() -> None:
    """Of 40 samples of independent layers, about 95 % of the intervals hold the population's value."""
    generator = np.random.default_rng(1)

    def sample(layers: int) -> tuple[np.ndarray, np.ndarray]:
        truth = generator.standard_normal((layers, 1)) + 10
        return truth + generator.standard_normal((layers, 1)), truth

    population = rank_correlation(*sample(20_000))
    found = [rank_agreement(*sample(60), seed=number).spearman for number in range(40)]
    assert sum(one.low <= population <= one.high for one in found) >= 33


@pytest.mark.parametrize("score", [np.ones((5, 2)), np.full((5, 2), np.nan)], ids=["constant", "unknown"])
def test_a_score_that_says_nothing_has_no_correlation(score: np.ndarray) -> None:
    found = rank_agreement(score, np.arange(1.0, 11.0).reshape(5, 2))
    assert np.isnan([found.spearman.value, found.kendall.low, found.within]).all()
