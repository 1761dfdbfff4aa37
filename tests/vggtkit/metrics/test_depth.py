"""Depth errors against a loop and closed forms."""

import math

import numpy as np
import pytest
import torch

from vggtkit.metrics.depth import depth_errors


@pytest.mark.parametrize("alignment", ["median", "scale_shift", "none"])
def test_depth_errors_equal_a_loop(alignment: str) -> None:
    generator = np.random.default_rng(0)
    true = generator.uniform(0.5, 4, 60) * (generator.uniform(size=60) > 0.2)
    predicted = 1.3 * true + generator.normal(size=60) * 0.4 + 1
    d, t = predicted[true > 0], true[true > 0]
    if alignment == "median":
        d = d * np.median(t) / np.median(d)
    elif alignment == "scale_shift":
        a, b = np.linalg.lstsq(np.stack([d, np.ones_like(d)], -1), t, rcond=None)[0]
        d = a * d + b
    errors = depth_errors(torch.from_numpy(predicted), torch.from_numpy(true), alignment)
    assert errors.abs_rel == pytest.approx(np.mean([abs(x - y) / y for x, y in zip(d, t, strict=True)]))
    assert errors.rmse == pytest.approx(math.sqrt(np.mean([(x - y) ** 2 for x, y in zip(d, t, strict=True)])))
    assert errors.delta125 == np.mean([max(x / y, y / x) < 1.25 for x, y in zip(d, t, strict=True)])


def test_alignment_takes_away_what_it_says() -> None:
    true = torch.rand(2, 5, 5) + 1
    assert depth_errors(7 * true, true).abs_rel == pytest.approx(0, abs=1e-6)
    assert depth_errors(7 * true - 3, true).abs_rel > 0.01
    assert depth_errors(7 * true - 3, true, "scale_shift").rmse == pytest.approx(0, abs=1e-5)
    assert depth_errors(2 * true, true, "none").abs_rel == pytest.approx(1)


def test_depth_that_is_not_positive_never_matches() -> None:
    assert depth_errors(torch.tensor([-1.0, 0.0, 1.0]), torch.ones(3), "none").delta125 == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        ([1.0, 2.0], [0.0, 0.0]),
        ([1.0, 2.0], [math.nan, math.inf]),
        ([math.nan, 2.0], [1.0, 2.0]),
        ([math.inf, 2.0], [1.0, 2.0]),
        ([0.0, 0.0], [1.0, 2.0]),
    ],
    ids=["no-truth", "truth-not-finite", "nan", "inf", "all-zero"],
)
def test_depth_without_an_answer_is_nan(predicted: list[float], true: list[float]) -> None:
    assert all(math.isnan(x) for x in depth_errors(torch.tensor(predicted), torch.tensor(true)))


def test_depth_outside_the_truth_does_not_count() -> None:
    assert depth_errors(torch.tensor([1.0, math.nan]), torch.tensor([1.0, 0.0])).abs_rel == 0


def test_constant_depth_has_a_best_shift() -> None:
    assert depth_errors(torch.full((2,), 3.0), torch.tensor([1.0, 2.0]), "scale_shift").rmse == 0.5


def test_depth_of_another_shape_or_alignment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\), the true one \(3,\)"):
        depth_errors(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="unknown alignment 'mean'"):
        depth_errors(torch.ones(2), torch.ones(2), "mean")  # type: ignore[arg-type]
