"""The result types, their JSON, the verdict, and the text and terminal tables."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from analysis.compare import OUTPUTS, OutputMetrics
from analysis.geometry import GEOMETRY, Estimate
from analysis.report import (
    Evaluation,
    SchemeResult,
    compression_ratio,
    from_json,
    rich_tables,
    to_json,
    to_text,
    verdict,
)
from errors import InputError
from quant import FORMATS, UNIFORM_SCHEMES

IMAGES = ("depth", "depth_conf", "world_points", "world_points_conf")
SCENES = ("kitchen-1", "kitchen-2", "room", "hololens")
SIZE_MB = dict(zip(UNIFORM_SCHEMES, (9.41, 9.41, 9.52, 9.56, 5.68, 5.85, 6.16), strict=True))
DAMAGE = dict(zip(UNIFORM_SCHEMES, (9e-4, 7e-4, 3e-5, 2.6e-5, 1.74e-2, 2.1e-2, 1.98e-2), strict=True))
PLAN_DAMAGE = 2.3e-4


def metrics(nmse: float, *, image: bool) -> OutputMetrics:
    """The metrics of an output of unit energy and peak 4 with this error."""
    return OutputMetrics(
        mae=0.8 * math.sqrt(nmse),
        mse=nmse,
        rmse=math.sqrt(nmse),
        psnr_db=10 * math.log10(16 / nmse) if nmse else math.inf,
        ce=9.21 + nmse / 3,
        ce_excess=nmse / 3,
        cosine=1 - nmse / 2,
        relative_error=3 * math.sqrt(nmse),
        ssim=1 - 1.5 * nmse if image else None,
        nmse=nmse,
        sqnr_db=-10 * math.log10(nmse) if nmse else math.inf,
    )


BROKEN = OutputMetrics(*[math.nan] * 11)
EXACT = metrics(0.0, image=True)


def geometry(damage: float) -> dict[str, Estimate]:
    """Figures that get worse with damage."""
    means = {k: 0.6 - damage if m.higher_is_better else 0.2 + damage for k, m in GEOMETRY.items()}
    return {key: Estimate(mean, mean - 0.1, mean + 0.1, len(SCENES)) for key, mean in means.items()}


def changes(damage: float) -> dict[str, Estimate]:
    """Those of the figures from FP32's; small ones are within the noise."""
    means = {k: -damage if m.higher_is_better else damage for k, m in GEOMETRY.items()}
    return {key: Estimate(mean, mean - 0.01, mean + 0.01, len(SCENES)) for key, mean in means.items()}


def result(key: str, megabytes: float, damage: float, title: str | None = None) -> SchemeResult:
    """A scheme whose outputs differ, the heads' confidences less than the cameras."""
    weights = np.geomspace(4, 0.05, len(OUTPUTS))
    outputs = {
        name: metrics(damage * weight / weights.mean(), image=name in IMAGES)
        for name, weight in zip(OUTPUTS, weights, strict=True)
    }
    seconds = 1.21 + megabytes / 500
    return SchemeResult(
        key=key,
        title=title or FORMATS[key].title,
        size_bytes=round(megabytes * 1e6),
        seconds=seconds,
        seconds_spread=(0.96 * seconds, 1.07 * seconds),
        speed_ratio=1.31 / seconds,
        outputs=outputs if damage else {},
        damage=damage,
        per_scene=tuple(damage * factor for factor in (0.5, 0.8, 1.1, 1.6)),
        geometry=geometry(damage),
        changes=changes(damage) if damage else {},
    )


def example_evaluation() -> Evaluation:
    """The seven schemes and a plan of the size of INT4 groups of 128, with plausible numbers."""
    schemes = [result(key, SIZE_MB[key], DAMAGE[key]) for key in UNIFORM_SCHEMES]
    plan = result("plan", 5.67, PLAN_DAMAGE, "plan, 5.68MB, optimal")
    return Evaluation(
        provenance={
            "schema": 1,
            "tool version": "0.1.0",
            "model fingerprint": "sha256:" + "5e" * 32,
            "seed": 0,
            "command line": "cli.py evaluate --run runs/default --images photos/kitchen",
            "versions": {"torch": "2.13.0", "numpy": "2.3.1"},
        },
        model="tiny",
        weights_note="bundled, trained on synthetic scenes",
        scenes=SCENES,
        calibration_scenes=("synthetic-0", "synthetic-1"),
        executed="weights unpacked to float32, then torch's float32 kernels (oneDNN), 1 thread, 7 repeats",
        results=(result("fp32", 43.6, 0.0), *schemes, plan),
        plan_formats={"int4_group_128": 61, "int4_group_32": 9, "int8_per_channel_sym": 22},
        predicted_damage=1.9e-4,
    )


