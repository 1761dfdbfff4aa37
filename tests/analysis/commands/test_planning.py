"""The planner's commands: constraints, quality targets, scores, plans without a profile and without heads, Pareto."""

import errno
import json
import shlex
from pathlib import Path

import pytest
import torch

import analysis.steps.plan as steps
from mixedprec import load_plan, load_quantized, read_info
from sensitivity import open_profile
from tests.analysis.commands.running import assert_refused, cli, content, the_json
from vggtkit.quant import UNIFORM_SCHEMES, get_format


def test_constraints_and_weights_reach_the_plan(run: Path) -> None:
    said = the_json(
        cli(
            "plan", "--run", run, "--budget", "40%", "--pin", "camera_head.*=int8_per_channel_sym",
            "--min-bits", "attention=8", "--keep-fp", "*.norm*", "--group", "depth_head.projects.*",
            "--role", "mlp=int4",
            "--weights-for", "depth=2,pose=1", "--json",
        )
    )  # fmt: skip
    plan = load_plan(run / "plan.json")
    assert plan.size_bytes == said["size_bytes"] <= said["budget_bytes"]
    assert {key for name, key in plan.formats.items() if name.startswith("camera_head.")} == {"int8_per_channel_sym"}
    assert all(get_format(key).bits >= 8 for name, key in plan.formats.items() if ".attn." in name and "aggr" in name)
    assert plan.provenance["weights_for"] == "depth=2,pose=1"


def test_a_plan_is_judged_by_the_weights_that_it_was_made_with(run: Path) -> None:
    cli("plan", "--run", run, "--budget", "int4_group_32", "--weights-for", "depth=3,pose=0", "--rounding", "nearest")
    cli("evaluate", "--run", run, "--schemes", "none", "--repeats", "0")
    results = json.loads((run / "comprehensive_results.json").read_bytes())["results"]
    (judged,) = (row for row in results if row["key"] == "plan")
    counts = {name: {"depth": 3.0, "depth_conf": 3.0, "pose_enc": 0.0}.get(name, 1.0) for name in judged["outputs"]}
    weighed = sum(counts[name] * output["nmse"] for name, output in judged["outputs"].items()) / sum(counts.values())
    alike = sum(output["nmse"] for output in judged["outputs"].values()) / len(counts)
    assert judged["damage"] == pytest.approx(weighed, rel=1e-6) != pytest.approx(alike, rel=1e-3)


def test_the_smallest_file_for_a_measured_damage(run: Path) -> None:
    said = the_json(cli("plan", "--run", run, "--max-damage", "0.05", "--formats", "int8,int4", "--json"))
    kept = [row for row in said["measured"] if not row["broken"]]
    assert min(row["size_bytes"] for row in kept) == said["size_bytes"]
    assert all(row["measured_damage"] <= 0.05 for row in kept)
    assert all(row["measured_damage"] > 0.05 for row in said["measured"] if row["broken"])
    assert load_plan(run / "plan.json").size_bytes == said["size_bytes"]


def test_without_heads_the_checkpoint_is_smaller_and_runs(run: Path) -> None:
    before = the_json(cli("plan", "--run", run, "--budget", "int4_group_32", "--formats", "int4_group_32", "--json"))
    said = the_json(
        cli("plan", "--run", run, "--budget", "60%", "--formats", "int4_group_32", "--heads", "camera,depth", "--json")
    )
    assert said["size_bytes"] < before["size_bytes"]
    assert {tuple(row["heads"]) for row in said["alternatives"]} >= {("camera", "depth", "point", "track")}
    written = the_json(cli("export", "--run", run, "--json"))
    assert written["size_bytes"] == said["size_bytes"] == Path(written["path"]).stat().st_size
    with torch.no_grad():
        found = load_quantized(written["path"])(torch.rand(1, 2, 3, 32, 32), torch.ones(1, 1, 2))
    assert found.keys() >= {"pose_enc", "depth"}
    assert not found.keys() & {"world_points", "track"}
    judged = the_json(cli("evaluate", "--run", run, "--repeats", 0, "--schemes", "none", "--json"))
    assert next(row for row in judged["results"] if row["key"] == "plan")["size_bytes"] == said["size_bytes"]


def test_a_model_without_a_profile_is_planned_drawn_and_written(model_folder: Path, tmp_path: Path) -> None:
    shown = cli("plan", "--model", model_folder, "--run", tmp_path, "--budget", "40%", "--draw")
    assert shown.code == 0
    assert "NO PROFILE" in shown.out
    assert "What this size buys" in shown.out
    assert (tmp_path / "plan.png").is_file()
    written = the_json(cli("export", "--run", tmp_path, "--json"))
    assert written["size_bytes"] == load_plan(tmp_path / "plan.json").size_bytes
    assert_refused(cli("plan", "--model", model_folder, "--run", tmp_path, "--max-damage", "1"), "make a profile")


def test_a_plan_whose_drawing_fails_changes_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = content(run)
    monkeypatch.setattr(steps, "draw_plan", full)
    assert_refused(cli("plan", "--run", run, "--budget", "50%", "--draw"), "No space left on device")
    assert content(run) == before


