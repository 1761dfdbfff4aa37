"""Preprocessing against the published one (by hash), and what a folder may hold."""

import hashlib
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vggtkit.core.errors import InputError
from vggtkit.scenes.photos import list_photos, load_photos, picture_size


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round().to(torch.uint8)


def gradient(width: int, height: int) -> Image.Image:
    """No two corners alike, so that a turned or mirrored picture shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x + 255 - y) / 2], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("folder", ["hololens", "kitchen", "room"])
def test_real_photographs_equal_the_published_preprocessing(shared_dir: Path, folder: str, mode: str) -> None:
    expected = json.loads((shared_dir / "fixtures/preprocess.json").read_text())[f"{folder}/{mode}"]
    images = load_photos([shared_dir / "data" / name for name in expected["files"]], mode=mode)
    assert list(images.shape) == expected["shape"]
    assert images.mean().item() == pytest.approx(expected["mean"], abs=1e-5)
    digest = hashlib.sha256(as_bytes(images).numpy().tobytes()).hexdigest()
    assert digest == expected["sha256_uint8_nchw"]


@pytest.mark.parametrize("folder", ["hololens", "kitchen", "room"])
def test_listing_a_real_folder_gives_the_published_order(shared_dir: Path, folder: str) -> None:
    expected = json.loads((shared_dir / "fixtures/preprocess.json").read_text())[f"{folder}/crop"]["files"]
    listed = list_photos(shared_dir / "data" / folder)
    assert [path.relative_to(shared_dir / "data").as_posix() for path in listed] == expected


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 120), height=st.integers(1, 120), mode=st.sampled_from(["crop", "pad"]))
def test_any_size_becomes_whole_patches_in_range(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, mode: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.bmp"
    gradient(width, height).save(path)
    if mode == "crop" and height > 32 * width:
        with pytest.raises(InputError, match="32 times as tall as wide"):
            load_photos([path], mode=mode, target_size=28, patch_size=14)
        return
    images = load_photos([path], mode=mode, target_size=28, patch_size=14)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.shape[3] == 28
    assert images.shape[2] == 28 if mode == "pad" else images.shape[2] in {14, 28}


def test_a_tall_picture_keeps_its_middle(tmp_path: Path) -> None:
    """At the target width there is nothing to resize: the cut is exactly the middle rows."""
    tall = gradient(28, 70)
    tall.save(tmp_path / "tall.png")
    images = load_photos([tmp_path / "tall.png"], target_size=28, patch_size=14)
    np.testing.assert_array_equal(as_bytes(images)[0].permute(1, 2, 0), np.array(tall)[21:49])


def test_padding_is_white_and_the_picture_sits_where_picture_size_says(tmp_path: Path) -> None:
    wide = gradient(56, 28)
    wide.save(tmp_path / "wide.png")
    images = load_photos([tmp_path / "wide.png"], mode="pad", target_size=56, patch_size=14)
    height, width = picture_size(tmp_path / "wide.png", mode="pad", target_size=56, patch_size=14)
    assert (height, width) == (28, 56)
    np.testing.assert_array_equal(as_bytes(images)[0, :, 14:42].permute(1, 2, 0), np.array(wide))
    assert (images[:, :, :14] == 1).all()
    assert (images[:, :, 42:] == 1).all()


def test_mixed_sizes_are_centred_on_white(tmp_path: Path) -> None:
    """An uneven remainder goes below: 56 - 42 rows leave 7 above and 7 below; 56 - 28 leave 14."""
    sizes = {"full": (56, 56), "less": (56, 42), "half": (56, 28)}
    for name, size in sizes.items():
        gradient(*size).save(tmp_path / f"{name}.png")
    images = load_photos([tmp_path / f"{name}.png" for name in sizes], target_size=56, patch_size=14)
    assert images.shape == (3, 3, 56, 56)
    for index, (name, above) in enumerate([("full", 0), ("less", 7), ("half", 14)]):
        inner = images[index, :, above : above + sizes[name][1]]
        np.testing.assert_array_equal(as_bytes(inner).permute(1, 2, 0), np.array(gradient(*sizes[name])))
        assert (images[index, :, :above] == 1).all()
        assert (images[index, :, above + sizes[name][1] :] == 1).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tags_are_followed(tmp_path: Path, orientation: int, suffix: str) -> None:
    """A tagged picture must look as the same pixels turned beforehand."""
    picture, exif = gradient(56, 28), Image.Exif()
    exif[0x0112] = orientation
    tagged, plain = tmp_path / f"tagged.{suffix}", tmp_path / f"plain.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    picture.save(tagged, exif=exif, **options)
    with Image.open(tagged) as opened:  # lossy kinds: turn what was stored, not what was meant
        ImageOps.exif_transpose(opened).save(tmp_path / "upright.png")
    picture.save(plain, **options)
    ours = load_photos([tagged], target_size=56, patch_size=14)
    torch.testing.assert_close(ours, load_photos([tmp_path / "upright.png"], target_size=56, patch_size=14))
    if orientation == 1:
        torch.testing.assert_close(ours, load_photos([plain], target_size=56, patch_size=14))
    else:
        other = load_photos([plain], target_size=56, patch_size=14)
        assert ours.shape != other.shape or (ours - other).abs().max() > 0.2
    size = picture_size(tagged, mode="crop", target_size=56, patch_size=14)
    assert size == tuple(ours.shape[2:])


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "PA", "RGB-key"])
def test_transparency_shows_white(tmp_path: Path, kind: str) -> None:
    """The left half is transparent, the right half black."""
    path = tmp_path / ("a.tiff" if kind == "PA" else "a.png")
    half = np.zeros((28, 28, 4), np.uint8)
    half[:, 14:, 3] = 255
    if kind == "RGB-key":
        half[:, :14] = (1, 2, 3, 255)
        Image.fromarray(half).convert("RGB").save(path, transparency=(1, 2, 3))
    elif kind == "P":
        indexed = Image.fromarray((half[..., 3] > 0).astype(np.uint8)).convert("P")
        indexed.putpalette([9, 9, 9, 0, 0, 0])
        indexed.save(path, transparency=0)
    else:
        black = Image.new(kind, (28, 28))
        black.putalpha(Image.fromarray(half[..., 3]))
        black.save(path)
    images = load_photos([path], target_size=28, patch_size=14)
    assert (images[..., :14] == 1).all()
    assert (images[..., 14:] == 0).all()


def test_sixteen_bit_greys_keep_their_shades(tmp_path: Path) -> None:
    Image.fromarray(np.full((28, 28), 0x8000, np.uint16)).save(tmp_path / "grey.png")
    assert (as_bytes(load_photos([tmp_path / "grey.png"], target_size=28)) == 0x80).all()


def test_listing_knows_extensions_in_any_case_and_sorts(tmp_path: Path) -> None:
    for name in ("c.PNG", "a.jpeg", "b.WebP", "e.TIF", "d.bmp", "._a.jpeg", "notes.txt", "f.heic"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_photos(tmp_path)] == ["a.jpeg", "b.WebP", "c.PNG", "d.bmp", "e.TIF"]


@pytest.mark.parametrize("name", ["images", "rgb", "color"])
def test_a_folder_without_pictures_hands_over_to_its_subfolder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.png").touch()
    assert list_photos(tmp_path) == [tmp_path / name / "a.png"]
    (tmp_path / "own.png").touch()
    assert list_photos(tmp_path) == [tmp_path / "own.png"]


def test_listing_refuses_what_is_no_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "notes.txt").touch()
    for place, reason in [
        (tmp_path, "has no photographs"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "notes.txt", "is a file"),
    ]:
        with pytest.raises(InputError, match=reason) as caught:
            list_photos(place)
        assert str(place) in str(caught.value)
        assert "\n" not in str(caught.value)


def png_that_claims(width: int, height: int) -> bytes:
    """A header without pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def damaged(kind: str, folder: Path) -> Path:
    path = folder / "bad.jpg"
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
    elif kind == "float":
        path = path.with_suffix(".tiff")
        Image.fromarray(np.ones((20, 20), np.float32)).save(path)
    elif kind in {"truncated-jpeg", "truncated-png"}:
        Image.effect_noise((64, 64), 80).save(path, "JPEG" if kind.endswith("jpeg") else "PNG")
        path.write_bytes(path.read_bytes()[:-800])
    else:
        path.write_bytes({"text": b"not a picture", "nothing": b"", "no-width": png_that_claims(0, 5)}[kind])
    return path


