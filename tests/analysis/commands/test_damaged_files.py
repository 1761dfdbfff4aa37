"""Files that are not there, or not what they should be, or of another model, are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from safetensors.torch import load_file, save_file

from tests.analysis.commands.running import RESULTS, assert_refused, change_facts, cli, content
from vggtkit.core.seal import sealed
from vggtkit.quant import scale_count


@pytest.mark.parametrize("command", ["plan", "evaluate", "export", "report"])
def test_without_a_run_a_command_names_the_one_that_begins_it(tmp_path: Path, command: str) -> None:
    run = tmp_path / "new"
    assert_refused(cli(command, "--run", run), str(run), f"python cli.py profile --run {run}")
    assert not run.exists()


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_without_a_plan(run: Path, command: str) -> None:
    (run / "plan.json").unlink()
    assert_refused(cli(command, "--run", run), "plan.json", f"python cli.py plan --run {run}")


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.999], ids=str)
@pytest.mark.parametrize("command", ["plan", "evaluate", "export"])
def test_truncated_profile(run: Path, command: str, kept: float) -> None:
    whole = (run / "profile.h5").read_bytes()
    (run / "profile.h5").write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    assert_refused(cli(command, "--run", run), "profile.h5", "python cli.py profile")


Edit = Callable[[dict[str, dict[str, object]]], object]
FIRST = "aggregator.patch_embed.patch_embed.proj"


def rename_layer(plan: dict[str, dict[str, object]]) -> None:
    for part in (plan["formats"], plan["layer_bytes"]):
        part["no.such.layer"] = part.pop(FIRST)


TAMPERED: dict[str, tuple[Edit, str]] = {
    "format": (lambda plan: plan["formats"].update({FIRST: "fp32"}), FIRST),
    "bytes": (lambda plan: plan["layer_bytes"].update({FIRST: 1}), "size_bytes"),
    "layer-unknown": (rename_layer, "layers have no format"),
    "layer-extra": (lambda plan: plan["formats"].update({"no.such.layer": "fp16"}), "no.such.layer"),
    "format-unknown": (lambda plan: plan["formats"].update({FIRST: "int5"}), "int5"),
    "other-model": (lambda plan: plan.update({"model_fingerprint": "0" * 16}), "0" * 16),
    "other-profile": (lambda plan: plan["provenance"].update({"scene_fingerprint": "f" * 16}), "f" * 16),
}


@pytest.mark.parametrize(("edit", "message"), TAMPERED.values(), ids=TAMPERED)
@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_tampered_or_foreign_plan(run: Path, command: str, edit: Edit, message: str) -> None:
    plan = json.loads((run / "plan.json").read_text())
    assert FIRST in plan["formats"]
    edit(plan)
    before = content(run)
    for text, said in ((json.dumps(plan), "plan.json"), (json.dumps(sealed(plan)), message)):
        (run / "plan.json").write_text(text)
        assert_refused(cli(command, "--run", run), said)
        assert content(run) == before | {"plan.json": text.encode()}


def test_without_verification_digests_alone_are_not_asked_for(run: Path) -> None:
    """Here a seed in the profile, a policy in the plan; bytes that are not those of the file are refused still."""
    with h5py.File(run / "profile.h5", "r+") as file:
        file.attrs["seed"] = 4
    plan = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps(plan | {"policy": "guess"}))
    assert_refused(cli("export", "--run", run), "plan.json", "digest is not that of its content")
    assert cli("export", "--run", run, "--no-verify").code == 0
    (run / "plan.json").write_text(json.dumps(plan | {"overhead_bytes": 1}))
    assert_refused(cli("export", "--run", run, "--no-verify"), "plan.json", "size_bytes")
    assert_refused(cli("plan", "--run", run), "profile.h5", "digest is not that of its content")
    assert cli("plan", "--run", run, "--no-verify").code == 0


def give_scales_in_fp32(plan: dict[str, dict[str, object]]) -> None:
    """Bytes that the format could have, but has not for these weights."""
    name = "camera_head.pose_branch.fc1"
    more = 2 * scale_count((16, 32), plan["formats"][name])
    assert more > 0
    plan["layer_bytes"][name] += more
    for total in ("size_bytes", "budget_bytes"):
        plan[total] += more


LIES: dict[str, tuple[Edit, str]] = {
    "size": (lambda plan: plan.update(size_bytes=plan["size_bytes"] - 8), "size_bytes"),
    "overhead": (
        lambda plan: plan.update(size_bytes=plan["size_bytes"] - 8, overhead_bytes=plan["overhead_bytes"] - 8),
        "bytes beside its layers' weights",
    ),
    "keep": (lambda plan: plan.update(keep="fp32"), "bytes beside its layers' weights"),
    "below-bound": (lambda plan: plan.update(total_damage=0.9 * plan["bound"]), "below its bound"),
    "not-optimal": (
        lambda plan: plan.update(total_damage=1.1 * plan["bound"], optimal=True), "called optimal, and not at its bound"
    ),
    "over-budget": (lambda plan: plan.update(budget_bytes=plan["size_bytes"] - 1), "over its budget_bytes"),
    "layer-with-fp32-scales": (give_scales_in_fp32, "pose_branch.fc1 counts"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), LIES.values(), ids=LIES)
@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_plan_that_lies_is_refused_with_a_digest_of_its_own_too(
    run: Path, command: str, edit: Edit, message: str
) -> None:
    plan = json.loads((run / "plan.json").read_text())
    edit(plan)
    (run / "plan.json").write_text(json.dumps(sealed(plan)))
    assert_refused(cli(command, "--run", run), message)


def test_results_that_have_changed_are_not_shown(run: Path) -> None:
    text = (run / RESULTS[0]).read_text()
    results = json.loads(text)
    results["results"][1]["damage"] /= 2
    (run / RESULTS[0]).write_text(json.dumps(results))
    assert_refused(cli("report", "--run", run), RESULTS[0], "digest", "python cli.py evaluate")


@pytest.mark.parametrize("text", ["", "[]", '{"results": 3}', "\x00"], ids=["empty", "list", "wrong", "binary"])
def test_damaged_results(run: Path, text: str) -> None:
    (run / RESULTS[0]).write_text(text)
    assert_refused(cli("report", "--run", run), RESULTS[0], "python cli.py evaluate", str(run / "report.html"))
    assert "There is no evaluation in this run" in (run / "report" / "5_conclusions.md").read_text()
    assert "most sensitive layers" in (run / "report" / "4_analysis.md").read_text()
    assert (run / "report" / "3_results" / RESULTS[0]).read_text() != text
    assert (run / RESULTS[0]).read_text() == text


def changed_model(source: Path, folder: Path, value: float) -> Path:
    shutil.copytree(source, folder)
    state = load_file(folder / "model.safetensors")
    state["camera_head.pose_branch.fc1.weight"][0, 0] = value
    save_file(state, folder / "model.safetensors")
    return folder


def test_weights_with_nan(model_folder: Path, tmp_path: Path) -> None:
    damaged = changed_model(model_folder, tmp_path / "model", float("nan"))
    ran = cli("profile", "--run", tmp_path / "run", "--model", damaged, "--num-scenes", 1, "--views", 1)
    assert_refused(ran, "NaN")
    assert not (tmp_path / "run" / "profile.h5").exists()


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_weights_that_changed_since_the_profile(run: Path, model_folder: Path, tmp_path: Path, command: str) -> None:
    changed = changed_model(model_folder, tmp_path / "model", 0.5)
    change_facts(run, model=str(changed))
    assert_refused(cli(command, "--run", run), "model fingerprint", str(changed))
