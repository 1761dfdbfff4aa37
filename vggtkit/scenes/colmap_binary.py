"""The binary files of a COLMAP model, ``cameras.bin`` and ``images.bin``, read with every length checked.

Source: COLMAP's documentation of its output format; all numbers are little-endian::

    cameras.bin  count u64; each: id i32, model i32, width u64, height u64, parameters f64 x (by model)
    images.bin   count u64; each: id i32, qw qx qy qz tx ty tz f64, camera i32, name to a zero byte,
                 keypoints u64, each: x f64, y f64, point i64
"""

from __future__ import annotations

import shlex
import struct
from pathlib import Path
from typing import Any

import numpy as np

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import in_one_line
from vggtkit.scenes.colmap import PARAMETERS, Camera, ColmapPicture, picture_of

_LONGEST_NAME = 4096
_KEYPOINT = 24  # bytes
_MODELS = tuple(PARAMETERS.items())


class _Damaged(Exception):  # noqa: N818 - never leaves this module
    """What a file holds is not what its layout says."""


class _Bytes:
    """A file's content, taken from front to back."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{layout}")
        start = self.skip(size)
        return struct.unpack_from(f"<{layout}", self.content, start)

    def skip(self, size: int) -> int:
        """Go on by so many bytes; returns where they begin."""
        start, left = self.at, len(self.content) - self.at
        if size > left:
            raise _Damaged(f"{size} bytes are expected at byte {start}, {left} are left")
        self.at += size
        return start

    def take_name(self) -> str:
        end = self.content.find(b"\0", self.at, self.at + _LONGEST_NAME)
        if end < 0:
            raise _Damaged(f"the name at byte {self.at} does not end")
        start = self.skip(end + 1 - self.at)
        return self.content[start:end].decode("utf-8")


def read_binary_model(folder: Path) -> list[ColmapPicture]:
    """The pictures of ``cameras.bin`` and ``images.bin``.

    Raises:
        InputError: a missing or damaged file, or a camera model that is not known; the message has the command that
            converts the model to text.
    """
    cameras_path, images_path = folder / "cameras.bin", folder / "images.bin"
    path = cameras_path
    try:
        cameras = _read_cameras(_Bytes(cameras_path))
        path = images_path
        return _read_pictures(_Bytes(images_path), images_path, cameras)
    except OSError as error:
        state = "is missing" if not path.exists() else f"cannot be read ({error.strerror})"
        raise InputError(f"the COLMAP model {str(path)!r} {state}: export the model again") from error
    except (_Damaged, UnicodeDecodeError) as error:
        reason = in_one_line(error)
        place = shlex.quote(str(folder))
        raise InputError(
            f"the COLMAP model {str(path)!r} is damaged or of a newer version ({reason}); convert it to text with"
            f" `colmap model_converter --input_path {place} --output_path {place} --output_type TXT`"
        ) from error


def _read_cameras(file: _Bytes) -> dict[int, Camera]:
    cameras: dict[int, Camera] = {}
    (count,) = file.take("Q")
    for _ in range(count):
        key, model, width, height = file.take("iiQQ")
        if not 0 <= model < len(_MODELS):
            raise _Damaged(f"camera {key} has the model number {model}, known are 0 to {len(_MODELS) - 1}")
        name, length = _MODELS[model]
        parameters = file.take(f"{length}d")
        if not (0 < width < 2**31 and 0 < height < 2**31 and np.isfinite(parameters).all()):
            raise _Damaged(f"camera {key} is for {width}x{height} pixels with the parameters {parameters}")
        camera = Camera(name, (width, height), parameters)
        if cameras.setdefault(key, camera) != camera:
            raise _Damaged(f"camera {key} is there twice with other values")
    _check_end(file)
    return cameras


def _read_pictures(file: _Bytes, path: Path, cameras: dict[int, Camera]) -> list[ColmapPicture]:
    pictures = []
    (count,) = file.take("Q")
    for _ in range(count):
        key, *values, camera = file.take("i7di")
        name = file.take_name()
        (keypoints,) = file.take("Q")
        file.skip(_KEYPOINT * keypoints)
        if camera not in cameras:
            raise _Damaged(f"the picture {name!r} has camera {camera}, which cameras.bin does not list")
        pictures.append(picture_of(name, cameras[camera], values[:4], values[4:], f"{str(path)!r} picture {key}"))
    _check_end(file)
    return pictures


def _check_end(file: _Bytes) -> None:
    left = len(file.content) - file.at
    if left:
        raise _Damaged(f"{left} bytes are left at the end")
