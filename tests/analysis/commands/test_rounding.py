"""Plans whose codes are chosen with the profiled scenes: planned, judged, written, the same codes everywhere."""

import json
import shutil
from pathlib import Path

import h5py
import pytest
import torch

from mixedprec import load_plan, load_quantized, quantized_weights, rounding_in_passes
from mixedprec.checkpoint import read_weights
from sensitivity import open_profile
from sensitivity.hdf5 import DIGEST, content_digest
from sensitivity.moments import NOT_FINITE, Moments
from tests.analysis.commands.running import RESULTS, assert_refused, cli, the_json
from vggtkit.model import load_vggt
from vggtkit.quant import dequantize
from vggtkit.scenes import synthetic_scenes


@pytest.fixture
def run(calibrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(calibrated, tmp_path / "run"))


def damage_of_plan(run: Path) -> float:
    results = json.loads((run / RESULTS[0]).read_text())["results"]
    return next(float(row["damage"]) for row in results if row["key"] == "plan")


@pytest.mark.slow
def test_what_is_judged_is_what_is_written(run: Path, model_folder: Path) -> None:
    plan = ("plan", "--run", run, "--budget", "int4_group_64", "--json")
    damages = {}
    for rounding in ("nearest", "gptq", "sequential_gptq", "joint_descent", "output_gptq"):
        said = the_json(cli(*plan, "--rounding", rounding))
        assert load_plan(run / "plan.json").rounding == said["rounding"] == rounding
        assert cli("evaluate", "--run", run, "--repeats", 0).code == 0
        damages[rounding] = damage_of_plan(run)
    assert len(set(damages.values())) == 5
    assert "plan (optimal, output_gptq)" in (run / RESULTS[1]).read_text()
    path = run / "model-plan.safetensors"
    judged = path.read_bytes()
    exported = the_json(cli("export", "--run", run, "--json"))
    assert path.read_bytes() == judged
    assert exported["size_bytes"] == len(judged) == said["size_bytes"]
    model = load_vggt(model_folder)
    formats = load_plan(run / "plan.json").formats
    ours, nearest = read_weights(path, model), quantized_weights(model, formats)
    assert {name: q.format.key for name, q in ours.items()} == formats
    assert sum(dequantize(ours[name]).equal(dequantize(q)) for name, q in nearest.items()) < len(formats) / 2
    scene = synthetic_scenes(1, 2, (32, 32), seed=5, split="evaluation")[0]
    with torch.no_grad():
        assert load_quantized(path)(scene.images, scene.query_points)["depth"].isfinite().all()


def test_biases_that_are_given_are_counted_and_stored(run: Path) -> None:
    """The dense heads of a VGGT have convolutions without a bias: the budget holds with what they are given."""
    plan, path = ("plan", "--run", run, "--budget", "int4_group_64", "--json"), run / "model-plan.safetensors"
    plain, said = (the_json(cli(*plan, "--rounding", rounding)) for rounding in ("gptq", "gptq_bias"))
    assert said["budget_bytes"] > plain["budget_bytes"]  # that of a scheme is the file that it would make
    assert load_plan(run / "plan.json").size_bytes == said["size_bytes"] <= said["budget_bytes"]
    tight = the_json(cli(*plan[:3], "--budget", f"{plain['size_bytes']}B", "--rounding", "gptq_bias", "--json"))
    assert tight["size_bytes"] <= plain["size_bytes"]
    exported = the_json(cli("export", "--run", run, "--json"))
    assert exported["size_bytes"] == path.stat().st_size == tight["size_bytes"]
    module = load_quantized(path).get_submodule("depth_head.scratch.layer1_rn")
    assert bool(module.bias.any())
    assert cli("evaluate", "--run", run, "--repeats", 0).code == 0
    rows = json.loads((run / RESULTS[0]).read_text())["results"]
    assert next(row["size_bytes"] for row in rows if row["key"] == "plan") == tight["size_bytes"]


def test_a_checkpoint_of_another_plan_or_damaged_is_made_anew(run: Path) -> None:
    path = run / "model-plan.safetensors"
    plan = ("plan", "--run", run, "--rounding", "mse", "--heads", "camera", "--budget")
    assert cli(*plan, "int4_group_64").code == 0
    assert cli("export", "--run", run).code == 0
    first = path.read_bytes()
    assert cli(*plan, "70%").code == 0
    assert cli("export", "--run", run).code == 0
    assert path.read_bytes() != first
    good = path.read_bytes()
    path.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    assert cli("export", "--run", run).code == 0
    assert path.read_bytes() == good


@pytest.mark.parametrize("rounding", ["mse", "gptq"])
def test_it_takes_a_profile(rounding: str, model_folder: Path, tmp_path: Path) -> None:
    ran = cli("plan", "--run", tmp_path / "run", "--model", model_folder, "--rounding", rounding)
    assert_refused(ran, f"--rounding {rounding}", "profile")


