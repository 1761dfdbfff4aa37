"""ETH3D scenes, and any other COLMAP model of undistorted pictures; layout in docs/data.md.

Sources: Schoeps et al., "A Multi-View Stereo Benchmark with High-Resolution Images and Multi-Camera Videos",
CVPR 2017, and the documentation of its files (raw float32 depth, infinite where unknown, of the *distorted*
pictures); COLMAP's documentation of its files (the centre of the first pixel is at (0.5, 0.5), hence the half pixel
that is taken off here) and of its camera model ``THIN_PRISM_FISHEYE``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.scenes.cameras import MissingPoseError, intrinsics_matrix, inverse, rigid
from vggtkit.scenes.colmap import Camera, ColmapPicture, read_text_model
from vggtkit.scenes.colmap_binary import read_binary_model
from vggtkit.scenes.depth_files import DepthAt, Size, nearest
from vggtkit.scenes.naming import natural_key
from vggtkit.scenes.recording import Frame, Omission, Recording, find_recordings, recording_of

_MODEL_FOLDERS = (".", "dslr_calibration_undistorted", "rig_calibration_undistorted", "sparse", "sparse/0")
_OFFICIAL_DEPTH = "ground_truth_depth/dslr_images"
_DISTORTED_MODEL = "dslr_calibration_jpg"
_LAYOUT = "COLMAP text model (cameras.txt and images.txt, or dslr_calibration_undistorted/ with them; or both as .bin)"


def read_eth3d(folder: str | Path) -> list[Recording]:
    """The scene of a folder, or the scenes of its subfolders.

    Depth of the undistorted pictures is read from ``depth/`` (the picture's name, or its stem with ``.bin``):
    raw float32, row by row, 0 or infinite where unknown. ETH3D's own depth belongs to the distorted pictures;
    it is looked up through the lens model of ``dslr_calibration_jpg``, never laid on the undistorted ones.

    Args:
        folder: with ``cameras.txt`` and ``images.txt`` (or both as ``.bin``), or ETH3D's
            ``dslr_calibration_undistorted``.

    Returns:
        At least one recording; lengths in the model's unit (ETH3D: metres).

    Raises:
        InputError: a missing or damaged file, a distorted camera, two pictures that would share one depth, or
            official depth without its lens model.
    """
    return find_recordings(Path(folder), lambda place: _model_folder(place) is not None, _read_scene, _LAYOUT)


def _model_folder(folder: Path) -> Path | None:
    """Any of the two files is enough: the missing one is then named."""
    for name in _MODEL_FOLDERS:
        if any(_files_there(folder / name)):
            return folder / name
    return None


def _files_there(folder: Path) -> tuple[int, int]:
    """How many of the two files of a model are there, as text and as binary."""
    text, binary = (
        sum((folder / f"{stem}.{ending}").is_file() for stem in ("cameras", "images")) for ending in ("txt", "bin")
    )
    return text, binary


def _read_scene(folder: Path) -> list[Recording]:
    pictures = sorted(_read_model(_model_folder(folder) or folder), key=lambda picture: natural_key(picture.name))
    name = folder.resolve().name
    return [recording_of(name, folder, _frames(folder, pictures), needs="a picture and a pose")]


def _read_model(folder: Path) -> list[ColmapPicture]:
    text, binary = _files_there(folder)
    pictures = read_binary_model(folder) if binary > text else read_text_model(folder)
    if not pictures:
        path = folder / ("images.bin" if binary > text else "images.txt")
        raise InputError(f"{str(path)!r} lists no picture: export the model again")
    return pictures


def _frames(folder: Path, pictures: list[ColmapPicture]) -> Iterator[Frame | Omission]:
    distorted = _official_cameras(folder)
    owners: dict[Path, str] = {}
    for picture in pictures:
        intrinsics = _pinhole(picture)
        image = _locate_image(folder, picture.name)
        path = _locate_depth(folder, PurePosixPath(picture.name))
        if path is not None:
            _check_owner(owners.setdefault(path, picture.name), picture.name, path)
        try:
            pose = rigid(picture.pose, picture.place)
        except MissingPoseError as error:
            yield Omission(picture.place, error.reason)
            continue
        depth = _depth_in(path, folder, intrinsics, distorted) if path else None
        yield Frame(image, intrinsics, pose, depth, picture.camera.size)


def _check_owner(owner: str, name: str, path: Path) -> None:
    """One depth is of one picture: names without their folders may be the same in two."""
    if owner != name:
        raise InputError(
            f"the pictures {owner!r} and {name!r} would share the depth {str(path)!r}: store each under the picture's"
            f" own path, like depth/{PurePosixPath(name).with_suffix('.bin')}"
        )


def _pinhole(picture: ColmapPicture) -> Array:
    """Intrinsics with pixel centres at whole numbers."""
    model, values = picture.camera.model, picture.camera.parameters
    if model not in ("PINHOLE", "SIMPLE_PINHOLE"):
        raise InputError(
            f"the picture {picture.name!r} has a distorted camera ({model}): use the undistorted pictures and"
            " their calibration (PINHOLE)"
        )
    fx, fy, cx, cy = values if model == "PINHOLE" else (values[0], *values)
    if fx <= 0 or fy <= 0:
        raise InputError(f"the picture {picture.name!r} has focal lengths {fx:g} and {fy:g}: they must be above 0")
    return intrinsics_matrix(fx, fy, cx - 0.5, cy - 0.5)


def _locate_image(folder: Path, name: str) -> Path:
    for place in (folder / "images" / name, folder / name):
        if place.is_file():
            return place
    raise InputError(f"the picture {str(folder / 'images' / name)!r} is missing: complete the scene, see docs/data.md")


def _official_cameras(folder: Path) -> dict[str, Camera] | None:
    """Lens models by file name of the distorted pictures; None where there is no official depth."""
    if not (folder / _OFFICIAL_DEPTH).is_dir():
        return None
    if not (folder / _DISTORTED_MODEL).is_dir():
        raise InputError(
            f"the depth in {str(folder / _OFFICIAL_DEPTH)!r} belongs to the distorted pictures: add their lens model,"
            f" {_DISTORTED_MODEL}/ of the _dslr_jpg archive, or remove the depth"
        )
    return {PurePosixPath(picture.name).name: picture.camera for picture in _read_model(folder / _DISTORTED_MODEL)}


def _locate_depth(folder: Path, name: PurePosixPath) -> Path | None:
    """Depth under the picture's path, else under its name alone, else the official one; None where there is none."""
    endings = (name.suffix, ".bin", ".BIN")
    own = [place.with_suffix(ending) for place in (name, PurePosixPath(name.name)) for ending in endings]
    places = [*(folder / "depth" / place for place in own), folder / _OFFICIAL_DEPTH / name.name]
    return next((place for place in places if place.is_file()), None)


def _depth_in(path: Path, folder: Path, intrinsics: Array, distorted: dict[str, Camera] | None) -> DepthAt:
    """What reads a depth: the official one through the lens of the distorted picture."""
    if path.parent != folder / _OFFICIAL_DEPTH or distorted is None:
        return functools.partial(_raw_depth_at, path)
    camera = distorted.get(path.name)
    if camera is None or camera.model != "THIN_PRISM_FISHEYE":
        kind = "no camera" if camera is None else f"the camera model {camera.model}"
        raise InputError(f"{_DISTORTED_MODEL} has {kind} for {path.name!r}: depth needs its THIN_PRISM_FISHEYE model")
    return functools.partial(_official_depth_at, path, camera, inverse(intrinsics))


def _read_raw(path: Path, size: Size) -> NDArray[np.float32]:
    expected, actual = 4 * size[0] * size[1], path.stat().st_size
    if actual != expected:
        raise InputError(
            f"the depth {str(path)!r} has {actual} bytes, {size[0]}x{size[1]} pixels of float32 have {expected}:"
            " it is damaged or belongs to other pictures (ETH3D's own depth to the distorted ones)"
        )
    # A map, because a few thousand of the 24 million values are wanted.
    return np.memmap(path, dtype="<f4", mode="r", shape=(size[1], size[0]))


def _raw_depth_at(path: Path, x: Array, y: Array, size: Size) -> Array:
    return nearest(_read_raw(path, size), x, y)


def _official_depth_at(path: Path, camera: Camera, inverse: Array, x: Array, y: Array, size: Size) -> Array:
    """Depth where the distorted picture shows what the undistorted one shows at (x, y).

    Both share the camera's centre and axes, so the z-depth of a ray is the same in both.
    """
    del size  # of the undistorted picture: the depth is as large as the distorted one
    rays = inverse @ np.stack([x, y, np.ones_like(x)])
    seen_x, seen_y = thin_prism_fisheye(rays[0] / rays[2], rays[1] / rays[2], camera.parameters)
    return nearest(_read_raw(path, camera.size), seen_x - 0.5, seen_y - 0.5)


def thin_prism_fisheye(u: Array, v: Array, parameters: tuple[float, ...]) -> tuple[Array, Array]:
    """Where a ``THIN_PRISM_FISHEYE`` camera shows the ray (u, v, 1), in COLMAP's pixel coordinates.

    With ``theta`` the angle to the axis, ``(a, b) = (u, v) * theta / tan(theta)`` and ``s = a^2 + b^2``::

        a' = a + a (k1 s + k2 s^2 + k3 s^3 + k4 s^4) + 2 p1 a b + p2 (s + 2 a^2) + sx1 s
        b' = b + b (k1 s + k2 s^2 + k3 s^3 + k4 s^4) + 2 p2 a b + p1 (s + 2 b^2) + sy1 s

    Args:
        u: x / z of the rays.
        v: y / z of the rays.
        parameters: fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1.

    Source: documentation of ETH3D and COLMAP.

    >>> thin_prism_fisheye(np.zeros(1), np.zeros(1), (500, 500, 320, 240, *[0.1] * 8))
    (array([320.]), array([240.]))
    """
    fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1 = parameters
    radius = np.hypot(u, v)
    shrink = np.where(radius > 1e-9, np.arctan(radius) / np.maximum(radius, 1e-9), 1.0)
    a, b = u * shrink, v * shrink
    s = a * a + b * b
    radial = s * (k1 + s * (k2 + s * (k3 + s * k4)))
    x = a + a * radial + 2 * p1 * a * b + p2 * (s + 2 * a * a) + sx1 * s
    y = b + b * radial + 2 * p2 * a * b + p1 * (s + 2 * b * b) + sy1 * s
    return fx * x + cx, fy * y + cy
