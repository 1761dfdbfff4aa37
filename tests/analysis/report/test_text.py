"""The result types, their JSON, the verdict, and the text and terminal tables."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from analysis.report.text import (
    compression_ratio,
    evaluation_to_json,
    from_json,
    terminal_tables,
    to_text,
    verdict,
)
from tests.analysis.example import (
    BROKEN,
    DAMAGE,
    EXACT,
    PLAN_DAMAGE,
    SCENES,
    SIZE_MB,
    drawn,
    example_evaluation,
    metrics,
    result,
    with_plan,
)
from vggtkit.core.errors import InputError
from vggtkit.core.seal import sealed
from vggtkit.metrics import METRICS, Metric
from vggtkit.metrics.geometry import Estimate
from vggtkit.metrics.outputs import OUTPUTS, OutputMetrics
from vggtkit.quant import FORMATS, UNIFORM_SCHEMES


def test_compression_ratio_is_the_quotient_of_the_bytes() -> None:
    evaluation = example_evaluation()
    ratios = [compression_ratio(each, evaluation.results[0]) for each in evaluation.results]
    np.testing.assert_allclose(ratios, [43.6 / mb for mb in (43.6, *SIZE_MB.values(), 5.67)])


def test_the_first_result_must_be_the_reference() -> None:
    with pytest.raises(ValueError, match="fp32"):
        replace(example_evaluation(), results=example_evaluation().results[1:])


# Verdict


def test_a_plan_that_loses_to_larger_schemes_is_told_so_by_name() -> None:
    answer = verdict(example_evaluation())
    assert answer.holds is False
    assert [row.key for row in answer.rows if row.plan_is_better] == [
        key for key in UNIFORM_SCHEMES if DAMAGE[key] > PLAN_DAMAGE
    ]
    assert all(row.plan_is_smaller for row in answer.rows)
    assert answer.comparison.startswith("The plan (5.67 MB, damage 2.30e-4) is better than 5 of the 7")
    lost = "INT8 per-channel symmetric (9.52 MB, 3.00e-5), INT8 per-channel asymmetric (9.56 MB, 2.60e-5)"
    assert f"Not better than {lost}." in answer.comparison


def test_a_plan_that_beats_all_larger_schemes_is_told_so() -> None:
    answer = verdict(with_plan(example_evaluation(), damage=1e-6))
    assert answer.holds is True
    assert answer.comparison == (
        "The plan (5.67 MB, damage 1.00e-6) is better than 7 of the 7 uniform schemes of its size or larger."
    )


def test_the_verdict_is_a_recommendation_in_plain_words() -> None:
    """Ratios by hand: INT4 g128 is the best of the plan's size, INT8 per channel the smallest that is better."""
    answer = verdict(example_evaluation())
    assert answer.recommended == "plan"
    first, second, beside, better, *_ = answer.sentences
    assert first.startswith("Recommended: plan, 5.68MB, optimal. Its file of 5.67 MB is 7.69 times smaller than FP32's")
    assert second.startswith("The plan (5.67 MB, damage 2.30e-4) is the most accurate of its size")
    assert beside.endswith(f"does {1.74e-2 / 2.3e-4:.1f} times its damage.")
    assert better == f"INT8 per-channel symmetric is {2.3e-4 / 3e-5:.2f} times more accurate at 1.68 times its bytes."
    beaten = verdict(with_plan(example_evaluation(), damage=1.0))
    assert beaten.recommended != "plan"
    assert "is beaten: a scheme of about its size or smaller is more accurate." in beaten.sentence
    for said in (answer, beaten, verdict(replace(example_evaluation(), results=example_evaluation().results[:1]))):
        assert not said.sentence.startswith(("No", "Yes"))


def test_schemes_smaller_than_the_plan_do_not_count() -> None:
    answer = verdict(with_plan(example_evaluation(), size_bytes=9_520_000, damage=2.8e-5))
    counted = {row.key: row.plan_is_better for row in answer.rows if row.plan_is_smaller}
    assert counted == {"int8_per_channel_sym": True, "int8_per_channel_asym": False}
    assert "better than 1 of the 2 uniform schemes" in answer.comparison
    assert "smaller than the plan: 5." in answer.comparison


def test_the_question_is_open_where_every_scheme_is_smaller() -> None:
    answer = verdict(with_plan(example_evaluation(), size_bytes=20_000_000))
    assert answer.holds is None
    assert answer.comparison.endswith("is larger than every uniform scheme here, 7 of them.")


