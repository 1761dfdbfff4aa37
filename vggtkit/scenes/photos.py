"""Photographs in a folder, prepared as VGGT was trained to see them.

Source of the sizes, the padding and the filter: the preprocessing published with VGGT (Wang et al., CVPR
2025). Orientation tags, transparency beyond RGBA and 16-bit greys are additions.
"""

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import in_one_line
from vggtkit.scenes.naming import natural_key
from vggtkit.scenes.recording import Frame, Recording

Mode = Literal["crop", "pad"]

PHOTO_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_SUBFOLDERS = ("images", "rgb", "color")
_KINDS_READ = "PNG, JPEG, WebP, BMP, TIFF"
# Crop mode makes a picture as wide as the target before it cuts the height: a strip would fill the memory.
_TALLEST = 32
# What Pillow's decoders raise on damaged files, beside OSError (which includes UnidentifiedImageError).
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error)
# Bounds of what a picture may take in memory; Pillow spends bytes on every row too, so that a thin one costs the most.
MAX_MEGAPIXELS = 150
MAX_SIDE = 65_535
# Files that lie beside pictures and are meant to be no pictures.
_COMPANIONS = frozenset(
    {
        "",
        ".csv",
        ".db",
        ".h5",
        ".html",
        ".ini",
        ".json",
        ".log",
        ".md",
        ".npy",
        ".npz",
        ".pdf",
        ".txt",
        ".xml",
        ".yaml",
        ".yml",
    }
)


def read_photos(folder: str | Path) -> list[Recording]:
    """The photographs of a folder as one recording, without cameras.

    Raises:
        InputError: as `list_photos`.
    """
    photos = list_photos(folder)
    frames = tuple(Frame(path) for path in photos)
    return [Recording(Path(folder).resolve().name, frames, note_skipped(photos[0].parent))]


def list_photos(folder: str | Path) -> list[Path]:
    """Pictures of a folder in the order of their names, numbers by value (``frame2`` before ``frame10``).

    PNG, JPEG, WebP, BMP and TIFF, told by their extension; hidden files are left out. A folder without
    pictures hands over to its subfolder ``images``, ``rgb`` or ``color``, the first that has some.

    Args:
        folder: where to look; not searched any deeper.

    Returns:
        At least one path.

    Raises:
        InputError: the folder does not exist, is a file, or has no pictures.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.JPG", "a.png", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     [path.name for path in list_photos(folder)]
    ['a.png', 'b.JPG']
    """
    root = Path(folder)
    if not root.exists():
        raise InputError(f"the folder {str(root)!r} does not exist: give a folder of photographs")
    if not root.is_dir():
        raise InputError(f"{str(root)!r} is a file: give the folder that holds the photographs")
    for place in (root, *(root / name for name in _SUBFOLDERS)):
        photos = _pictures_in(place)
        if photos:
            return photos
    skipped = "".join(f"; {note}" for note in note_skipped(root))
    raise InputError(
        f"the folder {str(root)!r} has no photographs ({_KINDS_READ}), nor has a subfolder"
        f" {', '.join(_SUBFOLDERS[:-1])} or {_SUBFOLDERS[-1]}: give another folder{skipped}"
    )


def note_skipped(folder: Path) -> tuple[str, ...]:
    """How many files of a folder are pictures perhaps, but cannot be read: of another kind, or links to nothing.

    Returns:
        A line for each of the two, where there are any.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.HEIC", "b.heic", "c.png", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     note_skipped(Path(folder))[0].split(":")[1]
    ' 2 files are skipped (2 .heic), read are PNG, JPEG, WebP, BMP, TIFF; convert them to be used'
    """
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    endings = Counter(path.suffix.lower() for path in visible if path.is_file())
    skipped = {ending: count for ending, count in endings.items() if ending not in PHOTO_SUFFIXES | _COMPANIONS}
    notes = []
    if skipped:
        total = sum(skipped.values())
        listed = ", ".join(f"{count} {ending}" for ending, count in sorted(skipped.items(), key=lambda item: -item[1]))
        notes.append(
            f"{folder}: {total} file{'s are' if total > 1 else ' is'} skipped ({listed}), read are {_KINDS_READ};"
            " convert them to be used"
        )
    if astray := sorted(path.name for path in visible if _is_picture_name(path) and not path.exists()):
        more = f" and {len(astray) - 1} more" if len(astray) > 1 else ""
        notes.append(f"{folder}: {astray[0]!r}{more} skipped: a link to a file that is not there")
    return tuple(notes)