def with_plan(evaluation: Evaluation, **changes: object) -> Evaluation:
    return replace(evaluation, results=(*evaluation.results[:-1], replace(evaluation.results[-1], **changes)))


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
    assert answer.sentence.startswith("No: the plan (5.67 MB, damage 2.30e-4) is better than 5 of the 7")
    lost = "INT8 per-channel symmetric (9.52 MB, 3.00e-5), INT8 per-channel asymmetric (9.56 MB, 2.60e-5)"
    assert f"Not better than {lost}." in answer.sentence


def test_a_plan_that_beats_all_larger_schemes_is_told_so() -> None:
    answer = verdict(with_plan(example_evaluation(), damage=1e-6))
    assert answer.holds is True
    assert answer.sentence == (
        "Yes: the plan (5.67 MB, damage 1.00e-6) is better than 7 of the 7 uniform schemes of its size or larger."
    )


def test_schemes_smaller_than_the_plan_do_not_count() -> None:
    answer = verdict(with_plan(example_evaluation(), size_bytes=9_520_000, damage=2.8e-5))
    counted = {row.key: row.plan_is_better for row in answer.rows if row.plan_is_smaller}
    assert counted == {"int8_per_channel_sym": True, "int8_per_channel_asym": False}
    assert "better than 1 of the 2 uniform schemes" in answer.sentence
    assert "smaller than the plan: 5." in answer.sentence


def test_the_question_is_open_where_every_scheme_is_smaller() -> None:
    answer = verdict(with_plan(example_evaluation(), size_bytes=20_000_000))
    assert answer.holds is None
    assert answer.sentence.startswith("Not answered")


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
    evaluation = with_plan(example_evaluation(), per_scene=(1e-9, 1e-9, 1.0, 1.0))
    assert {row.scenes_won for row in verdict(evaluation).rows} == {2}


def test_without_uniform_schemes_there_is_nothing_to_compare() -> None:
    evaluation = example_evaluation()
    evaluation = replace(evaluation, results=(evaluation.results[0], evaluation.results[-1]))
    assert verdict(evaluation).holds is None
    assert "No uniform scheme was evaluated." in to_text(evaluation)
    assert rich_tables(evaluation)


def test_without_a_plan_there_is_nothing_to_answer() -> None:
    evaluation = replace(example_evaluation(), results=example_evaluation().results[:-1])
    assert verdict(evaluation).rows == ()
    assert "FP32" in to_text(evaluation)


# JSON


def test_json_gives_back_the_evaluation() -> None:
    assert from_json(to_json(example_evaluation())) == example_evaluation()


def test_json_gives_back_what_was_not_timed() -> None:
    evaluation = with_plan(example_evaluation(), seconds=None, seconds_spread=None, speed_ratio=None)
    assert from_json(to_json(evaluation)) == evaluation


def test_json_is_strict_where_numbers_are_not_finite() -> None:
    outputs = {"depth": BROKEN, "depth_conf": EXACT, "pose_enc": replace(EXACT, ssim=None)}
    evaluation = with_plan(example_evaluation(), outputs=outputs, damage=math.inf, per_scene=(math.nan,) * 4)
    text = to_json(evaluation)
    json.loads(text, parse_constant=pytest.fail)
    read = from_json(text).results[-1]
    assert math.isnan(read.damage)
    assert np.isnan(read.per_scene).all()
    assert np.isnan(list(vars(read.outputs["depth"]).values())).all()
    assert read.outputs["depth_conf"] == EXACT
    assert read.outputs["pose_enc"] == outputs["pose_enc"]


def test_json_gives_back_an_error_on_a_reference_of_zeros() -> None:
    zeros = replace(metrics(0.1, image=True), nmse=math.inf, psnr_db=-math.inf, sqnr_db=-math.inf)
    evaluation = with_plan(example_evaluation(), outputs={"depth": zeros})
    assert from_json(to_json(evaluation)) == evaluation


def test_json_spells_out_ratings_and_verdict() -> None:
    data = json.loads(to_json(example_evaluation()))
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
    assert from_json(to_json(evaluation)) == evaluation
    data = json.loads(to_json(evaluation))
    assert data["results"][-1]["geometry"]["abs_rel"] == {"mean": 0.1, "low": None, "high": None, "scenes": 1}
    for each in data["results"]:
        del each["geometry"], each["changes"]
    assert {(len(each.geometry), each.cost) for each in from_json(json.dumps(data)).results} == {(0, "")}


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


def with_geometry(evaluation: Evaluation, figures: dict[str, Estimate], moved: dict[str, Estimate]) -> Evaluation:
    """The same with these figures for all schemes."""
    fp32, *others = (replace(each, geometry=figures) for each in evaluation.results)
    return replace(evaluation, results=(fp32, *(replace(each, changes=moved) for each in others)))


def without_truth(evaluation: Evaluation) -> Evaluation:
    """The same with nothing but the agreement."""
    return with_geometry(
        evaluation, {"agreement": Estimate(0.2, 0.1, 0.3, 4)}, {"agreement": Estimate(0.005, 0.004, 0.006, 4)}
    )


