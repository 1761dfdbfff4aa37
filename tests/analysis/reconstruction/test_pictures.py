"""Where pictures lie on the canvas, against the pixels that the network is given."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.reconstruction.colmap import stored_pixels
from analysis.reconstruction.pictures import photographs
from vggtkit.core.errors import InputError

SIZES = {"wide.png": (120, 40), "usual.png": (80, 60), "tall.png": (40, 90), "square.jpg": (64, 64)}


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    for name, size in SIZES.items():
        Image.new("RGB", size, "black").save(tmp_path / name)
    return tmp_path


def test_what_is_not_shown_is_the_white_around_the_pictures(dark: Path) -> None:
    pictures = photographs(dark, (56, 14))
    images = pictures.scene(range(len(pictures))).images
    np.testing.assert_array_equal(pictures.shown(), (images[:, 0] == 0).numpy())
    assert images.shape == (4, 3, 56, 56)


def test_a_spot_is_where_the_placement_says(tmp_path: Path) -> None:
    """A bright block of a large picture that crop mode cuts, against the middle of what is bright on the canvas."""
    for name, (width, height) in {"a.png": (160, 320), "b.png": (320, 120)}.items():
        picture = np.zeros((height, width, 3), dtype=np.uint8)
        row, column = height // 2 - 24, width // 2 + 16
        picture[row : row + 16, column : column + 16] = 255
        Image.fromarray(picture).save(tmp_path / name)
        expected = np.array([column + 8.0, row + 8.0])  # as COLMAP counts: edges are whole numbers
        pictures = photographs(tmp_path, (112, 14))
        number = [each.name for each in pictures.pictures].index(name)
        image = pictures.scene([number]).images[0, 0].numpy() * pictures.shown()[number]
        rows, columns = np.indices(image.shape)
        middle = np.array([(columns * image).sum(), (rows * image).sum()]) / image.sum()
        found = stored_pixels(middle[None], pictures.pictures[number])[0]
        np.testing.assert_allclose(found, expected, atol=0.2)


def test_fewer_pictures_are_evenly_spread(dark: Path) -> None:
    assert [picture.name for picture in photographs(dark, (56, 14), most=2).pictures] == ["square.jpg", "usual.png"]
    assert [picture.name for picture in photographs(dark, (56, 14), stride=3).pictures] == ["square.jpg", "wide.png"]


def test_files_of_one_stem_stay_apart(tmp_path: Path) -> None:
    for name in ("a.png", "A.jpg", "b.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    assert sorted(photographs(tmp_path, (56, 14)).stems) == ["A.jpg", "a.png", "b"]


def test_a_link_to_nothing_and_pictures_of_another_kind_are_said(dark: Path) -> None:
    (dark / "gone.jpg").symlink_to(dark / "nowhere.jpg")
    (dark / "linked.png").symlink_to(dark / "usual.png")
    (dark / "a.heic").touch()
    pictures = photographs(dark, (56, 14))
    assert len(pictures) == len(SIZES) + 1
    kind, link = pictures.notes
    assert "1 file is skipped (1 .heic)" in kind
    assert link == f"{dark}: 'gone.jpg' skipped: a link to a file that is not there"
    (dark / "b.png").symlink_to("b.png")  # to itself
    assert photographs(dark, (56, 14)).notes[1].startswith(f"{dark}: 'b.png' and 1 more skipped")


def test_a_picture_that_vanishes_and_a_name_that_no_list_holds_are_said(dark: Path) -> None:
    pictures = photographs(dark, (56, 14))
    (dark / "usual.png").unlink()
    with pytest.raises(InputError, match=r"usual\.png' does not exist"):
        pictures.scene(range(4))
    Image.new("RGB", (32, 32)).save(dark / "two\nlines.png")
    with pytest.raises(InputError, match="rename it"):
        photographs(dark, (56, 14))
