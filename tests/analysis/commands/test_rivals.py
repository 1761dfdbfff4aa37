"""What stands beside a plan in an evaluation: chosen schemes, further plans; the worst scene and layer are named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sensitivity import open_profile
from tests.analysis.commands.running import assert_refused, cli, the_json


def results_of(run: Path) -> dict[str, dict]:
    return {row["key"]: row for row in json.loads((run / "comprehensive_results.json").read_text())["results"]}


def test_schemes_that_are_asked_for_have_the_numbers_of_all_seven(run: Path) -> None:
    before = results_of(run)
    the_json(cli("evaluate", "--run", run, "--repeats", 0, "--schemes", "int4_group_32,fp16", "--json"))
    after = results_of(run)
    assert list(after) == ["fp32", "int4_group_32", "fp16", "plan"]
    for key in ("int4_group_32", "plan"):
        assert (after[key]["damage"], after[key]["size_bytes"]) == (before[key]["damage"], before[key]["size_bytes"])
    assert after["fp16"]["damage"] < after["int4_group_32"]["damage"]


def test_a_quick_evaluation_has_two_schemes_and_one_scene(run: Path) -> None:
    values = the_json(cli("evaluate", "--run", run, "--quick", "--json"))
    assert [row["key"] for row in values["results"]] == ["fp32", "int8_per_channel_sym", "int4_group_128", "plan"]
    evaluation = json.loads((run / "comprehensive_results.json").read_text())
    assert len(evaluation["scenes"]) == 1
    assert all(row["seconds"] for row in values["results"])


@pytest.fixture
def other(run: Path, tmp_path: Path) -> Path:
    """A run of the same profile with a plan of more bytes."""
    folder = Path(shutil.copytree(run, tmp_path / "other"))
    assert cli("plan", "--run", folder, "--budget", "45%").code == 0
    return folder


def test_a_further_plan_is_a_row_with_the_numbers_of_its_own_run(run: Path, other: Path) -> None:
    asked = ("--repeats", 0, "--schemes", "none", "--json")
    the_json(cli("evaluate", "--run", other, *asked))
    alone = results_of(other)["plan"]
    values = the_json(cli("evaluate", "--run", run, "--also", other, *asked))
    beside = results_of(run)[f"plan:{other / 'plan.json'}"]
    assert beside["title"].startswith("other (")
    for name in ("damage", "size_bytes", "per_scene", "outputs"):
        assert beside[name] == alone[name]
    assert values["verdict"].endswith("No uniform scheme was evaluated.")
    report = cli("report", "--run", run)
    assert report.code == 0, report.err
    assert "other (" in (run / "report" / "5_conclusions.md").read_text() or (run / "report.html").is_file()


def test_the_worst_scene_and_layer_are_those_of_the_numbers(run: Path) -> None:
    ran = cli("evaluate", "--run", run, "--repeats", 0, "--num-scenes", 2, "--schemes", "none", "--json")
    worst = the_json(ran)["worst"]
    evaluation = json.loads((run / "comprehensive_results.json").read_text())
    per_scene = results_of(run)["plan"]["per_scene"]
    assert (worst["scene"], worst["scene_damage"]) == max(
        zip(evaluation["scenes"], per_scene, strict=True), key=lambda pair: pair[1]
    )
    profile, formats = open_profile(run / "profile.h5"), json.loads((run / "plan.json").read_text())["formats"]
    own = [profile.total_damage[row, profile.column(formats[layer.name])] for row, layer in enumerate(profile.layers)]
    assert worst["layer"] == profile.layers[int(np.argmax(own))].name
    assert worst["layer_share"] == pytest.approx(max(own) / sum(own))


def test_what_cannot_stand_beside_it(run: Path, other: Path, tmp_path: Path) -> None:
    asked = ("evaluate", "--run", run, "--repeats", 0)
    assert_refused(cli(*asked, "--schemes", "int5"), "int5")
    assert_refused(cli(*asked, "--schemes", "fp16,fp16"), "fp16 is named 2 times")
    assert_refused(cli(*asked, "--schemes", "fp32"), "what all are compared with")
    assert_refused(cli(*asked, "--also", tmp_path / "absent"), "no such plan")
    assert_refused(cli(*asked, "--also", run), "the run's own plan")
    assert_refused(cli(*asked, "--also", other, "--also", other), "named twice")
    assert_refused(cli(*asked, "--also", run / "profile.h5"), "profile.h5")
    assert cli("plan", "--run", other, "--heads", "camera,depth", "--budget", "60%").code == 0
    assert_refused(
        cli(*asked, "--also", other), "it has the heads", "cannot compare", "--heads", f"evaluate --run {other}"
    )
