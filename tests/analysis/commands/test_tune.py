"""The command ``tune``: from a plan to a checkpoint that every other command takes."""

import json
from pathlib import Path

import pytest
import torch

from analysis.evaluation.evaluator import Evaluator
from mixedprec import load_plan, load_quantized
from mixedprec.checkpoint import read_info, read_weights
from mixedprec.tuning import TuningForecast, distillation
from tests.analysis.commands.other_models import encoder
from tests.analysis.commands.running import RESULTS, Ran, assert_refused, cli, content, the_json
from vggtkit.model import load_vggt
from vggtkit.quant import dequantize
from vggtkit.scenes import SceneSource, load_scenes
from vggtkit.subject import subject_of

SMALL = ("--num-scenes", 4, "--select", 2, "--views", 2)
TUNE = (*SMALL, "--block-steps", 2, "--steps", 4, "--rate", 0.01, "--scale-rate", 0.003)


@pytest.fixture
def planned(run: Path) -> Path:
    assert cli("plan", "--run", run, "--budget", "int4_group_64", "--rounding", "gptq").code == 0
    return run


@pytest.fixture
def cameras(run: Path) -> Path:
    """Planned with one head, which is enough where it is about the course of a tuning."""
    plan = ("plan", "--run", run, "--budget", "int4_group_64", "--rounding", "mse", "--heads", "camera")
    assert cli(*plan).code == 0
    return run


def judged(run: Path, model: Path) -> float:
    """Damage on the selection scenes of what the checkpoint computes."""
    subject = subject_of(load_vggt(model))
    scenes = load_scenes(SceneSource("synthetic", count=4, views=2, seed=3), "calibration", img_size=32, patch_size=8)
    evaluator = Evaluator(subject, scenes[-2:])
    loaded = subject_of(load_quantized(run / "model-plan.safetensors"))
    return evaluator.compare([loaded.predict(scene) for scene in scenes[-2:]]).damage


def test_tuned_weights_are_judged_written_and_loaded(planned: Path, model_folder: Path) -> None:
    assert cli("export", "--run", planned).code == 0
    path = planned / "model-plan.safetensors"
    size, start = path.stat().st_size, read_weights(path, load_vggt(model_folder))
    before = judged(planned, model_folder)
    said = the_json(cli("tune", "--run", planned, *TUNE, "--json"))
    plan = load_plan(planned / "plan.json")
    assert said["damage_before"] == pytest.approx(before, rel=1e-6)
    assert said["damage_after"] == pytest.approx(judged(planned, model_folder), rel=1e-6)
    assert said["damage_after"] < before
    assert path.stat().st_size == size == said["size_bytes"]
    assert plan.rounding == "gptq"
    assert plan.tuned["scenes"] == 2 and plan.tuned["selection_scenes"] == 2 and plan.tuned["steps"] == 4
    note = read_info(path).note["tuned"]
    assert (note["damage_before"], note["damage_after"]) == (said["damage_before"], said["damage_after"])
    assert not (planned / "model-plan.safetensors.parts").exists()
    ours = read_weights(path, load_vggt(model_folder))
    assert not all(torch.equal(dequantize(q), dequantize(start[name])) for name, q in ours.items())
    written = path.read_bytes()
    evaluated = cli("evaluate", "--run", planned, "--repeats", 0, "--schemes", "none")
    assert evaluated.code == 0
    assert "The plan's weights are tuned on 2 other scenes in 4 steps" in evaluated.out
    assert "plan (joint, gptq, tuned)" in (planned / RESULTS[1]).read_text()
    assert the_json(cli("export", "--run", planned, "--json"))["size_bytes"] == size
    assert path.read_bytes() == written


def test_an_absurd_learning_rate_gives_back_the_start(cameras: Path, model_folder: Path) -> None:
    assert cli("export", "--run", cameras).code == 0
    path = cameras / "model-plan.safetensors"
    start = read_weights(path, load_vggt(model_folder).with_heads(["camera"]))
    ran = cli("tune", "--run", cameras, *SMALL, "--block-steps", 1, "--steps", 3, "--rate", 1e4, "--scale-rate", 1e4)
    assert ran.code == 0
    assert "NOTHING GAINED" in ran.out
    ours = read_weights(path, load_vggt(model_folder).with_heads(["camera"]))
    assert all(torch.equal(dequantize(q), dequantize(start[name])) for name, q in ours.items())