@pytest.mark.parametrize(
    "kind", ["missing", "folder", "float", "truncated-jpeg", "truncated-png", "text", "nothing", "no-width"]
)
def test_a_bad_picture_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    gradient(28, 28).save(tmp_path / "good.png")
    bad = damaged(kind, tmp_path)
    with pytest.raises(InputError) as caught:
        load_photos([tmp_path / "good.png", bad], target_size=28)
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize(
    "size", [(1, 170_000_000), (170_000_000, 1), (15_000, 14_000), (70_000, 70_000), (65_536, 10)], ids=str
)
def test_pictures_too_large_for_memory_are_refused_by_their_header(
    tmp_path: Path, size: tuple[int, int], mode: str
) -> None:
    (tmp_path / "bomb.png").write_bytes(png_that_claims(*size))
    with pytest.raises(InputError, match="megapixels") as caught:
        load_photos([tmp_path / "bomb.png"], mode=mode)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError) as again:
        picture_size(tmp_path / "bomb.png", mode=mode, target_size=518, patch_size=14)
    assert str(again.value) == str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_of_today_are_not_too_large(tmp_path: Path) -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 12_000, 9_000, 1, 24, *[0] * 6)
    (tmp_path / "phone.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header)
    assert picture_size(tmp_path / "phone.bmp", mode="crop", target_size=518, patch_size=14) == (392, 518)


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    gradient(28, 28).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="at least one"):
        load_photos([])
    with pytest.raises(InputError, match="'stretch': choose crop or pad"):
        load_photos([tmp_path / "a.png"], mode="stretch")
    with pytest.raises(ValueError, match="500 is no positive multiple of patch_size 14"):
        load_photos([tmp_path / "a.png"], target_size=500)
