"""The command line from end to end, on the tiniest VGGT: files, JSON, and refusals in one line."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import h5py
import pytest
import torch
from safetensors.torch import load_file, save_file

from analysis import pipeline
from analysis.results import from_json
from cli import HELP_WIDTH, main
from docs.generate_cli import COMMANDS, PAGE, page
from mixedprec import load_plan, load_quantized
from sensitivity import open_profile

RESULTS = ("comprehensive_results.json", "comprehensive_report.txt", "comprehensive_visualizations.png")


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def cli(*arguments: object) -> Ran:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main([str(argument) for argument in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def the_json(ran: Ran) -> dict[str, object]:
    """The one strict JSON document that the command printed."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    assert ran.code == 0, ran.err
    assert ran.out.count("\n") == 1
    return json.loads(ran.out, parse_constant=refuse)


def assert_refused(ran: Ran, *fragments: str) -> None:
    """Exit code 2 and one line that says all of these; a profile may have been announced before."""
    said = [line for line in ran.err.splitlines() if not line.startswith("profiling ")]
    assert (ran.code, ran.out) == (2, "")
    assert len(said) == 1
    assert said[0].startswith("error: ")
    for fragment in fragments:
        assert fragment in said[0]


def draw_nothing(_evaluation: object, path: Path) -> None:
    """The charts have tests of their own, and take their time."""
    path.touch()


@pytest.fixture(scope="module")
def finished(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Ran]]:
    """A run with all its files, and what every command printed; not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    steps = {
        "profile": ("--model", model_folder, "--num-scenes", 1, "--views", 2, "--probes", 1, "--seed", 3),
        "plan": (),
        "evaluate": ("--repeats", 1),
        "export": (),
    }
    printed = {name: cli(name, *options, "--run", run, "--json") for name, options in steps.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.plots, "draw", lambda _evaluation, path: path.write_bytes(charts))
        charts = (run / RESULTS[2]).read_bytes()
        printed["report"] = cli("report", "--run", run, "--json")
    return run, printed


@pytest.fixture
def run(finished: tuple[Path, dict[str, Ran]], tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# The way through


def test_a_run_has_its_files_and_no_others(finished: tuple[Path, dict[str, Ran]]) -> None:
    made = {path.name for path in finished[0].iterdir()}
    assert made == {"profile.h5", "plan.json", "model-plan.safetensors", "model-plan.json", *RESULTS}


def test_every_command_prints_one_json_document(finished: tuple[Path, dict[str, Ran]]) -> None:
    values = {name: the_json(ran) for name, ran in finished[1].items()}
    assert values["evaluate"] == values["report"]
    assert [row["key"] for row in values["evaluate"]["results"]][::8] == ["fp32", "plan"]
    assert {"layers", "schemes", "most_sensitive"} <= values["profile"].keys()


def test_only_profile_says_something_beside_its_json(finished: tuple[Path, dict[str, Ran]]) -> None:
    said = {name: ran.err.count("\n") for name, ran in finished[1].items()}
    assert said == {"profile": 1, "plan": 0, "evaluate": 0, "export": 0, "report": 0}


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


def test_photographs_from_profile_to_evaluation(
    model_folder: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the spellings of the options that others use."""
    monkeypatch.setattr(pipeline.plots, "draw", draw_nothing)
    run = tmp_path / "photos"
    common = ("--output_dir", run, "--json")
    small = ("--probes", 1, "--max_images", 4)
    profiled = cli("profile", "--model_name", model_folder, "--image_folder", photo_folder, *small, *common)
    assert profiled.err.count("on 1 scene of 2 pictures of (24, 32)") == 1
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
    monkeypatch.setattr(pipeline.plots, "draw", draw_nothing)
    monkeypatch.setattr(pipeline, "make_profile", lambda run, *_, **__: open_profile(run))
    monkeypatch.setattr(pipeline, "make_evaluation", lambda run, *_, **__: pipeline.show_evaluation(run))
    values = the_json(cli("demo", "--run", run, "--json"))
    assert list(values) == ["profile", "plan", "evaluate"]
    assert values["evaluate"]["path"] == str(run / RESULTS[0])


