"""Cameras and points as a COLMAP model of the pictures as they are on the disk.

Source: COLMAP's documentation of ``cameras.txt``, ``images.txt`` and ``points3D.txt``: quaternion w first, world to
camera; the centre of the first pixel is at (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from analysis.reconstruction.cloud import Cloud
from analysis.reconstruction.pictures import PlacedPicture
from analysis.reconstruction.views import Views
from vggtkit.core.arrays import Array
from vggtkit.model.geometry import quaternion_from_rotation

MOST_POINTS = 100_000
"""Of a COLMAP model: its text takes some 200 bytes a point, and what reads it starts from fewer."""


def stored_camera(intrinsics: Array, picture: PlacedPicture) -> tuple[float, float, float, float]:
    """Focal lengths and principal point in the picture's own pixels, as COLMAP counts them.

    Args:
        intrinsics: ``[3, 3]`` in pixels of the canvas, whole numbers at centres.
        picture: how it lies on the canvas.

    >>> whole = PlacedPicture("a.png", (80, 60), (40, 30), (0, 0))
    >>> stored_camera(np.array([[20.0, 0, 19.5], [0, 20, 14.5], [0, 0, 1]]), whole)
    (40.0, 40.0, 40.0, 30.0)
    """
    across, down = picture.stretch
    (centre_x, centre_y) = stored_pixels(intrinsics[None, :2, 2], picture)[0]
    return float(intrinsics[0, 0] / across), float(intrinsics[1, 1] / down), float(centre_x), float(centre_y)


def stored_pixels(pixels: Array, picture: PlacedPicture) -> Array:
    """Places ``[N, 2]`` on the canvas in the picture's own pixels, as COLMAP counts them."""
    places: Array = (pixels - np.array(picture.corner) + 0.5) / np.array(picture.stretch)
    return places


def listed_names(names: Sequence[str]) -> list[str]:
    """What pictures are called in a COLMAP text, whose names end at a blank: with ``_`` in the place of blanks.

    >>> listed_names(["a.png", "my room.png"]), listed_names(["a b.png", "a_b.png"])
    (['a.png', 'my_room.png'], ['1_a_b.png', '2_a_b.png'])
    """
    listed = ["_".join(name.split()) for name in names]
    alike = {name for name in listed if listed.count(name) > 1}
    return [f"{number}_{name}" if name in alike else name for number, name in enumerate(listed, start=1)]


def write_model(views: Views, pictures: Sequence[PlacedPicture], cloud: Cloud, folder: Path) -> int:
    """Write ``cameras.txt``, ``images.txt`` and ``points3D.txt``.

    Every picture has a camera of its own, as the network predicts one; its number is that of the picture. A point is
    seen in one picture: the one that it was made from.

    Args:
        views: cameras.
        pictures: what they are called and how they lie on the canvas.
        cloud: points; an even choice of `MOST_POINTS` of them is written.
        folder: that is there.

    Returns:
        Points that were written.
    """
    chosen = cloud.spread(MOST_POINTS)
    _write(folder / "cameras.txt", "CAMERA_ID MODEL WIDTH HEIGHT FX FY CX CY", _cameras(views, pictures))
    heading = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then X Y POINT3D_ID of every point"
    _write(folder / "images.txt", heading, _images(views, pictures, chosen))
    _write(folder / "points3D.txt", "POINT3D_ID X Y Z R G B ERROR IMAGE_ID POINT2D_IDX", _points(chosen))
    return len(chosen)


def _write(path: Path, heading: str, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(f"# {heading}\n")
        file.writelines(f"{line}\n" for line in lines)


def _cameras(views: Views, pictures: Sequence[PlacedPicture]) -> Iterable[str]:
    for number, picture in enumerate(pictures):
        numbers = " ".join(f"{value:.9g}" for value in stored_camera(views.intrinsics[number], picture))
        yield f"{number + 1} PINHOLE {picture.size[0]} {picture.size[1]} {numbers}"


def _images(views: Views, pictures: Sequence[PlacedPicture], cloud: Cloud) -> Iterable[str]:
    x, y, z, w = quaternion_from_rotation(torch.from_numpy(views.extrinsics[:, :, :3])).unbind(-1)
    quaternions = torch.stack([w, x, y, z], -1).numpy()
    names = listed_names([picture.name for picture in pictures])
    for number, picture in enumerate(pictures):
        pose = " ".join(f"{value:.12g}" for value in (*quaternions[number], *views.extrinsics[number, :, 3]))
        yield f"{number + 1} {pose} {number + 1} {names[number]}"
        own = np.flatnonzero(cloud.views == number)
        places = stored_pixels(cloud.pixels[own].astype(np.float64), picture)
        yield " ".join(f"{column:.2f} {row:.2f} {index + 1}" for (column, row), index in zip(places, own, strict=True))


def _points(cloud: Cloud) -> Iterable[str]:
    starts = np.searchsorted(cloud.views, cloud.views)
    for index, (point, colour, view) in enumerate(zip(cloud.points, cloud.colours, cloud.views, strict=True)):
        place = " ".join(f"{value:.7g}" for value in point)
        red, green, blue = colour
        yield f"{index + 1} {place} {red} {green} {blue} 0 {view + 1} {index - starts[index]}"