@pytest.mark.parametrize(
    ("ours", "theirs", "better"),
    [
        (1e-3, math.nan, True),
        (1e-3, math.inf, True),
        (math.nan, 1e-3, False),
        (math.nan, math.nan, False),
        (math.inf, math.nan, False),
        (1e-3, 1e-3, False),
        (0.0, 0.0, False),
        (0.0, 1e-3, True),
    ],
)
def test_equal_damage_is_not_better_and_not_finite_damage_is_worst(ours: float, theirs: float, better: bool) -> None:
    scheme = replace(result("int4_group_128", 6.0, 1.0), damage=theirs, per_scene=(theirs,))
    plan = replace(result("plan", 6.0, 1.0, "plan"), damage=ours, per_scene=(ours,))
    evaluation = replace(example_evaluation(), results=(result("fp32", 43.6, 0.0), scheme, plan), scenes=("room",))
    (row,) = verdict(evaluation).rows
    assert (row.plan_is_smaller, row.plan_is_better, row.scenes_won) == (True, better, int(better))


def test_scenes_are_counted_one_by_one() -> None:
    evaluation = with_plan(example_evaluation(), per_scene=(1e-9, 1e-9, 1.0, 1.0, 1.0, 1.0))
    assert {row.scenes_won for row in verdict(evaluation).rows} == {2}


def test_without_uniform_schemes_there_is_nothing_to_compare() -> None:
    evaluation = example_evaluation()
    evaluation = replace(evaluation, results=(evaluation.results[0], evaluation.results[-1]))
    assert verdict(evaluation).holds is None
    assert "No uniform scheme was evaluated." in " ".join(to_text(evaluation).split())
    assert terminal_tables(evaluation)


def test_without_a_plan_there_is_nothing_to_answer() -> None:
    evaluation = replace(example_evaluation(), results=example_evaluation().results[:-1])
    assert verdict(evaluation).rows == ()
    assert "FP32" in to_text(evaluation)


# JSON


def test_json_gives_back_the_evaluation() -> None:
    assert from_json(evaluation_to_json(example_evaluation())) == example_evaluation()


def test_json_gives_back_what_was_not_timed() -> None:
    evaluation = with_plan(example_evaluation(), seconds=None, seconds_spread=None, speed_ratio=None)
    assert from_json(evaluation_to_json(evaluation)) == evaluation


def test_json_is_strict_where_numbers_are_not_finite() -> None:
    outputs = {"depth": BROKEN, "depth_conf": EXACT, "pose_enc": replace(EXACT, ssim=None)}
    evaluation = with_plan(example_evaluation(), outputs=outputs, damage=math.inf, per_scene=(math.nan,) * len(SCENES))
    text = evaluation_to_json(evaluation)
    json.loads(text, parse_constant=pytest.fail)
    read = from_json(text).results[-1]
    assert math.isnan(read.damage)
    assert np.isnan(read.per_scene).all()
    numbers = dict(vars(read.outputs["depth"]))
    assert numbers.pop("extra") == {}
    assert np.isnan(list(numbers.values())).all()
    assert read.outputs["depth_conf"] == EXACT
    assert read.outputs["pose_enc"] == outputs["pose_enc"]


def test_json_gives_back_an_error_on_a_reference_of_zeros() -> None:
    zeros = replace(metrics(0.1, image=True), nmse=math.inf, psnr_db=-math.inf, sqnr_db=-math.inf)
    evaluation = with_plan(example_evaluation(), outputs={"depth": zeros})
    assert from_json(evaluation_to_json(evaluation)) == evaluation


def test_json_spells_out_ratings_and_verdict() -> None:
    data = json.loads(evaluation_to_json(example_evaluation()))
    plan = data["results"][-1]
    assert plan["compression_ratio"] == pytest.approx(43.6 / 5.67)
    assert plan["outputs"]["pose_enc"]["ratings"]["ssim"] == "n/a"
    assert plan["outputs"]["depth"]["ratings"]["cosine"] == "excellent"
    assert data["verdict"]["holds"] is False


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "Expecting"), ("[]", "list"), ("{}", "'provenance' is missing"), ("null", "NoneType")],
)
def test_foreign_json_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"not the JSON of an evaluation: .*{reason}"):
        from_json(text)