def test_an_unknown_rounding_is_refused(run: Path) -> None:
    assert_refused(cli("plan", "--run", run, "--rounding", "gptk"), "unknown rounding 'gptk'", "did you mean gptq?")


def test_by_itself_a_plan_is_made_for_what_the_profile_scored(run: Path) -> None:
    said = the_json(cli("plan", "--run", run, "--json"))
    plan = load_plan(run / "plan.json")
    assert (said["rounding"], plan.policy, plan.provenance["damage_of"]) == ("descent", "optimal", "gptq")
    nearest = the_json(cli("plan", "--run", run, "--rounding", "nearest", "--json"))
    assert nearest["rounding"] == "nearest"
    assert "damage_of" not in load_plan(run / "plan.json").provenance
    assert float(str(said["predicted_damage"])) < float(str(nearest["predicted_damage"]))
    smallest = the_json(
        cli("plan", "--run", run, "--max-damage", 1, "--json")
    )  # measures what is rounded to the nearest
    assert smallest["rounding"] == "nearest"


def test_without_that_it_is_rounded_to_the_nearest(run: Path) -> None:
    """As in profiles of before, and of `profile --rounding nearest`."""
    with h5py.File(run / "profile.h5", "a") as file:
        del file["roundings"]
        file.attrs[DIGEST] = content_digest(file)
    assert the_json(cli("plan", "--run", run, "--json"))["rounding"] == "nearest"
    ran = cli("plan", "--run", run, "--rounding", "gptq")
    assert "The predicted damage is that of rounding to the nearest" in " ".join(ran.out.split())


def test_a_profile_scores_only_what_it_can(model_folder: Path, tmp_path: Path) -> None:
    ran = cli("profile", "--model", model_folder, "--run", tmp_path / "run", "--rounding", "output_gptq")
    assert_refused(ran, "--rounding output_gptq", "auto, gptq, nearest")


def test_layers_that_cannot_be_calibrated_are_named_one_by_one(run: Path) -> None:
    with h5py.File(run / "profile.h5", "a") as file:
        for row in (0, 3):
            file["roundings/gptq"][row] = float("nan")  # as of inputs that are all zeros, or not finite
        file.attrs[DIGEST] = content_digest(file)
    layers = [layer.name for layer in open_profile(run).layers]
    only_int4 = ("plan", "--run", run, "--formats", "int4_group_32", "--policy", "optimal", "--budget", "100%")
    said = the_json(cli(*only_int4, "--json"))
    reasons = load_plan(run / "plan.json").provenance["uncalibrated"]
    assert said["uncalibrated"] == reasons
    assert list(reasons) == [layers[0], layers[3]]
    assert all("all zeros or not finite" in reason for reason in reasons.values())
    shown = cli(*only_int4).out
    assert "2 layers that cannot be calibrated" in shown
    assert all(name in shown for name in reasons)
    nearest = the_json(cli(*only_int4, "--rounding", "nearest", "--json"))
    assert "uncalibrated" not in nearest


def test_what_is_rounded_to_the_nearest_all_the_same_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("plan", "--run", run, "--rounding", "gptq").code == 0
    get = Moments.why_unusable
    formats = load_plan(run / "plan.json").formats
    layer = next(name for name, key in formats.items() if key != "fp16")
    monkeypatch.setattr(Moments, "why_unusable", lambda self, name: NOT_FINITE if name == layer else get(self, name))
    ran = cli("export", "--run", run)
    assert ran.code == 0
    assert f"{layer} is rounded to the nearest: its inputs are not finite" in ran.err


def test_an_export_that_was_stopped_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("plan", "--run", run, "--rounding", "output_gptq", "--heads", "camera").code == 0
    path, whole = run / "model-plan.safetensors", ("export", "--run", run)
    assert cli(*whole).code == 0
    expected = path.read_bytes()
    path.unlink()
    rounded_layer = rounding_in_passes.rounded_layer
    count = 0

    def stopped(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return rounded_layer(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rounding_in_passes, "rounded_layer", stopped)
        assert cli(*whole).code == 130
    ran = cli(*whole)
    assert ran.code == 0
    assert "rounding goes on where it stopped: 4 of" in ran.err
    assert path.read_bytes() == expected
    assert not list(run.glob("*.parts"))


@pytest.mark.slow
def test_a_plan_that_workers_round_is_that_of_one(run: Path) -> None:
    """The same file, and the same best of several plans."""
    plan, path = ("plan", "--run", run, "--budget", "int4_group_64"), run / "model-plan.safetensors"
    files, bests = [], []
    for workers in (1, 2):
        bests.append(the_json(cli(*plan, "--best-of", 2, "--workers", workers, "--json"))["candidates"])
        path.unlink(missing_ok=True)
        assert cli("export", "--run", run, "--workers", workers).code == 0
        files.append(path.read_bytes())
    assert files[0] == files[1]
    assert bests[0] == bests[1]