def load_photos(
    paths: Sequence[str | Path], *, mode: Mode = "crop", target_size: int = 518, patch_size: int = 14
) -> Tensor:
    """Read pictures and bring them to one size that the model takes.

    ``crop``: the width becomes ``target_size``, the height follows (rounded to whole patches) and is cut
    around its middle where it exceeds ``target_size``. ``pad``: the longer side becomes ``target_size`` and
    white fills the picture up to a square. Bicubic in both. Where the results differ in shape, white
    fills the smaller ones, centred. Orientation tags are followed; transparency is laid on white.

    Args:
        paths: S pictures, in the order wanted.
        mode: ``"crop"`` or ``"pad"``.
        target_size: pixels; a multiple of ``patch_size``.
        patch_size: pixels.

    Returns:
        ``[S, 3, H, W]``, float32 in [0, 1], RGB; H and W are multiples of ``patch_size``.

    Raises:
        InputError: no paths, an unknown mode, or a picture that is missing, damaged, of no size, or (crop)
            more than 32 times as tall as wide.
        ValueError: ``target_size`` is no positive multiple of ``patch_size``.

    Source: the preprocessing published with VGGT (Wang et al., CVPR 2025).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "red.png")
    ...     Image.new("RGB", (80, 60), "red").save(path)
    ...     cropped = load_photos([path], target_size=56)
    ...     padded = load_photos([path], mode="pad", target_size=56)
    >>> cropped.shape, padded.shape
    (torch.Size([1, 3, 42, 56]), torch.Size([1, 3, 56, 56]))
    >>> cropped[0, :, 0, 0].tolist(), padded[0, :, 0, 0].tolist()
    ([1.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    """
    _check_request(mode, target_size, patch_size)
    if not paths:
        raise InputError("no photographs given: give at least one")
    pictures = [_prepare(Path(path), mode, target_size, patch_size) for path in paths]
    if mode == "pad":
        height = width = target_size
    else:
        height = max(picture.shape[1] for picture in pictures)
        width = max(picture.shape[2] for picture in pictures)
    return torch.stack([centre_on_white(picture, height, width) for picture in pictures])


def picture_size(path: str | Path, *, mode: Mode, target_size: int, patch_size: int) -> tuple[int, int]:
    """Size that a picture takes in :func:`load_photos`, without the white around it; reads the header only.

    The picture sits in the middle: it begins in row ``(H - height) // 2`` and column ``(W - width) // 2``.

    Returns:
        (height, width) in pixels, multiples of ``patch_size``.

    Raises:
        InputError: as :func:`load_photos`, for this picture.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (80, 60)).save(Path(folder, "a.png"))
    ...     picture_size(Path(folder, "a.png"), mode="pad", target_size=56, patch_size=14)
    (42, 56)
    """
    _check_request(mode, target_size, patch_size)
    with open_picture(Path(path), mode) as image:
        size = _upright_size(image)
    width, height = resized_size(size, mode, target_size, patch_size)
    return min(height, target_size), width


