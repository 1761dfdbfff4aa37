"""Advice follows its rules, on numbers that are worked out here by hand."""

import math
from dataclasses import replace

import pytest

from analysis.evaluation.results import Evaluation
from analysis.report.advice import HARMLESS, advise, front, standing
from analysis.report.expected import EDGE_COMPRESSION
from analysis.report.parts.conclusions import recommended, recommended_sentences
from analysis.report.wording import Wording
from tests.analysis.example import DAMAGE, PLAN_DAMAGE, SIZE_MB, example_evaluation, with_plan

SIZES = {**SIZE_MB, "plan": 5.67}
DAMAGES = {**DAMAGE, "plan": PLAN_DAMAGE}


def beaten(key: str) -> bool:
    """Whether another scheme is at least as small and as accurate, and better in one of the two."""
    return any(
        SIZES[other] <= SIZES[key]
        and DAMAGES[other] <= DAMAGES[key]
        and (SIZES[other], DAMAGES[other]) != (SIZES[key], DAMAGES[key])
        for other in SIZES
    )


def test_the_front_is_what_nothing_beats() -> None:
    assert {result.key for result in front(example_evaluation())} == {key for key in SIZES if not beaten(key)}


def test_every_scenario_follows_its_rule() -> None:
    chosen = {each.scenario: each.chosen.key for each in advise(example_evaluation()) if each.chosen}
    harmless = [key for key in SIZES if DAMAGES[key] < HARMLESS]
    assert chosen["production"] == min(harmless, key=SIZES.get)
    assert chosen["edge"] == min((key for key in SIZES if 43.6 / SIZES[key] >= EDGE_COMPRESSION), key=DAMAGES.get)
    assert chosen["accuracy"] == min(DAMAGES, key=DAMAGES.get)
    assert chosen["prototype"] == min((key for key in harmless if key != "plan"), key=SIZES.get)


def test_a_small_file_that_does_harm_is_not_for_production() -> None:
    large = with_plan(example_evaluation(), size_bytes=20_000_000)
    harmless = {key: size for key, size in SIZE_MB.items() if DAMAGE[key] < HARMLESS}
    assert min(harmless.values()) > min(SIZE_MB.values())
    assert advise(large)[0].chosen.key == min(harmless, key=harmless.get)


def test_a_scenario_that_nothing_fits_says_so() -> None:
    evaluation = example_evaluation()
    broken = replace(evaluation, results=tuple(replace(r, damage=math.nan) for r in evaluation.results))
    assert [each.chosen for each in advise(broken)][0::3] == [None, None]


def standing_of(evaluation: Evaluation) -> tuple[bool, str, str]:
    found = standing(evaluation)
    assert found is not None
    return found.on_front, found.beside[0].key if found.beside else "", found.better[0].key if found.better else ""


def test_where_the_plan_stands() -> None:
    alike = [key for key in SIZE_MB if abs(SIZES[key] / 5.67 - 1) < 0.1]
    better = [key for key in SIZE_MB if DAMAGES[key] < PLAN_DAMAGE]
    expected = (True, min(alike, key=DAMAGES.get), min(better, key=SIZES.get))
    assert standing_of(example_evaluation()) == expected
    assert standing_of(with_plan(example_evaluation(), damage=1.0))[0] is False


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_recommendation_names_sizes_and_ratios(language: str) -> None:
    evaluation = example_evaluation()
    said = " ".join(recommended_sentences(evaluation, Wording(language)))
    assert recommended(evaluation).key == "plan"
    worst = min((key for key in SIZE_MB if abs(SIZES[key] / 5.67 - 1) < 0.1), key=DAMAGES.get)
    assert "5.67 MB" in said
    assert f"{DAMAGES[worst] / PLAN_DAMAGE:#.3g}".rstrip(".") in said


def test_a_plan_that_is_beaten_is_not_recommended() -> None:
    assert recommended(with_plan(example_evaluation(), damage=1.0)).key != "plan"