def rows_below(text: str, title: str) -> list[str]:
    """The table of that title, its header left out."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(title)) + 3
    return lines[start : lines.index("", start)]


def test_text_tells_every_figure_and_the_noise_of_fp32() -> None:
    text = to_text(example_evaluation())
    for title, count in (("Cameras", 10), ("Depth, points and tracks", 9)):
        rows = [row.split() for row in rows_below(text, f"{title}: means over 4 scenes")]
        assert [len(row) - count for row in rows[:3]] == [1, 3, 3]
        assert set(rows[0][1:]) <= {"0.600", "0.200"}
        assert set(rows[1][3:]) <= {"0.500", "0.100"}
        assert set(rows[2][3:]) <= {"0.700", "0.300"}
        assert len(rows) == 2 + 1 + len(UNIFORM_SCHEMES) + 1


def test_text_tells_what_schemes_cost_with_intervals() -> None:
    """INT4 g128 has a damage of 0.0174, which the example takes from every figure."""
    evaluation = example_evaluation()
    table = rows_below(to_text(evaluation), "Cost in cameras and depth")
    row = next(row for row in table if row.startswith("INT4 g128"))
    assert "-1.7 [-2.7, -0.7]" in row
    assert "+0.017 [+0.007, +0.027]" in row
    assert len(table) == len(evaluation.quantized)
    assert evaluation.results[5].cost == "AUC@30 -1.7 points, AbsRel +0.017"


def test_text_without_truth_tells_the_agreement_alone() -> None:
    text = to_text(without_truth(example_evaluation()))
    assert "Cameras" not in text
    assert text.count("+0.005 [+0.004, +0.006]") == len(UNIFORM_SCHEMES) + 1


def test_text_of_a_single_scene_has_no_intervals() -> None:
    lone = {key: Estimate(0.5, math.nan, math.nan, 1) for key in GEOMETRY}
    text = to_text(with_geometry(example_evaluation(), lone, lone))
    assert rows_below(text, "Cameras")[0].split() == ["FP32", *["0.500"] * 10]
    assert rows_below(text, "Cameras")[1].startswith("INT8")
    assert rows_below(text, "Cost in cameras and depth")[0].split()[-3:] == ["+50.0", "+0.500", "+50.0"]


@pytest.mark.parametrize("broken", [False, True], ids=["finite", "broken"])
def test_geometry_stays_narrow(broken: bool) -> None:
    share, other = ([math.nan] * 3, [math.nan] * 3) if broken else ([-1.0, -1.0, 1.0], [-123.4, -123.4, 123.4])
    worst = {key: Estimate(*(share if m.higher_is_better else other), 4) for key, m in GEOMETRY.items()}
    evaluation = with_geometry(example_evaluation(), worst, worst)
    assert max(map(len, to_text(evaluation).splitlines())) <= 120
    words = "AUC@30 not a number" if broken else "AUC@30 -100.0 points [-100.0, +100.0]"
    assert words in drawn(rich_tables(evaluation)[2], 100)
    drawn(rich_tables(evaluation)[2], 80)
    drawn(rich_tables(evaluation)[3], 100)


def test_terminal_tells_what_fp32_has_and_what_schemes_cost() -> None:
    evaluation = example_evaluation()
    costs, figures = (drawn(table, 100) for table in rich_tables(evaluation, with_outputs=False)[2:])
    assert "AUC@30 0.600 [0.500, 0.700], AbsRel 0.200 [0.100, 0.300]" in costs
    assert "AUC@30 -1.7 points [-2.7, -0.7], AbsRel +0.017 [+0.007, +0.027]  AUC@30, AbsRel" in costs
    assert [line.split()[-1] for line in costs.splitlines() if "INT8" in line] == ["nothing"] * 4
    assert "d<1.25" in figures
    unlabelled = [drawn(table, 100) for table in rich_tables(without_truth(evaluation), with_outputs=False)[2:]]
    assert "points vs depth 0.200 [0.100, 0.300]" in unlabelled[0]
    assert unlabelled[0].count("points vs depth +0.005 [+0.004, +0.006]") == len(UNIFORM_SCHEMES) + 1
    assert "d<1.25" not in unlabelled[1]
    unknown = with_geometry(evaluation, {}, {})
    assert len(rich_tables(unknown, with_outputs=False)) == 2
    assert "Cost in" not in to_text(unknown)


def drawn(table: Table, width: int) -> str:
    """What a terminal of that width shows, nothing cut."""
    console = Console(width=width, record=True, file=io.StringIO(), color_system=None)
    console.print(table)
    text = console.export_text()
    assert "…" not in text
    return text


def test_terminal_tables_are_whole_in_their_columns() -> None:
    evaluation = example_evaluation()
    tables = rich_tables(evaluation)
    assert len(tables) == 4 + len(OUTPUTS)
    for index, table in enumerate(tables):
        text = drawn(table, 80 if index < 2 else 100)
        assert all(FORMATS[key].short_title in text for key in UNIFORM_SCHEMES)
        # The verdict compares with the plan, which has no row of its own there.
        assert any(line.startswith("plan") for line in text.splitlines()) == (index != 1)