def test_json_gives_back_geometry_that_is_not_a_number_or_not_there() -> None:
    lone = {"abs_rel": Estimate(0.1, math.nan, math.nan, 1), "agreement": Estimate(math.nan, math.nan, math.nan, 1)}
    evaluation = with_plan(example_evaluation(), geometry=lone, changes=lone)
    assert from_json(evaluation_to_json(evaluation)) == evaluation
    data = json.loads(evaluation_to_json(evaluation))
    assert data["results"][-1]["geometry"]["abs_rel"] == {"mean": 0.1, "low": None, "high": None, "scenes": 1}
    for each in data["results"]:
        del each["geometry"], each["changes"]
    assert {(len(each.geometry), each.cost) for each in from_json(json.dumps(sealed(data))).results} == {(0, "")}


# Text and terminal


def test_text_holds_every_scheme_output_and_fact() -> None:
    evaluation = example_evaluation()
    text = to_text(evaluation)
    flowing = " ".join(text.split())
    for expected in (
        *(each.title for each in evaluation.results),
        *OUTPUTS,
        *SCENES,
        *(str(value) for value in evaluation.provenance.values() if isinstance(value, str)),
        evaluation.weights_note,
        "22 layers INT8 per-channel symmetric",
        "predicted damage 1.90e-4, measured 2.30e-4",
    ):
        assert expected in flowing
    assert flowing.count(verdict(evaluation).sentence) == 1
    assert max(map(len, text.splitlines())) <= 120


def test_text_rates_each_value() -> None:
    lines = to_text(example_evaluation()).splitlines()
    header = lines.index("depth") + 2
    row = next(line for line in lines[header:] if line.startswith("INT4 g128"))
    int4 = example_evaluation().results[5].outputs["depth"]
    assert f"{int4.psnr_db:.1f} A" in row
    assert f"{int4.cosine:.5f} G" in row
    assert f"{100 * int4.relative_error:.1f}% P" in row


@pytest.mark.parametrize("broken", [BROKEN, EXACT, metrics(1e-13, image=True), metrics(123.4, image=True)])
def test_text_stays_narrow_with_extreme_numbers(broken: OutputMetrics) -> None:
    evaluation = example_evaluation()
    extreme = [replace(each, outputs=dict.fromkeys(OUTPUTS, broken)) for each in evaluation.results[1:]]
    text = to_text(replace(evaluation, results=(evaluation.results[0], *extreme)))
    assert max(map(len, text.splitlines())) <= 120


def test_text_holds_no_control_characters() -> None:
    evaluation = example_evaluation()
    fp32, first, *rest = evaluation.results
    named = replace(first, outputs=first.outputs | {"a\x1b[2J\u202e": EXACT})
    lines = to_text(replace(evaluation, results=(fp32, named, *rest), model="b\x07")).split("\n")
    assert all(line.isprintable() for line in lines)
    assert r"a\x1b[2J\u202e" in lines


def test_terminal_tables_are_whole_in_their_columns() -> None:
    evaluation = example_evaluation()
    tables = terminal_tables(evaluation)
    assert len(tables) == 4 + len(OUTPUTS)
    for index, table in enumerate(tables):
        text = drawn(table, 80 if index < 2 else 100)
        assert all(FORMATS[key].short_title in text for key in UNIFORM_SCHEMES)
        # The verdict compares with the plan, which has no row of its own there.
        assert any(line.startswith("plan") for line in text.splitlines()) == (index != 1)


def test_a_further_metric_stands_in_every_table_of_outputs_and_comes_back_from_json() -> None:
    """With the title that it was registered with, or by its key where it is no longer registered."""
    outputs = {"depth": replace(EXACT, extra={"largest": 0.125}), "depth_conf": EXACT}
    evaluation = with_plan(example_evaluation(), outputs=outputs)
    read = from_json(evaluation_to_json(evaluation))
    assert read.results[-1].outputs["depth"].extra == {"largest": 0.125}
    text = to_text(read)
    assert text.count("largest") == 1
    assert "0.125" in text
    METRICS.register("largest", Metric("largest", "peak error", compute=lambda _r, _c: None))
    try:
        assert to_text(read).count("peak error") == 1
    finally:
        METRICS.unregister("largest")
    assert '"extra"' not in evaluation_to_json(example_evaluation())
