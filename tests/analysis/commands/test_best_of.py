"""The best of several plans, measured on scenes that are neither profiled nor judged on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.evaluation.evaluator import Evaluator
from analysis.steps.plan_rounding import WHAT_IS_LEFT
from analysis.steps.run_folder import PICTURE_DIGESTS
from analysis.steps.selection import CANDIDATES, selection_scenes
from mixedprec import load_plan, packed_with
from mixedprec.checkpoint import read_weights
from sensitivity import open_profile
from tests.analysis.commands.running import assert_refused, cli, the_json
from vggtkit.core.errors import InputError
from vggtkit.model import load_vggt
from vggtkit.scenes import SceneSource, picture_digests
from vggtkit.subject import subject_of


@pytest.fixture
def run(calibrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(calibrated, tmp_path / "run"))


@pytest.mark.slow
def test_the_best_of_those_measured_is_kept_with_its_scenes(run: Path, model_folder: Path) -> None:
    said = the_json(cli("plan", "--run", run, "--budget", "int4_group_64", "--best-of", 5, "--json"))
    plan, profile = load_plan(run / "plan.json"), open_profile(run)
    candidates = plan.provenance["candidates"]
    assert candidates == said["candidates"]
    assert 2 <= len(candidates) <= 5
    assert len({(row["policy"], row["made_for"], row["rounding"]) for row in candidates}) == len(candidates)
    assert any(row["made_for"] == WHAT_IS_LEFT for row in candidates)
    best = min(candidates, key=lambda row: row["measured"])
    assert (plan.policy, plan.rounding) == (best["policy"], best["rounding"])
    assert plan.provenance["made_for"] == best["made_for"]
    assert said["rounding"] == plan.rounding
    selected, calibrated = plan.provenance["selected_on"], plan.provenance["calibrated_on"]
    assert calibrated["scenes"] == profile.facts["scenes"]
    assert not set(selected["scenes"]) & set(calibrated["scenes"])
    assert cli("evaluate", "--run", run, "--repeats", 0).code == 0
    results = json.loads((run / "comprehensive_results.json").read_text())
    assert results["provenance"]["selection_scenes"] == selected["scenes"]
    assert not set(results["scenes"]) & set(selected["scenes"])
    subject = subject_of(load_vggt(model_folder))
    scenes, facts = selection_scenes(subject, profile)
    assert facts == selected
    evaluator = Evaluator(subject, scenes)
    with packed_with(subject, read_weights(run / "model-plan.safetensors", subject)):
        damage = evaluator.compare([subject.predict(scene) for scene in scenes]).damage
    assert damage == pytest.approx(best["measured"], rel=1e-5)


@pytest.mark.slow
def test_what_was_selected_on_is_not_judged_on(run: Path, photo_folder: Path, tmp_path: Path) -> None:
    plan = ("plan", "--run", run, "--best-of", 1, "--rounding", "nearest", "--select-on", f"photos:{photo_folder}")
    assert cli(*plan).code == 0
    assert load_plan(run / "plan.json").rounding == "nearest"
    assert cli("evaluate", "--run", run, "--repeats", 0, "--images", photo_folder).code == 0  # its other half
    copies = tmp_path / "copies"
    copies.mkdir()
    for number in range(8):  # names in the other order: the halves change places
        shutil.copy(photo_folder / f"{number}.png", copies / f"{7 - number}.png")
    for count, judging in (("2", ("evaluate", "--repeats", 0)), ("4", ("audit",))):  # which takes further scenes
        ran = cli(*judging, "--run", run, "--images", copies)
        assert_refused(ran, f"{count} of the scenes or pictures", "the plan was selected on", "--images")


@pytest.mark.slow
def test_profiled_pictures_are_not_selected_on(run: Path, model_folder: Path, photo_folder: Path) -> None:
    profile, subject = open_profile(run), subject_of(load_vggt(model_folder))
    source = SceneSource("photos", str(photo_folder), count=4)
    used = sorted(picture_digests(source, "calibration"))
    profile = replace(profile, facts={**profile.facts, PICTURE_DIGESTS: used[:1]})
    with pytest.raises(InputError, match="1 of its pictures were profiled"):
        selection_scenes(subject, profile, source)


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (("--best-of", 99), ("--best-of 99", f"{len(CANDIDATES)} candidates")),
        (("--best-of", 2, "--refine", 1), ("--best-of", "--refine")),
        (("--best-of", 2, "--max-damage", 1), ("--best-of", "--max-damage")),
        (("--best-of", -1), ("--best-of", "-1")),
        (("--select-on", "synthetic"), ("--select-on", "--best-of")),
        (("--workers", 2), ("--workers", "--best-of")),
    ],
)
def test_what_cannot_be_is_refused(run: Path, options: tuple[object, ...], fragments: tuple[str, ...]) -> None:
    before = (run / "plan.json").read_bytes()
    assert_refused(cli("plan", "--run", run, *options), *fragments)
    assert (run / "plan.json").read_bytes() == before


def test_it_takes_a_profile(model_folder: Path, tmp_path: Path) -> None:
    assert_refused(cli("plan", "--run", tmp_path / "run", "--model", model_folder, "--best-of", 2), "--best-of 2")
