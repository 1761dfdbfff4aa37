"""Sequences laid out as those of 7-Scenes and 12-Scenes: ``frame-000000.color.*``, ``.depth.png``, ``.pose.txt``.

Source: Shotton et al., "Scene Coordinate Regression Forests", CVPR 2013 (file names, millimetres, 65535 = none,
intrinsics 585 585 320 240).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.scenes.cameras import MissingPoseError, camera_of, inverse, rigid
from vggtkit.scenes.depth_files import stored_depth
from vggtkit.scenes.naming import natural_key
from vggtkit.scenes.photos import PHOTO_SUFFIXES
from vggtkit.scenes.recording import Frame, Omission, check_exists
from vggtkit.scenes.text_files import read_numbers

_CAMERA = (585.0, 585.0, 320.0, 240.0)
_MILLIMETRES = 1000.0
_NONE = 65535
_COLOUR = re.compile(r"(frame-.+)\.color(\.[a-z]+)", re.IGNORECASE)


def holds_seven_scenes(folder: Path) -> bool:
    """Whether a folder has pictures named as 7-Scenes names them, of any common kind."""
    return any(_frame_name(path) for path in folder.iterdir())


def read_seven_scenes(folder: Path) -> Iterator[Frame | Omission]:
    """The frames of a sequence; those without a usable pose are omissions.

    Raises:
        InputError: a frame without depth, with two pictures, or with a file that is no pose.
    """
    camera = camera_of(folder, _CAMERA)
    files = {path.name.lower(): path for path in folder.iterdir()}
    for name, image in sorted(_pictures(folder).items(), key=lambda item: natural_key(item[0])):
        depth, pose = (_beside(folder, files, f"{name}.{part}") for part in ("depth.png", "pose.txt"))
        check_exists(depth, "depth picture")
        try:
            extrinsics = inverse(_read_pose(pose))
        except MissingPoseError as error:
            yield Omission(pose.name, error.reason)
            continue
        yield Frame(image, camera, extrinsics, stored_depth(depth, _MILLIMETRES, _NONE))


def _frame_name(path: Path) -> str | None:
    """``frame-000000`` of its picture; None of any other file."""
    match = _COLOUR.fullmatch(path.name)
    return match[1] if match and match[2].lower() in PHOTO_SUFFIXES else None


def _pictures(folder: Path) -> dict[str, Path]:
    """Pictures by the name of their frame."""
    pictures: dict[str, Path] = {}
    owners: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = _frame_name(path)
        if name is None:
            continue
        owner = owners.setdefault(name.lower(), path)
        if owner != path:
            raise InputError(f"{str(owner)!r} and {path.name!r} are two pictures of one frame: remove one")
        pictures[name] = path
    return pictures


def _beside(folder: Path, files: dict[str, Path], name: str) -> Path:
    """The file of that name, in whatever case; that name where there is none."""
    return files.get(name.lower(), folder / name)


def _read_pose(path: Path) -> Array:
    """Camera-to-world ``[4, 4]``."""
    if not path.exists():
        raise MissingPoseError(repr(str(path)), "the pose file is missing")
    values = [value for _, row in read_numbers(path, "pose") for value in row]
    if not values:
        raise MissingPoseError(repr(str(path)), "the pose file is empty")
    if len(values) != 16:
        raise InputError(f"{str(path)!r} has {len(values)} numbers: a pose has 16 (4x4, row by row)")
    return rigid(np.array(values).reshape(4, 4), repr(str(path)))