def test_the_trade_off_is_measured_and_drawn(run: Path) -> None:
    said = the_json(cli("pareto", "--run", run, "--points", 4, "--measure", 2, "--formats", "int8,int4", "--json"))
    saved = json.loads((run / "pareto.json").read_text())
    assert saved["points"] == said["points"]
    assert sum(point["measured"] is not None for point in said["points"] if point["kind"] == "plan") == 3
    assert (run / "pareto.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("score", ["sketch", "weight_error", "isolated_ssim", "accumulated_mae", "fisher", "response"])
def test_a_plan_is_made_from_any_score(run: Path, score: str) -> None:
    """Its predicted damage is the sum of the score over the layers, where the score is not the sketch."""
    asked = ("plan", "--run", run, "--budget", "int4_group_64", "--score", score)
    shown = "" if score == "sketch" else cli(*asked).out
    if not shown:
        assert the_json(cli(*asked, "--json"))["score"] == score
    plan = load_plan(run / "plan.json")
    assert plan.score == score
    assert plan.size_bytes <= plan.budget_bytes
    if score == "sketch":
        return
    assert plan.policy == "optimal"
    assert set(plan.provenance["allowed_formats"]) == set(UNIFORM_SCHEMES)
    if score == "accumulated_mae":
        profile = open_profile(run)
        values = profile.scores["accumulated"]["mae"]
        rows = [values[row, profile.schemes.index(plan.formats[la.name])] for row, la in enumerate(profile.layers)]
        assert plan.total_damage == pytest.approx(sum(rows))
    assert "Planned from the score" in shown
    assert "knows the 7 uniform schemes alone" in shown
    if score != "fisher":  # none of the others is judged in another way
        return
    judged = cli("evaluate", "--run", run, "--repeats", 0, "--schemes", "none")
    assert judged.code == 0
    assert "predicted damage n/a" in (run / "comprehensive_report.txt").read_text()


def test_a_score_needs_a_profile_and_a_known_name(run: Path, model_folder: Path, tmp_path: Path) -> None:
    assert_refused(cli("plan", "--run", run, "--score", "fischer"), "unknown score 'fischer'", "did you mean fisher?")
    free = cli("plan", "--run", tmp_path / "my runs", "--model", model_folder, "--score", "fisher")
    assert_refused(free, "--score fisher", "has no profile", f"--run '{tmp_path}/my runs'")
    assert_refused(cli("plan", "--run", run, "--score", "fisher", "--policy", "joint"), "--policy joint")


def test_names_as_tables_print_them_are_taken(run: Path) -> None:
    name = "track_head.input_transform"
    cli("plan", "--run", run, "--budget", "60%", "--pin", f"{name}=int4_group_32", "--keep-fp", "frame.0 attn.proj")
    formats = load_plan(run / "plan.json").formats
    assert formats["track_head.tracker.updateformer.input_transform"] == "int4_group_32"
    assert formats["aggregator.frame_blocks.0.attn.proj"] == "fp16"
    shown = the_json(cli("inspect", name, "--run", run, "--json"))
    assert Path(shown["path"]).name == "layer-track_head.tracker.updateformer.input_transform.png"


@pytest.mark.parametrize(("command", "other"), [("plan", "profile"), ("evaluate", "profile")])
def test_commands_that_are_printed_can_be_typed(tmp_path: Path, command: str, other: str) -> None:
    run = tmp_path / "my runs" / "it's one"
    said = cli(command, "--run", run).err
    typed = said.partition("`")[2].partition("`")[0]
    assert shlex.split(typed) == ["python", "cli.py", other, "--run", str(run)]


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (("--pin", "nobody=int4_group_32"), ("--pin nobody=int4_group_32", "no layer matches")),
        (("--heads", "nose"), ("'nose'", "camera, depth, point, track")),
        (("--max-drop", "beauty=1"), ("'beauty=1'", "auc30")),
        (("--max-damage", "0"), ("--max-damage 0",)),
        (("--refine", "-1"), ("--refine -1",)),
        (("--refine", "3"), ("--refine", "two or more")),
        (("--inputs-add", "1"), ("--inputs-add", "--execute int8")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_refused(run: Path, options: tuple[str, ...], fragments: tuple[str, ...]) -> None:
    assert_refused(cli("plan", "--run", run, *options), *fragments)


def test_a_plan_for_whole_numbers_says_which_inputs_stay_and_is_executed_so(run: Path) -> None:
    """Nothing may be added here, so that all inputs stay."""
    formats = "int8_per_channel_sym,int4_two_level"
    asked = ("--budget", "60%", "--formats", formats, "--execute", "int8", "--inputs-add", "0")
    said = the_json(cli("plan", "--run", run, *asked, "--json"))
    kept = said["execution"]["kept"]
    assert said["execution"]["added"] == 0 < said["execution"]["without"]
    assert load_plan(run / "plan.json").executions == dict.fromkeys(kept, "bfloat16")
    executed = ("--execute", "int8", "--schemes", "none")
    judged = the_json(cli("evaluate", "--run", run, "--repeats", 0, *executed, "--json"))
    plan = next(row for row in judged["results"] if row["key"] == "plan")
    if plan["execution"]["layers"] != {"reference": plan["execution"]["layers"].get("reference")}:
        assert all(plan["execution"]["fell_back"][name] == "the plan keeps it in bfloat16" for name in kept)
    written = the_json(cli("export", "--run", run, "--json"))["path"]
    assert read_info(written).executions == dict.fromkeys(kept, "bfloat16")
    assert_refused(
        cli("plan", "--run", run, "--budget", "60%", "--formats", "int4_group_32", "--execute", "int8"), "does not run"
    )
