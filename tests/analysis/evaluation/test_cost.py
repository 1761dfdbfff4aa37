"""What a scheme costs: differences scene by scene, and in words."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from analysis.evaluation.cost import beyond_noise, changes, cost_over_scenes, describe_cost
from vggtkit.metrics.geometry import Estimate


def rows(values: np.ndarray) -> list[dict[str, float]]:
    return [{"abs_rel": value} for value in values.tolist()]


def test_differences_are_taken_within_scenes() -> None:
    """Scenes that differ by 10 hide a cost of 0.01 from the intervals of means, not from that of differences."""
    generator = np.random.default_rng(0)
    fp32 = generator.uniform(0, 10, 30)
    scheme = fp32 + 0.01 + 0.001 * generator.normal(size=30)
    cost = cost_over_scenes(rows(fp32), rows(scheme), seed=0)["abs_rel"]
    assert cost.mean == pytest.approx(scheme.mean() - fp32.mean())
    assert beyond_noise({"abs_rel": cost}) == "AbsRel"
    assert cost.high - cost.low < 0.001
    expected = bootstrap((scheme - fp32,), np.mean, method="percentile", n_resamples=5000, rng=0).confidence_interval
    np.testing.assert_allclose([cost.low, cost.high], expected, atol=1e-4)


def test_figures_count_where_both_have_them() -> None:
    fp32 = [{"auc30": 0.5, "agreement": 0.1}, {"agreement": 0.2}]
    scheme = [{"auc30": 0.25, "agreement": 0.1}, {"auc30": 0.5, "agreement": 0.3}]
    cost = cost_over_scenes(fp32, scheme, seed=0)
    assert {key: (round(e.mean, 9), e.scenes) for key, e in cost.items()} == {
        "auc30": (-0.25, 1),
        "agreement": (0.05, 2),
    }
    with pytest.raises(ValueError, match="shorter"):
        cost_over_scenes(fp32, scheme[:1], seed=0)


NONE = (math.nan, math.nan)


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ({"auc30": (-0.004, *NONE), "abs_rel": (0.002, *NONE)}, "AUC@30 -0.4 points, AbsRel +0.002"),
        ({"auc30": (-0.004, -0.012, 0.003)}, "AUC@30 -0.4 points [-1.2, +0.3]"),
        ({"auc30": (-1e-7, *NONE)}, "AUC@30 +0.0 points"),
        ({"auc30": (math.nan, *NONE)}, "AUC@30 not a number"),
        ({"agreement": (0.005, *NONE)}, "points vs depth +0.005"),
        ({}, ""),
    ],
    ids=["both", "interval", "no-minus-zero", "broken", "label-free", "nothing"],
)
def test_cost_in_words(cost: dict[str, tuple[float, float, float]], words: str) -> None:
    assert describe_cost({key: Estimate(*three, 4) for key, three in cost.items()}, intervals=True) == words


def test_cost_of_chosen_figures() -> None:
    cost = {"track_px": Estimate(0.25, 0.2, 0.3, 6), "f_score": Estimate(-0.1, -0.2, 0.0, 6)}
    assert describe_cost(cost, ("track_px", "f_score")) == "track error +0.25 px, F-score -10.0 points"
    assert beyond_noise(cost, ("track_px", "f_score")) == "track error"
    assert describe_cost(changes({"auc30": 0.5}, {"auc30": 0.496})) == "AUC@30 -0.4 points"
    assert beyond_noise(cost, ("f_score",)) == "nothing"
    assert beyond_noise({"abs_rel": Estimate(0.1, *NONE, 1)}) == "n/a"


@pytest.mark.parametrize(("low", "words"), [(0.0004, "nothing"), (0.0006, "AbsRel"), (-0.001, "nothing")])
def test_noise_is_judged_by_the_digits_that_are_shown(low: float, words: str) -> None:
    """A change of +0.000 [+0.000, +0.001] may be certain, but it is none."""
    assert beyond_noise({"abs_rel": Estimate(0.0008, low, 0.001, 40)}) == words


@pytest.mark.parametrize("scenes", [3, 5, 6, 8])
def test_few_scenes_agree_by_chance(scenes: int) -> None:
    """Three scenes of pure noise agree in sign in one case of four; judged are numbers where one of twenty does."""
    noise = np.random.default_rng(0).normal(size=(4000, scenes))
    agree = ((noise > 0).all(1) | (noise < 0).all(1)).mean()
    assert agree == pytest.approx(2.0 ** (1 - scenes), abs=0.02)
    judged = beyond_noise({"abs_rel": Estimate(0.5, 0.25, 0.75, scenes)}) == "AbsRel"
    assert judged == (agree < 0.05)
