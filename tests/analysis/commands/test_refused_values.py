"""Values that cannot be, and scenes that leave nothing to evaluate, are refused."""

import json
import shutil
from pathlib import Path

import pytest

from analysis.steps import run_folder
from tests.analysis.commands.running import assert_refused, change_facts, cli, content
from vggtkit.scenes import SceneSource, picture_digests

PROFILE = ("profile", "--run", "{new}", "--model", "{model}")
OF_RUN: dict[str, tuple[str, ...]] = {name: (name, "--run", "{run}") for name in ("plan", "evaluate", "export")}
REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "budget-unit": ((*OF_RUN["plan"], "--budget", "12parsecs"), ("12parsecs", "600MB")),
    "budget-negative": ((*OF_RUN["plan"], "--budget=-5MB"), ("-5MB",)),
    "budget-scheme": ((*OF_RUN["plan"], "--budget", "int9"), ("int9",)),
    "budget-half-named": ((*OF_RUN["plan"], "--budget", "int4"), ("'int4'", "nor is it one", "int4_group_128")),
    "budget-small": ((*OF_RUN["plan"], "--budget", "1KB"), ("1KB", "needs", "raise the budget")),
    "policy": ((*OF_RUN["plan"], "--policy", "greedy"), ("greedy", "optimal", "sensitive")),
    "formats": ((*OF_RUN["plan"], "--formats", "int7"), ("int7", "int4_group_128")),
    "keep": ((*OF_RUN["plan"], "--keep", "int8"), ("int8", "fp16")),
    "scheme": ((*OF_RUN["export"], "--scheme", "int5"), ("int5", "int4_group_128")),
    "scheme-path": ((*OF_RUN["export"], "--scheme", "../plan"), ("../plan",)),
    "repeats": ((*OF_RUN["evaluate"], "--repeats", "-1"), ("--repeats -1",)),
    "evaluate-alignment": ((*OF_RUN["evaluate"], "--depth-alignment", "mean"), ("mean", "scale_shift")),
    "evaluate-execute": ((*OF_RUN["evaluate"], "--execute", "tpu"), ("tpu", "reference", "int8")),
    "evaluate-resident": ((*OF_RUN["evaluate"], "--resident", "int4"), ("--resident int4", "packed")),
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
    "images": ((*PROFILE, "--images", "{new}/photos"), ("{new}/photos", "does not exist")),
    "images-empty-name": ((*PROFILE, "--images", ""), ("--images DIR",)),
    "images-without-pictures": ((*PROFILE, "--images", "{model}"), ("{model}", "no photographs")),
    "images-broken": ((*PROFILE, "--images", "{broken}"), ("3.png",)),
    "scenes": ((*PROFILE, "--scenes", "movie"), ("movie", "synthetic")),
    "probes": ((*PROFILE, "--probes", "-1"), ("--probes -1",)),
    "dtype": ((*PROFILE, "--dtype", "int8"), ("--dtype int8", "bf16")),
    "dtype-cpu": ((*PROFILE, "--dtype", "fp16", "--device", "cpu"), ("--dtype fp16", "bf16")),
    "resolution": ((*PROFILE, "--resolution", "33"), ("--resolution 33", "patch size 8", "give 32")),
    "resolution-zero": ((*PROFILE, "--resolution", "0"), ("--resolution 0",)),
    "roles": ((*PROFILE, "--roles", "{broken}"), ("--roles", "TOML")),
    "inputs": ((*PROFILE, "--inputs", "nowhere.at_all:pictures"), ("--inputs nowhere.at_all:pictures", "imported")),
    "factory": (("profile", "--run", "{new}", "--model", "torch.nn:Nothing"), ("torch.nn:Nothing", "imported")),
    "factory-no-model": (("profile", "--run", "{new}", "--model", "pathlib:Path"), ("no torch.nn.Module",)),
    "num-scenes": ((*PROFILE, "--num-scenes", "0"), ("--num-scenes 0",)),
    "views": ((*PROFILE, "--views", "-1"), ("--views -1",)),
    "max-images": ((*PROFILE, "--images", "{photos}", "--max-images", "0"), ("--max-images 0",)),
    "stride": ((*PROFILE, "--images", "{photos}", "--stride", "0"), ("--stride 0",)),
    "sampling": ((*PROFILE, "--images", "{photos}", "--sampling", "best"), ("best", "runs or random")),
    "stride-of-rooms": ((*PROFILE, "--stride", "2"), ("--stride", "--images")),
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
    change_facts(run, scene_source=json.dumps({"kind": "photos", "folder": str(tmp_path / "one")}))
    assert_refused(cli("evaluate", "--run", run), "single photograph", "--images")
    assert_refused(cli("evaluate", "--run", run, "--images", tmp_path / "one"), "single photograph", "--images")


def test_evaluation_on_the_calibration_pictures_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = run_folder.scenes_for
    monkeypatch.setattr(run_folder, "scenes_for", lambda subject, source, _split: load(subject, source, "calibration"))
    assert_refused(cli("evaluate", "--run", run), "scenes to judge on were profiled")


def test_evaluation_never_reaches_into_the_profiled_pictures(run: Path, photo_folder: Path) -> None:
    """Of eight, 0 1 and 4 5 were profiled; every other one in pairs is 0 2 for calibration and 4 6 for evaluation."""
    source = SceneSource("photos", str(photo_folder))
    digests = json.dumps(sorted(picture_digests(source, "calibration")))
    change_facts(run, scene_source=json.dumps({"kind": "photos", "folder": source.folder}), picture_digests=digests)
    assert_refused(cli("evaluate", "--run", run, "--stride", 2), "1 of the", "'4.png'", "--stride")
