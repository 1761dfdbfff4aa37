"""Advice follows its rules, on numbers that are worked out here by hand."""

import math
from dataclasses import replace

import pytest

from analysis.evaluation.advice import HARMLESS, advise, export_command, front, standing
from analysis.evaluation.expected import EDGE_COMPRESSION
from analysis.evaluation.results import Evaluation
from analysis.evaluation.verdict import verdict
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


def measured(memory_gb: dict[str, float], seconds: dict[str, float]) -> Evaluation:
    evaluation = example_evaluation()
    results = (
        replace(one, memory_bytes=int(1e9 * memory_gb.get(one.key, 20)), seconds=seconds.get(one.key, 9.0))
        for one in evaluation.results
    )
    return replace(evaluation, results=tuple(results))


def chosen(evaluation: Evaluation, scenario: str) -> str | None:
    advice = next(each for each in advise(evaluation) if each.scenario == scenario)
    return advice.chosen.key if advice.chosen else None


def test_a_server_takes_the_fastest_that_does_no_harm() -> None:
    """INT4 is the fastest and does harm; of two that are equally fast the plan is smaller."""
    seconds = {"int4_group_128": 0.1, "int8_per_tensor_sym": 1.0, "plan": 1.04, "int8_per_channel_sym": 1.2}
    assert DAMAGES["int4_group_128"] > HARMLESS > max(DAMAGES["int8_per_tensor_sym"], DAMAGES["plan"])
    assert chosen(measured({}, seconds), "server") == "plan"
    assert chosen(measured({}, {**seconds, "plan": 1.06}), "server") == "int8_per_tensor_sym"


def test_a_laptop_takes_the_most_accurate_that_fits() -> None:
    fitting = {"int4_group_128": 3.0, "int4_group_32": 4.0, "int8_per_channel_asym": 4.001}
    assert chosen(measured(fitting, {}), "laptop") == min(("int4_group_128", "int4_group_32"), key=DAMAGES.get)
    assert chosen(measured({}, {}), "laptop") is None


def test_what_was_not_measured_is_said() -> None:
    evaluation = example_evaluation()
    untimed = replace(evaluation, results=tuple(replace(one, seconds=None) for one in evaluation.results))
    lacking = {each.scenario: each.lacking for each in advise(untimed) if each.chosen is None}
    assert list(lacking) == ["server", "laptop"]
    assert lacking["server"].startswith("not timed")
    assert lacking["laptop"].startswith("memory was not measured")


def test_a_further_plan_is_no_uniform_scheme_and_is_exported_from_its_own_run() -> None:
    evaluation = example_evaluation()
    other = replace(evaluation.results[-1], key="plan:runs/two/plan.json", size_bytes=10**6, damage=1e-6)
    both = replace(evaluation, results=(*evaluation.results, other))
    assert chosen(both, "production") == other.key
    assert chosen(both, "prototype") == chosen(evaluation, "prototype")
    assert export_command(other, "runs/default").endswith("export --run runs/two")
    assert [row.key for row in verdict(both).rows] == [row.key for row in verdict(evaluation).rows]


def test_a_small_file_that_does_harm_is_not_for_production() -> None:
    large = with_plan(example_evaluation(), size_bytes=20_000_000)
    harmless = {key: size for key, size in SIZE_MB.items() if DAMAGE[key] < HARMLESS}
    assert min(harmless.values()) > min(SIZE_MB.values())
    assert advise(large)[0].chosen.key == min(harmless, key=harmless.get)


def test_a_scenario_that_nothing_fits_says_so() -> None:
    evaluation = example_evaluation()
    broken = replace(evaluation, results=tuple(replace(r, damage=math.nan) for r in evaluation.results))
    assert [each.chosen for each in advise(broken)][0:4:3] == [None, None]


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
    answer = verdict(evaluation)
    said = " ".join(map(Wording(language).translated, answer.sentences))
    assert answer.recommended == "plan"
    worst = min((key for key in SIZE_MB if abs(SIZES[key] / 5.67 - 1) < 0.1), key=DAMAGES.get)
    assert "5.67 MB" in said
    assert f"{DAMAGES[worst] / PLAN_DAMAGE:#.3g}".rstrip(".") in said


def test_a_plan_that_is_beaten_is_not_recommended() -> None:
    assert verdict(with_plan(example_evaluation(), damage=1.0)).recommended != "plan"
