"""Which pictures a source shows, told by their content, and what is refused before long work."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vggtkit.core.errors import InputError
from vggtkit.scenes import SceneSource, check_source, load_scenes, notes_on, picture_digests


@pytest.fixture
def shelf(tmp_path: Path) -> Callable[[int], SceneSource]:
    """A folder of so many pictures, no two alike."""

    def fill(count: int) -> SceneSource:
        for index in range(count):
            Image.new("RGB", (56, 56), (index,) * 3).save(tmp_path / f"{index}.png")
        return SceneSource("photos", str(tmp_path))

    return fill


def test_digests_are_the_beginning_of_sha256_of_the_files(shelf: Callable[[int], SceneSource], tmp_path: Path) -> None:
    source = shelf(8)
    expected = {hashlib.sha256((tmp_path / f"{index}.png").read_bytes()).hexdigest()[:16] for index in (2, 3, 6, 7)}
    assert picture_digests(source, "evaluation") == expected


def test_copies_under_other_names_have_the_same_digests(shelf: Callable[[int], SceneSource], tmp_path: Path) -> None:
    source = shelf(8)
    (tmp_path / "copies").mkdir()
    for index in range(8):
        shutil.copy(tmp_path / f"{index}.png", tmp_path / "copies" / f"holiday {9 - index}.jpg")
    copies = SceneSource("photos", str(tmp_path / "copies"))
    assert picture_digests(copies, "calibration") == picture_digests(source, "evaluation")


@pytest.mark.parametrize(("count", "fields"), [(1, {}), (5, {"max_images": 1}), (5, {"stride": 5})])
def test_sources_with_nothing_to_evaluate_are_refused_early_as_they_are_late(
    shelf: Callable[[int], SceneSource], count: int, fields: dict[str, int]
) -> None:
    source = SceneSource.from_dict(shelf(count).to_dict() | fields)
    with pytest.raises(InputError) as late:
        load_scenes(source, "evaluation", img_size=56, patch_size=14)
    with pytest.raises(InputError) as early:
        check_source(source)
    assert str(early.value) == str(late.value)


def test_a_picture_in_both_halves_under_two_names_is_refused(
    shelf: Callable[[int], SceneSource], tmp_path: Path
) -> None:
    source = shelf(8)
    check_source(source)
    shutil.copy(tmp_path / "0.png", tmp_path / "6.png")
    with pytest.raises(InputError, match=r"0.png' and '6.png' are the same: .* remove one"):
        check_source(source)
    shutil.copy(tmp_path / "2.png", tmp_path / "6.png")  # both in one half: no harm
    check_source(source)


@pytest.mark.parametrize("kind", ["photos", "rgbd"])
def test_pictures_that_are_skipped_are_counted_by_ending(tmp_path: Path, kind: str) -> None:
    pictures = tmp_path / "images"
    (tmp_path / "depth").mkdir()
    pictures.mkdir()
    for index in range(2):
        Image.new("RGB", (56, 56), (index,) * 3).save(pictures / f"{index}.png")
        Image.new("I;16", (56, 56)).save(tmp_path / f"depth/{index}.png")
    for index in range(20):
        (pictures / f"IMG_{index}.{'HEIC' if index % 2 else 'heic'}").touch()
    for name in ("a.CR2", "README.md", ".DS_Store", "licence", "._IMG_1.heic"):
        (pictures / name).touch()
    (tmp_path / "K.txt").write_text("60 60 27.5 27.5")
    (tmp_path / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 2)
    (note,) = notes_on(SceneSource(kind, str(tmp_path)))
    assert "21 files are skipped (20 .heic, 1 .cr2)" in note and "JPEG" in note


def test_a_folder_of_other_kinds_alone_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.heic").touch()
    with pytest.raises(InputError, match=r"no photographs .* 1 file is skipped \(1 .heic\)") as caught:
        load_scenes(SceneSource("photos", str(tmp_path)), "calibration", img_size=56, patch_size=14)
    assert "\n" not in str(caught.value)


def test_notes_on_many_recordings_are_few(tmp_path: Path) -> None:
    for number in range(20):
        folder = tmp_path / f"seq-{number}"
        folder.mkdir()
        for index in range(2):
            Image.new("RGB", (56, 42)).save(folder / f"frame-{index}.color.png")
            Image.new("I;16", (56, 42)).save(folder / f"frame-{index}.depth.png")
        (folder / "frame-0.pose.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1")
    notes = notes_on(SceneSource("rgbd", str(tmp_path)))
    assert len(notes) == 9
    assert notes[-1] == "and 12 more lines like these about other recordings"