def shown_size(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture as it is shown, its orientation tag followed; reads the header only.

    Raises:
        InputError: as :func:`load_photos`, for this picture.
    """
    with open_picture(Path(path)) as image:
        return _upright_size(image)


def place_on(
    canvas: tuple[int, int], size: tuple[int, int], *, mode: Mode, target_size: int, patch_size: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a picture comes to lie on a canvas that it is centred on.

    Args:
        canvas: width and height; at least those of the prepared picture, at most ``target_size``.
        size: width and height of the picture as it is shown.
        mode: ``"crop"`` or ``"pad"``.
        target_size: pixels.
        patch_size: pixels.

    Returns:
        Width and height that it is resized to, and column and row of its first pixel, which lies above the canvas
        (a negative row) where crop mode cuts it.

    >>> place_on((56, 56), (80, 60), mode="crop", target_size=56, patch_size=14)
    ((56, 42), (0, 7))
    >>> place_on((56, 56), (60, 120), mode="crop", target_size=56, patch_size=14)
    ((56, 112), (0, -28))
    """
    resized = resized_size(size, mode, target_size, patch_size)
    surplus = max(0, resized[1] - target_size)  # rows that crop mode cuts, half of them at the top
    top = (canvas[1] - target_size) // 2 - surplus // 2 if surplus else (canvas[1] - resized[1]) // 2
    return resized, ((canvas[0] - resized[0]) // 2, top)


def _pictures_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    pictures = (path for path in folder.iterdir() if _is_picture_name(path) and path.is_file())
    return sorted(pictures, key=lambda path: natural_key(path.name))


def _is_picture_name(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".")


def _check_request(mode: str, target_size: int, patch_size: int) -> None:
    if mode not in get_args(Mode):
        raise InputError(f"unknown preprocessing {mode!r}: choose crop or pad")
    if patch_size < 1 or target_size < 1 or target_size % patch_size:
        raise ValueError(f"target_size {target_size} is no positive multiple of patch_size {patch_size}")


def _prepare(path: Path, mode: Mode, target_size: int, patch_size: int) -> Tensor:
    """One picture, ``[3, height, width]`` in [0, 1], before any padding."""
    image = _read_rgb(path, mode)
    image = image.resize(resized_size(image.size, mode, target_size, patch_size), Image.Resampling.BICUBIC)
    surplus = image.height - target_size
    if surplus > 0:
        top = surplus // 2
        image = image.crop((0, top, image.width, top + target_size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0


@contextmanager
def open_picture(path: Path, mode: Mode = "pad") -> Iterator[Image.Image]:
    """Open a picture whose header is sound; what goes wrong with it inside is said in one line, too.

    Raises:
        InputError: it is missing, damaged, of no size, too large, or (crop) more than 32 times as tall as wide.
    """
    try:
        with Image.open(path) as image:
            _check_area(path, image.size)
            # Only now: Pillow decodes a PNG to find its orientation.
            _check_size(path, _upright_size(image), mode)
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"the photograph {str(path)!r} has more than {MAX_MEGAPIXELS} megapixels: shrink it"
        ) from error
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def _read_rgb(path: Path, mode: Mode) -> Image.Image:
    with open_picture(path, mode) as opened:
        return _on_white(_eight_bits(ImageOps.exif_transpose(opened)))


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height once upright: orientations 5 to 8 lie on their side (Exif 2.3, tag 0x0112)."""
    lying = image.getexif().get(0x0112) in {5, 6, 7, 8}
    width, height = image.size
    if isinstance(image, TiffImageFile):  # Pillow turns these itself, some versions only when they decode
        width, height = (int(image.tag_v2[tag]) for tag in (IMAGEWIDTH, IMAGELENGTH))
    return (height, width) if lying else (width, height)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit greys keep their high byte: Pillow's own conversion would clip nearly all of them to white."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known white: convert it to 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    greys = np.array(image).astype(np.int64).clip(0, 0xFFFF)
    return Image.fromarray((greys >> 8).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    opaque = image.convert("RGBA")
    white = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, opaque).convert("RGB")


def _unreadable(path: Path, error: Exception) -> InputError:
    if not path.exists():
        return InputError(f"the photograph {str(path)!r} does not exist")
    if isinstance(error, UnidentifiedImageError):
        reason = f"it is not an image of a kind that is read here ({_KINDS_READ})"
    else:
        reason = in_one_line(error)
    return InputError(f"cannot read the photograph {str(path)!r}: {reason}; repair or remove it")


def _check_area(path: Path, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_MEGAPIXELS * 10**6 or max(size) > MAX_SIDE:
        raise InputError(
            f"the photograph {str(path)!r} is {width}x{height} pixels: at most {MAX_MEGAPIXELS} megapixels and"
            f" {MAX_SIDE} along a side are read, so shrink it"
        )


def _check_size(path: Path, size: tuple[int, int], mode: Mode) -> None:
    width, height = size
    if min(size) < 1:
        raise InputError(f"the photograph {str(path)!r} is empty ({width}x{height} pixels): remove it")
    if mode == "crop" and height > _TALLEST * width:
        raise InputError(
            f"the photograph {str(path)!r} is {width}x{height} pixels, more than {_TALLEST} times as tall as"
            " wide: remove it, or prepare with mode pad"
        )


def resized_size(size: tuple[int, int], mode: Mode, target_size: int, patch_size: int) -> tuple[int, int]:
    """Width and height before the cut; the side that follows is rounded to whole patches, one at least."""
    width, height = size

    def follow(side: int, leader: int) -> int:
        # The order of the operations is the published one: another would round some sizes differently.
        return max(patch_size, round(side * (target_size / leader) / patch_size) * patch_size)

    if mode == "crop" or width >= height:
        return target_size, follow(height, width)
    return follow(width, height), target_size


def centre_on_white(picture: Tensor, height: int, width: int) -> Tensor:
    """A picture ``[3, h, w]`` in the middle of a white one, ``[3, height, width]``.

    >>> centre_on_white(torch.zeros(3, 1, 1), 3, 3)[0, 1].tolist()
    [1.0, 0.0, 1.0]
    """
    canvas = picture.new_ones(3, height, width)
    top, left = (height - picture.shape[1]) // 2, (width - picture.shape[2]) // 2
    canvas[:, top : top + picture.shape[1], left : left + picture.shape[2]] = picture
    return canvas