# Options and help


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_common_options_stand_before_or_after_the_command(tmp_path: Path, before: bool) -> None:
    def placed(option: str, *command: object) -> tuple[object, ...]:
        return (option, *command) if before else (*command, option)

    assert "fp16" in the_json(cli(*placed("--json", "formats")))
    debugged = cli(*placed("--debug", "plan", "--run", tmp_path))
    assert debugged.code == 2
    assert debugged.err.startswith("Traceback")
    assert debugged.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_all_options_and_examples(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = cli(command, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert max(map(len, shown.out.splitlines())) <= HELP_WIDTH
    assert f"python cli.py {command}" in shown.out.partition("Examples:")[2]
    for option in ("--json", "--debug", *(["--run, --output_dir DIR"] if command != "formats" else [])):
        assert option in shown.out


def test_no_arguments_show_the_help() -> None:
    assert cli() == cli("--help")


def test_the_page_of_the_documentation_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bogus",), "'bogus'"),
        (("plan", "--bogus"), "--bogus"),
        (("plan", "--budget"), "--budget"),
        (("profile", "--num-scenes", "many"), "--num-scenes"),
    ],
)
def test_a_command_line_that_cannot_be_parsed(arguments: tuple[str, ...], message: str) -> None:
    assert_refused(cli(*arguments), message, "--help")


def test_our_own_fault_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> NoReturn:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(pipeline, "formats_view", fail)
    assert cli("formats") == Ran(1, "", "internal error: RuntimeError: first line second line; --debug shows where\n")


def test_out_of_memory_has_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> NoReturn:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(pipeline, "formats_view", fail)
    assert_refused(cli("formats"), "out of memory", "--max-images")


# Interrupted


