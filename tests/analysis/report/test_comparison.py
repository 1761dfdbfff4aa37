"""Runs side by side: ratios within scenes where the scenes are the same, and no interval where they are not."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy

from analysis.evaluation.results import Evaluation
from analysis.evaluation.results_file import evaluation_to_json
from analysis.report.comparison import compare, comparison_values, excludes_one, paired_ratio
from analysis.report.document import Table, Text
from analysis.report.wording import Wording
from tests.analysis.commands.running import assert_refused, cli, the_json
from tests.analysis.example import SCENES, example_evaluation

FACTORS = np.array([1.5, 2.0, 2.5, 3.0, 1.8, 2.2])


def on_scenes(evaluation: Evaluation, scenes: str) -> Evaluation:
    """The same with a fingerprint of its scenes."""
    return replace(evaluation, provenance={**evaluation.provenance, "scene_fingerprint": scenes})


def first() -> Evaluation:
    return on_scenes(example_evaluation(), "a" * 16)


def worse() -> Evaluation:
    """INT4 groups of 128 with so many times the damage, scene by scene."""
    results = [
        replace(
            each, per_scene=tuple((FACTORS * each.per_scene).tolist()), damage=float(np.mean(FACTORS * each.per_scene))
        )
        if each.key == "int4_group_128"
        else each
        for each in first().results
    ]
    return replace(first(), results=tuple(results))


def test_a_ratio_is_the_geometric_mean_of_those_within_scenes() -> None:
    generator = np.random.default_rng(0)
    base = 10 ** generator.uniform(-6, -2, len(FACTORS))
    ratio = paired_ratio((FACTORS * base).tolist(), base.tolist())
    assert ratio.mean == pytest.approx(float(np.prod(FACTORS) ** (1 / len(FACTORS))), rel=1e-9)
    draws = generator.integers(len(FACTORS), size=(20_000, len(FACTORS)))
    low, high = np.exp(np.quantile(np.log(FACTORS)[draws].mean(1), (0.025, 0.975)))
    assert (ratio.low, ratio.high) == (pytest.approx(low, rel=0.02), pytest.approx(high, rel=0.02))
    assert excludes_one(ratio)


@pytest.mark.parametrize(
    ("one", "other", "scenes"),
    [([0.0, 1.0], [1.0, 1.0], 1), ([math.nan, 1.0], [1.0, math.inf], 0), ([], [], 0)],
    ids=["zero", "broken", "none"],
)
def test_scenes_without_a_ratio_are_left_out(one: list[float], other: list[float], scenes: int) -> None:
    ratio = paired_ratio(one, other)
    assert ratio.scenes == scenes
    assert not excludes_one(ratio)


def test_differences_on_the_same_scenes_have_intervals() -> None:
    runs = [(Path("a"), first()), (Path("b"), worse())]
    by_key = {each["key"]: each for each in comparison_values(runs)}
    assert by_key["int4_group_128"]["paired_scenes"] == len(SCENES)
    assert by_key["int4_group_128"]["low"] > 1
    assert by_key["int8_per_channel_sym"]["ratio"] == 1
    document = compare(runs, Wording("en"))
    table = document.of_kind(Table)[-1]
    assert isinstance(table, Table)
    assert {row[0]: row[-1] for row in table.texts}["INT4 groups of 128"] == "yes"


def test_of_few_scenes_nothing_is_called_more_than_noise() -> None:
    """All of five differ in one direction by chance in one case of sixteen."""
    few = [
        (Path(name), replace(one, results=tuple(replace(each, per_scene=each.per_scene[:5]) for each in one.results)))
        for name, one in (("a", first()), ("b", worse()))
    ]
    table = compare(few, Wording("en")).of_kind(Table)[-1]
    assert isinstance(table, Table)
    assert {row[0]: row[-1] for row in table.texts}["INT4 groups of 128"] == "n/a"
    assert {each["key"]: each for each in comparison_values(few)}["int4_group_128"]["low"] > 1


def test_an_interval_is_that_of_another_library() -> None:
    one, other = (next(r for r in each.results if r.key == "int4_group_128").per_scene for each in (worse(), first()))
    ratio = paired_ratio(one, other)
    logs = np.log(np.divide(one, other))
    theirs = scipy.stats.bootstrap((logs,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert (ratio.low, ratio.high) == pytest.approx(np.exp(theirs.confidence_interval), rel=0.02)


def test_plans_of_several_kinds_are_one_row_under_the_name_of_none() -> None:
    other = replace(worse().results[-1], title="plan, tuned")
    runs = [(Path("a"), first()), (Path("b"), replace(worse(), results=(*worse().results[:-1], other)))]
    damage, paired = compare(runs, Wording("en")).of_kind(Table)[-2:]
    assert isinstance(damage, Table)
    assert isinstance(paired, Table)
    assert [table.texts[-1][0] for table in (damage, paired)] == ["plan", "plan"]


def test_another_network_is_said() -> None:
    foreign = replace(worse(), provenance={**worse().provenance, "model_fingerprint": "c" * 16})
    said = compare([(Path("a"), first()), (Path("b"), foreign)], Wording("en")).of_kind(Text)
    assert [text.lines for text in said if isinstance(text, Text)] == [("Of another network than the first: b.",)]


def test_differences_on_other_scenes_have_none() -> None:
    runs = [(Path("a"), first()), (Path("b"), on_scenes(worse(), "b" * 16))]
    found = {each["key"]: each for each in comparison_values(runs)}["int4_group_128"]
    assert found["paired_scenes"] == 0
    assert math.isnan(found["low"])
    mine, theirs = (next(r for r in each.results if r.key == "int4_group_128") for _, each in runs)
    assert found["ratio"] == pytest.approx(theirs.damage / mine.damage)


def test_the_command_writes_beside_the_first_run(tmp_path: Path) -> None:
    for name, evaluation in (("a", first()), ("b", worse())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "comprehensive_results.json").write_text(evaluation_to_json(evaluation))
    said = the_json(cli("report", "--compare", tmp_path / "a", tmp_path / "b", "--json"))
    assert [Path(path).name for path in said["written"]] == ["comparison.md", "comparison.html"]
    assert "INT4 groups of 128" in (tmp_path / "a" / "comparison.md").read_text()
    assert "comparison.md" not in [path.name for path in (tmp_path / "b").iterdir()]
    json.dumps(said, allow_nan=False)


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "comprehensive_results.json").write_text(evaluation_to_json(first()))
    assert_refused(cli("report", "--compare", tmp_path / "a"), "--compare", "two or more")
    assert_refused(cli("report", "--compare", tmp_path / "a", tmp_path / "b"), "python cli.py evaluate")
    assert_refused(cli("report", tmp_path / "a"), "--compare", f"--run {tmp_path / 'a'}")
