"""What a scheme costs: differences scene by scene, and in words."""

import math

import pytest

from analysis.geometry import describe_cost


@pytest.mark.parametrize(
    ("reference", "candidate", "words"),
    [
        ({"auc30": 0.6, "abs_rel": 0.1}, {"auc30": 0.596, "abs_rel": 0.102}, "AUC@30 -0.4 points, AbsRel +0.002"),
        ({"auc30": 0.6}, {"auc30": 0.61, "abs_rel": 0.1}, "AUC@30 +1.0 points"),
        ({"auc30": 0.6}, {"auc30": 0.5999999}, "AUC@30 +0.0 points"),
        ({"auc30": 0.6}, {"auc30": math.nan}, "AUC@30 not a number"),
        ({"agreement": 0.05}, {"agreement": 0.055}, "points vs depth +0.005"),
        ({"agreement": 0.05}, {}, ""),
    ],
    ids=["both", "shared-only", "no-minus-zero", "broken", "label-free", "nothing"],
)
def test_cost_in_words(reference: dict[str, float], candidate: dict[str, float], words: str) -> None:
    assert describe_cost(reference, candidate) == words


def test_cost_of_chosen_figures() -> None:
    words = describe_cost(
        {"track_px": 1.0, "f_score": 0.5}, {"track_px": 1.25, "f_score": 0.4}, ("track_px", "f_score")
    )
    assert words == "track error +0.25 px, F-score -10.0 points"