@pytest.mark.parametrize("moment", ["computing", "drawing"])
def test_interrupted_evaluation_leaves_the_earlier_files(
    run: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def interrupt(*_arguments: object) -> NoReturn:
        raise KeyboardInterrupt

    target = (sys.modules["analysis.evaluate"], "average") if moment == "computing" else (pipeline.plots, "draw")
    monkeypatch.setattr(*target, interrupt)
    before = content(run)
    ran = cli("evaluate", "--run", run, "--repeats", 0)
    assert (ran.code, ran.out, ran.err.count("\n")) == (130, "", 1)
    assert content(run) == before


def test_interrupted_profile_leaves_the_earlier_one(
    run: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object, **_options: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("sensitivity.profiler._side_by_side", interrupt)
    before = content(run)
    assert cli("profile", "--run", run, "--model", model_folder, "--num-scenes", 1, "--views", 1).code == 130
    assert content(run) == before


# Files that are not there, or not what they should be


@pytest.mark.parametrize("command", ["plan", "evaluate", "export", "report"])
def test_without_the_file_it_needs_a_command_names_the_one_that_makes_it(tmp_path: Path, command: str) -> None:
    maker = "evaluate" if command == "report" else "profile"
    run = tmp_path / "new"
    assert_refused(cli(command, "--run", run), str(run), f"python cli.py {maker} --run {run}")
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
    (run / "plan.json").write_text(json.dumps(plan))
    before = content(run)
    assert_refused(cli(command, "--run", run), message)
    assert content(run) == before


@pytest.mark.parametrize("text", ["", "[]", '{"results": 3}', "\x00"], ids=["empty", "list", "wrong", "binary"])
def test_damaged_results(run: Path, text: str) -> None:
    (run / RESULTS[0]).write_text(text)
    assert_refused(cli("report", "--run", run), RESULTS[0], "python cli.py evaluate")


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
    with h5py.File(run / "profile.h5", "a") as file:
        file.attrs["model"] = str(changed)
    assert_refused(cli(command, "--run", run), "model fingerprint", str(changed))


# Values that cannot be


PROFILE = ("profile", "--run", "{new}", "--model", "{model}")
OF_RUN: dict[str, tuple[str, ...]] = {name: (name, "--run", "{run}") for name in ("plan", "evaluate", "export")}
REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "budget-unit": ((*OF_RUN["plan"], "--budget", "12parsecs"), ("12parsecs", "600MB")),
    "budget-negative": ((*OF_RUN["plan"], "--budget=-5MB"), ("-5MB",)),
    "budget-scheme": ((*OF_RUN["plan"], "--budget", "int9"), ("int9",)),
    "budget-small": ((*OF_RUN["plan"], "--budget", "1KB"), ("1KB", "needs", "raise the budget")),
    "policy": ((*OF_RUN["plan"], "--policy", "greedy"), ("greedy", "optimal", "sensitive")),
    "formats": ((*OF_RUN["plan"], "--formats", "int5"), ("int5", "int4_group_128")),
    "keep": ((*OF_RUN["plan"], "--keep", "int8"), ("int8", "fp16")),
    "scheme": ((*OF_RUN["export"], "--scheme", "int5"), ("int5", "int4_group_128")),
    "scheme-path": ((*OF_RUN["export"], "--scheme", "../plan"), ("../plan",)),
    "repeats": ((*OF_RUN["evaluate"], "--repeats", "-1"), ("--repeats -1",)),
    "evaluate-device": ((*OF_RUN["evaluate"], "--device", "tpu"), ("--device tpu", "cpu")),
    "evaluate-num-scenes": ((*OF_RUN["evaluate"], "--num-scenes", "-1"), ("--num-scenes -1",)),
    "evaluate-images": ((*OF_RUN["evaluate"], "--images", "{new}"), ("{new}", "does not exist")),
    "evaluate-both": ((*OF_RUN["evaluate"], "--images", "{photos}", "--scenes", "synthetic"), ("--images", "--scenes")),
    "both": ((*PROFILE, "--images", "{photos}", "--scenes", "synthetic"), ("--images", "--scenes")),
    "device": ((*PROFILE, "--device", "tpu"), ("--device tpu", "auto")),
    "weights": ((*PROFILE, "--weights", "stolen"), ("--weights stolen",)),
    "model": (("profile", "--run", "{new}", "--model", "huge"), ("--model huge", "tiny")),
    "model-path": (("profile", "--run", "{new}", "--model", "./huge"), ("--model ./huge",)),
    "model-empty-folder": (("profile", "--run", "{new}", "--model", "{photos}"), ("{photos}", "model.safetensors")),
    "images": ((*PROFILE, "--images", "{new}"), ("{new}", "does not exist")),
    "images-empty-name": ((*PROFILE, "--images", ""), ("--images DIR",)),
    "images-without-pictures": ((*PROFILE, "--images", "{model}"), ("{model}", "no photographs")),
    "images-broken": ((*PROFILE, "--images", "{broken}"), ("3.png",)),
    "scenes": ((*PROFILE, "--scenes", "movie"), ("movie", "synthetic")),
    "probes": ((*PROFILE, "--probes", "0"), ("--probes 0",)),
    "num-scenes": ((*PROFILE, "--num-scenes", "0"), ("--num-scenes 0",)),
    "views": ((*PROFILE, "--views", "-1"), ("--views -1",)),
    "max-images": ((*PROFILE, "--images", "{photos}", "--max-images", "0"), ("--max-images 0",)),
    "seed": ((*PROFILE, "--seed", str(2**64)), ("--seed", "4294967295")),
    "disk-budget": ((*PROFILE, "--disk-budget", "1KB"), ("--disk-budget",)),
    "disk-budget-unit": ((*PROFILE, "--disk-budget", "12parsecs"), ("--disk-budget", "12parsecs")),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "messages"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(
    run: Path,
    model_folder: Path,
    photo_folder: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    messages: tuple[str, ...],
) -> None:
    broken = Path(shutil.copytree(photo_folder, tmp_path / "broken"))
    (broken / "3.png").write_bytes((broken / "3.png").read_bytes()[:60])
    names = {"run": run, "new": tmp_path / "new", "model": model_folder, "photos": photo_folder, "broken": broken}
    before = content(run)
    ran = cli(*(argument.format(**names) for argument in arguments))
    assert_refused(ran, *(message.format(**names) for message in messages))
    assert content(run) == before
    assert not (tmp_path / "new" / "profile.h5").exists()


@pytest.mark.parametrize("command", ["profile", "plan", "evaluate", "export", "report"])
@pytest.mark.parametrize("place", ["file", "below-file", "/proc/run"])
def test_run_folder_that_cannot_be_written(model_folder: Path, tmp_path: Path, command: str, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    run = {"file": tmp_path / "file", "below-file": tmp_path / "file" / "run"}.get(place, Path(place))
    if not run.anchor or (place.startswith("/proc") and not Path("/proc/self").exists()):
        pytest.skip("no /proc on this system")
    options = ("--model", model_folder) if command == "profile" else ()
    assert_refused(cli(command, "--run", run, *options), f"--run {run}", "cannot be written")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_single_photograph_leaves_nothing_to_evaluate(run: Path, photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(photo_folder / "0.png", tmp_path / "one")
    with h5py.File(run / "profile.h5", "a") as file:
        file.attrs["scene_source"] = json.dumps({"kind": "photos", "folder": str(tmp_path / "one")})
    assert_refused(cli("evaluate", "--run", run), "single photograph", "--images")
    assert_refused(cli("evaluate", "--run", run, "--images", tmp_path / "one"), "single photograph", "--images")


def test_evaluation_on_the_calibration_pictures_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = pipeline.load_scenes
    monkeypatch.setattr(pipeline, "load_scenes", lambda source, _split, **sizes: load(source, "calibration", **sizes))
    assert_refused(cli("evaluate", "--run", run), "calibration scenes")
