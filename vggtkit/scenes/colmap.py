"""Cameras and pictures of a COLMAP model, from its text files or its binary ones.

Source: COLMAP's documentation of ``cameras.txt`` and ``images.txt`` (two lines a picture, of which the second, its
keypoints, may be empty; quaternion w first, world-to-camera; the centre of the first pixel is at (0.5, 0.5)).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.scenes.cameras import rotation_from_wxyz
from vggtkit.scenes.depth_files import Size
from vggtkit.scenes.text_files import number_words, read_lines

PARAMETERS = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12,
    "FOV": 5,
    "SIMPLE_RADIAL_FISHEYE": 4,
    "RADIAL_FISHEYE": 5,
    "THIN_PRISM_FISHEYE": 12,
    "RAD_TAN_THIN_PRISM_FISHEYE": 16,
}
"""Numbers that a camera model has, in the order of the numbers that binary files give the models."""


@dataclass(frozen=True)
class Camera:
    """A camera in COLMAP's pixel coordinates."""

    model: str
    size: Size
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class ColmapPicture:
    """A picture of a model.

    Attributes:
        name: path below the folder of pictures, with slashes.
        camera: its camera.
        pose: world-to-camera ``[3, 4]``; NaN where the quaternion is none.
        place: where it stands, for errors.
    """

    name: str
    camera: Camera
    pose: Array
    place: str


def picture_of(
    name: str, camera: Camera, quaternion: list[float], translation: list[float], place: str
) -> ColmapPicture:
    """A picture whose pose is given as COLMAP stores it, ``qw qx qy qz`` and ``tx ty tz``."""
    w, x, y, z = quaternion
    pose = np.concatenate([rotation_from_wxyz(w, x, y, z), np.array(translation)[:, None]], 1)
    return ColmapPicture(name, camera, pose, place)


def read_text_model(folder: Path) -> list[ColmapPicture]:
    """The pictures of ``cameras.txt`` and ``images.txt``.

    Blank lines may be doubled, and keypoints left out altogether, as tools do that write poses alone.

    Raises:
        InputError: a missing or damaged file, or a picture without a camera.
    """
    cameras = _read_cameras(folder / "cameras.txt")
    path = folder / "images.txt"
    return [_read_picture(path, number, line, cameras) for number, line in _picture_lines(path)]


def _read_cameras(path: Path) -> dict[str, Camera]:
    cameras: dict[str, Camera] = {}
    for number, line in enumerate(read_lines(path, "list of cameras"), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            key, model, width, height, *rest = words
            camera = Camera(model, (int(width), int(height)), tuple(float(word) for word in rest))
        except ValueError:
            raise InputError(f"{str(path)!r} line {number} is no camera: {line.strip()[:60]!r}") from None
        wanted = PARAMETERS.get(model, len(rest))
        if len(rest) != wanted or not np.isfinite(camera.parameters).all():
            raise InputError(f"{str(path)!r} line {number}: a {model} camera has {wanted} finite parameters")
        if cameras.setdefault(key, camera) != camera:
            raise InputError(f"{str(path)!r} line {number}: camera {key} is there twice with other values: remove one")
    return cameras


def _picture_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The first of each picture's lines, with its number; a line of keypoints may follow it directly."""
    after_picture = False
    for number, line in enumerate(read_lines(path, "list of pictures"), 1):
        if line.startswith("#"):
            continue
        if not line.strip() or (after_picture and _holds_keypoints(line)):
            after_picture = False
        else:
            yield number, line
            after_picture = True


def _holds_keypoints(line: str) -> bool:
    """Whether a line is ``x y id`` once or more; a picture's line ends in a name, which is no whole number."""
    words = line.split()
    try:
        int(words[-1])
        [float(word) for word in words[:10]]  # a line may have a hundred thousand
    except ValueError:
        return False
    return len(words) % 3 == 0


def _read_picture(path: Path, number: int, line: str, cameras: dict[str, Camera]) -> ColmapPicture:
    place = f"{str(path)!r} line {number}"
    try:
        first, *numbers, key, name = line.strip().split(maxsplit=9)
        int(first)
        values = [float(word) for word in number_words(" ".join(numbers))]
        quaternion, translation = values[:4], values[4:]
        if len(values) != 7:
            raise ValueError
    except ValueError:
        raise InputError(f"{place} is no picture (id, quaternion, translation, camera, name): {line[:60]!r}") from None
    if key not in cameras:
        raise InputError(f"{place}: the picture {name!r} has camera {key}, which cameras.txt does not list")
    return picture_of(name, cameras[key], quaternion, translation, place)
