"""Pictures that were profiled are never judged on, whatever they are called; what cannot be judged is refused early."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from analysis.steps import profile as step
from analysis.steps.profile import make_profile
from analysis.steps.run_folder import PICTURE_DIGESTS, check_held_out
from vggtkit.core.errors import InputError
from vggtkit.scenes import SceneSource, picture_digests


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Eight photographs, of which 2 to 9 are the names, so that one can be put in front."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for index in range(2, 10):
        Image.new("RGB", (32, 24), (index,) * 3).save(folder / f"{index}.png")
    return folder


def profiled(source: SceneSource) -> Any:
    return SimpleNamespace(facts={PICTURE_DIGESTS: sorted(picture_digests(source, "calibration"))})


def test_the_other_half_of_the_profiled_folder_is_held_out(shelf: Path) -> None:
    source = SceneSource("photos", str(shelf))
    check_held_out(profiled(source), source)


def test_another_cut_of_the_profiled_folder_is_refused(shelf: Path) -> None:
    profile = profiled(SceneSource("photos", str(shelf)))
    with pytest.raises(InputError, match=r"1 of the evaluation's pictures were profiled, '6.png' is one"):
        check_held_out(profile, SceneSource("photos", str(shelf), stride=2))


def test_a_photograph_put_in_front_since_the_profile_is_noticed(shelf: Path) -> None:
    """2 3 and 6 7 were profiled; with 1 in front, the evaluation half is 3 4 and 7 8."""
    source = SceneSource("photos", str(shelf))
    profile = profiled(source)
    Image.new("RGB", (32, 24), (1,) * 3).save(shelf / "1.png")
    with pytest.raises(InputError, match=r"2 of the .* '3.png' is one .* changed since"):
        check_held_out(profile, source)


@pytest.mark.parametrize("kind", ["photos", "rgbd"])
def test_copies_of_profiled_pictures_are_noticed(shelf: Path, tmp_path: Path, kind: str) -> None:
    copies = tmp_path / "copies"
    (copies / "images").mkdir(parents=True)
    (copies / "depth").mkdir()
    for place, index in enumerate((4, 5, 8, 2)):  # 8 and 2 come into the evaluation half; 2 was profiled
        shutil.copy(shelf / f"{index}.png", copies / f"images/holiday {place}.png")
        Image.fromarray(np.ones((24, 32), np.uint16)).save(copies / f"depth/{place}.png")
    (copies / "K.txt").write_text("30 30 15.5 11.5")
    (copies / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 4)
    profile = profiled(SceneSource("photos", str(shelf)))
    with pytest.raises(InputError, match=r"1 of the .* 'holiday 3.png' is one"):
        check_held_out(profile, SceneSource(kind, str(copies), views=2))


def test_other_pictures_and_rendered_rooms_are_held_out(shelf: Path, tmp_path: Path) -> None:
    profile = profiled(SceneSource("photos", str(shelf)))
    check_held_out(profile, SceneSource("synthetic"))
    other = tmp_path / "other"
    other.mkdir()
    for index in range(2, 10):
        Image.new("RGB", (32, 24), (100 + index,) * 3).save(other / f"{index}.png")
    check_held_out(profile, SceneSource("photos", str(other)))
    check_held_out(profiled(SceneSource("synthetic")), SceneSource("photos", str(other)))


def profile_of(run: Path, source: SceneSource, model: str, say: Callable[[str], None] = lambda _: None) -> object:
    return make_profile(run, model, "pretrained", source, probes=1, disk_budget="1MB", device="cpu", seed=0, say=say)


def test_one_photograph_is_refused_before_the_model_is_looked_for(tmp_path: Path) -> None:
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="single photograph"):
        profile_of(tmp_path / "run", SceneSource("photos", str(tmp_path)), "no/such/model")


def test_a_profile_says_what_was_skipped_and_keeps_digests_of_what_was_not(
    shelf: Path, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(20):
        (shelf / f"IMG_{index}.HEIC").touch()
    monkeypatch.setattr(step, "profile_model", lambda *_, facts, **__: facts)
    lines: list[str] = []
    source = SceneSource("photos", str(shelf))
    facts = profile_of(tmp_path / "run", source, str(model_folder), lines.append)
    assert isinstance(facts, dict)
    assert facts[PICTURE_DIGESTS] == sorted(picture_digests(source, "calibration"))
    assert len(facts[PICTURE_DIGESTS]) == 4
    assert any("20 files are skipped (20 .heic)" in line for line in lines)
