"""Figures of cameras, depth, points and tracks in the text report and in the terminal."""

import math
from dataclasses import replace

import pytest

from analysis.report.geometry_tables import too_few_scenes
from analysis.report.text import Evaluation, terminal_tables, to_text
from tests.analysis.example import drawn, example_evaluation
from vggtkit.metrics.geometry import GEOMETRY, Estimate
from vggtkit.quant import UNIFORM_SCHEMES


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
        rows = [row.split() for row in rows_below(text, f"{title}: means over 6 scenes")]
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
    assert words in drawn(terminal_tables(evaluation)[2], 100)
    drawn(terminal_tables(evaluation)[2], 80)
    drawn(terminal_tables(evaluation)[3], 100)


def test_terminal_tells_what_fp32_has_and_what_schemes_cost() -> None:
    evaluation = example_evaluation()
    costs, figures = (drawn(table, 100) for table in terminal_tables(evaluation, with_outputs=False)[2:])
    assert "AUC@30 0.600 [0.500, 0.700], AbsRel 0.200 [0.100, 0.300]" in costs
    assert "AUC@30 -1.7 points [-2.7, -0.7], AbsRel +0.017 [+0.007, +0.027]  AUC@30, AbsRel" in costs
    assert [line.split()[-1] for line in costs.splitlines() if "INT8" in line] == ["nothing"] * 4
    assert "d<1.25" in figures
    unlabelled = [drawn(table, 100) for table in terminal_tables(without_truth(evaluation), with_outputs=False)[2:]]
    assert "points vs depth 0.200 [0.100, 0.300]" in unlabelled[0]
    assert unlabelled[0].count("points vs depth +0.005 [+0.004, +0.006]") == len(UNIFORM_SCHEMES) + 1
    assert "d<1.25" not in unlabelled[1]
    unknown = with_geometry(evaluation, {}, {})
    assert len(terminal_tables(unknown, with_outputs=False)) == 2
    assert "Cost in" not in to_text(unknown)


@pytest.mark.usefixtures("spoken_in_options")
def test_few_scenes_are_said_to_tell_nothing() -> None:
    evaluation = example_evaluation()
    assert too_few_scenes(evaluation) == ""
    fewer = replace(evaluation, scenes=evaluation.scenes[:5])
    assert too_few_scenes(fewer).startswith("5 scenes cannot tell")
    assert "--num-scenes 6" in too_few_scenes(fewer)
    assert "beyond noise" in drawn(terminal_tables(evaluation)[2], 100)
    assert "beyond noise" not in drawn(terminal_tables(fewer)[2], 100)
    assert too_few_scenes(with_geometry(fewer, {}, {})) == ""
