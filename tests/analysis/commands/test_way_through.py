"""The commands one after another: their files, their JSON, their tables."""

import json
from pathlib import Path

import pytest
import torch

from analysis.evaluation.results_file import from_json
from analysis.steps import show_evaluation
from analysis.steps.run_folder import DEPTH_DIFFERENCES, DEPTH_MAPS, POINT_DIFFERENCES
from mixedprec import load_plan, load_quantized
from sensitivity import open_profile
from tests.analysis.commands.running import RESULTS, Ran, cli, the_json
from vggtkit.core.command_log import LOG, read_log


def test_a_run_has_its_files_and_no_others(finished: tuple[Path, dict[str, Ran]]) -> None:
    made = {path.name for path in finished[0].iterdir()}
    written = {"profile.h5", "plan.json", "model-plan.safetensors", "model-plan.json", *RESULTS, LOG}
    written |= {DEPTH_MAPS, DEPTH_DIFFERENCES, POINT_DIFFERENCES}
    assert made == written | {"report", "report.html"}


def test_every_command_prints_one_json_document(finished: tuple[Path, dict[str, Ran]]) -> None:
    values = {name: the_json(ran) for name, ran in finished[1].items()}
    written, absent = (values["report"].pop(name) for name in ("written", "absent"))
    assert values["evaluate"] == values["report"]
    assert all(Path(path).is_file() for path in written)
    assert [each["file"] for each in absent] == ["pareto.json", "score_audit.json"]
    assert [row["key"] for row in values["evaluate"]["results"]][::8] == ["fp32", "plan"]
    assert {"layers", "schemes", "most_sensitive"} <= values["profile"].keys()


def test_only_profile_says_something_beside_its_json(finished: tuple[Path, dict[str, Ran]]) -> None:
    said = {name: ran.err.count("\n") for name, ran in finished[1].items()}
    assert said == {"profile": 2, "plan": 0, "evaluate": 0, "export": 0, "report": 0}


def test_plan_report_and_checkpoint_agree_on_the_size(finished: tuple[Path, dict[str, Ran]]) -> None:
    run, printed = finished
    plan, evaluation = load_plan(run / "plan.json"), from_json((run / RESULTS[0]).read_text())
    size = (run / "model-plan.safetensors").stat().st_size
    assert evaluation.plan is not None
    assert size == plan.size_bytes == evaluation.plan.size_bytes == the_json(printed["export"])["size_bytes"]
    assert f"{size / 1e6:.2f}" in (run / RESULTS[1]).read_text()


def test_the_exported_checkpoint_runs(finished: tuple[Path, dict[str, Ran]]) -> None:
    model = load_quantized(finished[0] / "model-plan.safetensors")
    with torch.no_grad():
        found = model(torch.rand(1, 2, 3, 32, 32))
    assert found["depth"].shape == (1, 2, 32, 32, 1)


def test_every_command_has_a_line_in_the_log(finished: tuple[Path, dict[str, Ran]], run: Path) -> None:
    assert [(entry.exit_code, entry.error) for entry in read_log(finished[0])] == [(0, "")] * 5
    assert all(entry.seconds > 0 and entry.machine["torch"] == torch.__version__ for entry in read_log(run))
    assert cli("export", "--run", run, "--scheme", "int9").code == 2
    last = read_log(run)[-1]
    assert (last.exit_code, last.error.startswith("error: unknown")) == (2, True)
    assert any(note.startswith("profiling ") for note in read_log(run)[0].notes)


def test_every_file_says_where_it_comes_from(finished: tuple[Path, dict[str, Ran]]) -> None:
    run, wanted = finished[0], {"tool_version", "torch", "numpy", "command", "seed", "scene_fingerprint"}
    summary = json.loads((run / "model-plan.json").read_text())
    assert wanted <= load_plan(run / "plan.json").provenance.keys()
    assert wanted <= from_json((run / RESULTS[0]).read_text()).provenance.keys()
    assert wanted <= summary["note"].keys()


def test_tables_for_people(run: Path) -> None:
    shown = cli("plan", "--run", run, "--budget", "90%", "--policy", "sensitive")
    assert shown.code == 0
    assert "Plan for" in shown.out
    assert "does not bind" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 130


def test_photographs_from_profile_to_evaluation(model_folder: Path, photo_folder: Path, tmp_path: Path) -> None:
    """With the spellings of the options that others use."""
    run = tmp_path / "photos"
    common = ("--output_dir", run, "--json")
    small = ("--probes", 1, "--max_images", 4)
    profiled = cli("profile", "--model_name", model_folder, "--image_folder", photo_folder, *small, *common)
    assert profiled.err.count("on 1 scene of 2 pictures of 24x32") == 1
    the_json(profiled)
    the_json(cli("plan", "--budget", "int4_group_32", *common))
    the_json(cli("evaluate", "--repeats", 0, *common))
    evaluation = from_json((run / RESULTS[0]).read_text())
    (calibration,), (held_out,) = evaluation.calibration_scenes, evaluation.scenes
    assert calibration != held_out
    assert calibration.startswith(photo_folder.name)
    assert held_out.startswith(photo_folder.name)
    assert evaluation.results[0].seconds is None
    facts = evaluation.provenance
    assert facts["scene_fingerprint"] != facts["calibration_scene_fingerprint"]


def test_demo_prints_one_json_document(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    """Its steps are those of the commands, so an earlier run may stand in for the slow ones."""
    monkeypatch.setattr("analysis.commands.demo.make_profile", lambda run, *_, **__: open_profile(run))
    monkeypatch.setattr("analysis.commands.demo.make_evaluation", lambda run, *_, **__: show_evaluation(run))
    values = the_json(cli("demo", "--run", run, "--json"))
    assert list(values) == ["profile", "plan", "evaluate"]
    assert values["evaluate"]["path"] == str(run / RESULTS[0])