@pytest.mark.slow
def test_stopped_it_goes_on_with_equal_bits(cameras: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = content(cameras)
    assert cli("tune", "--run", cameras, *TUNE).code == 0
    whole = read_weights(cameras / "model-plan.safetensors", load_vggt(model_folder).with_heads(["camera"]))
    history = load_plan(cameras / "plan.json").tuned["damage_after"]
    for name in content(cameras).keys() - first.keys():
        (cameras / name).unlink()
    for name, text in first.items():
        (cameras / name).write_bytes(text)
    kept = distillation._keep

    def stop(*given: object) -> None:
        kept(*given)
        if given[0].step == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(distillation, "_keep", stop)
    assert cli("tune", "--run", cameras, *TUNE).code == 130
    monkeypatch.undo()
    assert load_plan(cameras / "plan.json").tuned == {}
    ran = cli("tune", "--run", cameras, *TUNE)
    assert ran.code == 0
    assert "tuning goes on where it stopped" in ran.err
    again = read_weights(cameras / "model-plan.safetensors", load_vggt(model_folder).with_heads(["camera"]))
    assert all(torch.equal(dequantize(q), dequantize(whole[name])) for name, q in again.items())
    assert load_plan(cameras / "plan.json").tuned["damage_after"] == history


def refused(run: Path, *options: object) -> Ran:
    """A tuning, without the forecast of memory, which is said before some refusals."""
    ran = cli("tune", "--run", run, *options)
    return Ran(ran.code, ran.out, "\n".join(line for line in ran.err.splitlines() if not line.startswith("Memory")))


def test_bad_input_is_refused_in_a_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(refused(tmp_path / "none"), "profile.h5")
    assert_refused(refused(run, "--num-scenes", 2, "--views", 2), "--select", "8 others are needed")
    assert_refused(refused(run, *SMALL, "--optimizer", "adamm"), "--optimizer adamm", "adam or sign")
    assert_refused(refused(run, *SMALL, "--rate", "nan"), "--rate nan")
    assert_refused(refused(run, *SMALL, "--steps", 0, "--block-steps", 0), "nothing to do")
    monkeypatch.setattr("analysis.steps.tune.free_bytes", lambda _device: 1000)
    assert_refused(refused(run, *SMALL), "tuning needs about", "0.0 GB are free", "--num-scenes")
    (run / "plan.json").unlink()
    assert_refused(refused(run, *SMALL), "plan.json: no such file", "cli.py plan")


def test_the_whole_model_is_left_out_where_it_does_not_fit(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.steps.tune.free_bytes", lambda _device: 10**8)
    monkeypatch.setattr(
        "analysis.steps.tune.forecast_tuning", lambda *_given: TuningForecast(blocks=10**8, whole=10**8 + 1)
    )
    ran = cli("tune", "--run", run, *SMALL, "--block-steps", 1, "--json")
    result = the_json(ran)
    assert "so that stage is left out" in ran.err
    assert result["recipe"]["steps"] == result["steps"] == 0


def test_scenes_have_one_role(run: Path) -> None:
    assert cli("tune", "--run", run, *SMALL, "--block-steps", 1, "--steps", 0).code == 0
    plan = json.loads((run / "plan.json").read_text())
    digests = plan["tuned"]["scene_digests"]
    assert len(digests) == len(set(digests)) == 4
    assert cli("evaluate", "--run", run, "--repeats", 0, "--schemes", "none").code == 0


@pytest.mark.slow
def test_pictures_that_were_tuned_on_are_not_judged_on(model_folder: Path, photo_folder: Path, tmp_path: Path) -> None:
    """Tuned on one half of the photographs, judged on the other after the folder was turned round."""
    run = tmp_path / "run"
    profile = ("profile", "--run", run, "--model", model_folder, "--probes", 1, "--num-scenes", 1, "--views", 2)
    assert cli(*profile).code == 0
    assert cli("plan", "--run", run).code == 0
    tune = ("tune", "--run", run, "--block-steps", 1, "--steps", 0, "--select", 1, "--num-scenes", 4, "--views", 1)
    assert cli(*tune, "--images", photo_folder).code == 0
    turned = tmp_path / "turned"
    turned.mkdir()
    for number, path in enumerate(sorted(photo_folder.glob("*.png"))):
        (turned / f"{(number + 1) % 8}.png").write_bytes(path.read_bytes())
    judge = ("evaluate", "--run", run, "--repeats", 0, "--views", 1, "--num-scenes", 4)
    assert_refused(cli(*judge, "--images", turned), "the weights were tuned or selected on", "--images")
    assert cli(*judge, "--images", photo_folder).code == 0


def test_copies_among_the_scenes_are_refused(run: Path, photo_folder: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    paths = sorted(photo_folder.glob("*.png"))
    for number in range(8):
        (copies / f"{number}.png").write_bytes(paths[number % 2 if number % 2 == 0 else number].read_bytes())
    ran = refused(run, "--images", copies, "--views", 1, "--num-scenes", 4, "--select", 1, "--block-steps", 1)
    assert_refused(ran, "both tuned and selected on", "copies")


def test_tuned_weights_that_are_lost_are_not_made_up(run: Path) -> None:
    assert cli("tune", "--run", run, *SMALL, "--block-steps", 1, "--steps", 0).code == 0
    (run / "model-plan.safetensors").unlink()
    assert_refused(cli("evaluate", "--run", run, "--repeats", 0), "tuned weights are nowhere else", "cli.py tune")


def test_foreign_modules_are_tuned_as_a_whole(tmp_path: Path) -> None:
    here, run = "tests.analysis.commands.other_models", tmp_path / "run"
    given = ("--run", run, "--model", f"{here}:encoder")
    assert cli("profile", *given, "--inputs", f"{here}:tokens", "--num-scenes", 2, "--probes", 2).code == 0
    assert cli("plan", "--run", run, "--budget", "int4_group_32").code == 0
    ran = cli("tune", "--run", run, "--num-scenes", 6, "--select", 2, "--steps", 8, "--rate", 0.02, "--json")
    said = the_json(ran)
    assert "block by block it cannot be done" in ran.err
    assert said["damage_after_blocks"] is None
    assert said["damage_after"] < said["damage_before"]
    loaded = load_quantized(run / "model-plan.safetensors", model=encoder)
    weights = read_weights(run / "model-plan.safetensors", encoder())
    attention = next(name for name in weights if name.endswith("self_attn"))
    torch.testing.assert_close(
        dequantize(loaded.get_submodule(attention).packed.quantized), dequantize(weights[attention])
    )
    judge = ("evaluate", "--run", run, "--repeats", 0, "--schemes", "none", "--num-scenes")
    assert_refused(cli(*judge, 2), "2 of the scenes or pictures to judge on", "tuned or selected on")
    assert cli(*judge, 6).code == 0
