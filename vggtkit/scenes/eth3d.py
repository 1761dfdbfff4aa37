"""ETH3D scenes, and any other COLMAP text model of undistorted pictures; layout in docs/data.md.

Sources: Schoeps et al., "A Multi-View Stereo Benchmark with High-Resolution Images and Multi-Camera Videos",
CVPR 2017, and the documentation of its files (raw float32 depth, infinite where unknown, of the *distorted*
pictures); COLMAP's documentation of ``cameras.txt`` and ``images.txt`` (quaternion w first, world-to-camera;
the centre of the first pixel is at (0.5, 0.5), hence the half pixel that is taken off here) and of its camera
model ``THIN_PRISM_FISHEYE``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vggtkit.core.errors import InputError
from vggtkit.scenes.ground_truth import (
    Array,
    DepthAt,
    Frame,
    Recording,
    Size,
    find_recordings,
    intrinsics_matrix,
    inverse,
    nearest,
    read_lines,
    rigid,
    rotation_from_quaternion,
)

_MODEL_FOLDERS = (".", "dslr_calibration_undistorted", "rig_calibration_undistorted", "sparse", "sparse/0")
_PARAMETERS = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4, "THIN_PRISM_FISHEYE": 12}
_OFFICIAL_DEPTH = "ground_truth_depth/dslr_images"
_DISTORTED_MODEL = "dslr_calibration_jpg"
_LAYOUT = "COLMAP text model (cameras.txt and images.txt, or dslr_calibration_undistorted/ with them)"


@dataclass(frozen=True)
class _Camera:
    """A line of ``cameras.txt``, in COLMAP's pixel coordinates."""

    model: str
    size: Size
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class _Picture:
    """The first of a picture's two lines in ``images.txt``."""

    name: str
    camera: _Camera
    extrinsics: Array


def read_eth3d(folder: str | Path) -> list[Recording]:
    """The scene of a folder, or the scenes of its subfolders.

    Depth of the undistorted pictures is read from ``depth/`` (the picture's name, or its stem with ``.bin``):
    raw float32, row by row, 0 or infinite where unknown. ETH3D's own depth belongs to the distorted pictures;
    it is looked up through the lens model of ``dslr_calibration_jpg``, never laid on the undistorted ones.

    Args:
        folder: with ``cameras.txt`` and ``images.txt``, or ETH3D's ``dslr_calibration_undistorted``.

    Returns:
        At least one recording; lengths in the model's unit (ETH3D: metres).

    Raises:
        InputError: a missing or damaged file, a distorted camera, or official depth without its lens model.
    """
    return find_recordings(Path(folder), lambda place: _model_folder(place) is not None, _read_scene, _LAYOUT)


def _model_folder(folder: Path) -> Path | None:
    """Any of the two files is enough: the missing one is then named."""
    for name in _MODEL_FOLDERS:
        if any((folder / name / file).is_file() for file in ("cameras.txt", "images.txt")):
            return folder / name
    return None


def _read_scene(folder: Path) -> list[Recording]:
    pictures = _read_model(_model_folder(folder) or folder)
    distorted = _official_cameras(folder)
    frames = []
    for picture in sorted(pictures, key=lambda picture: picture.name):
        intrinsics = _pinhole(picture)
        image = _find_image(folder, picture.name)
        depth = _find_depth(folder, picture, intrinsics, distorted)
        frames.append(Frame(image, intrinsics, picture.extrinsics, depth, picture.camera.size))
    return [Recording(folder.resolve().name, tuple(frames))]


def _read_model(folder: Path) -> list[_Picture]:
    cameras = _read_cameras(folder / "cameras.txt")
    path = folder / "images.txt"
    lines = [line for line in enumerate(read_lines(path, "list of pictures"), 1) if not line[1].startswith("#")]
    while lines and not lines[0][1].strip():
        lines = lines[1:]
    # Every picture has two lines, of which the second (its keypoints) may be empty.
    pictures = [_read_picture(path, number, line, cameras) for number, line in lines[::2] if line.strip()]
    if not pictures:
        raise InputError(f"{str(path)!r} lists no picture: export the model again")
    return pictures


def _read_cameras(path: Path) -> dict[str, _Camera]:
    cameras = {}
    for number, line in enumerate(read_lines(path, "list of cameras"), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            key, model, width, height, *rest = words
            camera = _Camera(model, (int(width), int(height)), tuple(float(word) for word in rest))
        except ValueError:
            raise InputError(f"{str(path)!r} line {number} is no camera: {line.strip()[:60]!r}") from None
        wanted = _PARAMETERS.get(model, len(rest))
        if len(rest) != wanted or not np.isfinite(camera.parameters).all():
            raise InputError(f"{str(path)!r} line {number}: a {model} camera has {wanted} finite parameters")
        cameras[key] = camera
    return cameras


def _read_picture(path: Path, number: int, line: str, cameras: dict[str, _Camera]) -> _Picture:
    place = f"{str(path)!r} line {number}"
    try:
        _, qw, qx, qy, qz, tx, ty, tz, key, name = line.strip().split(maxsplit=9)
        quaternion = tuple(float(word) for word in (qw, qx, qy, qz))
        translation = tuple(float(word) for word in (tx, ty, tz))
    except ValueError:
        raise InputError(f"{place} is no picture (id, quaternion, translation, camera, name): {line[:60]!r}") from None
    if key not in cameras:
        raise InputError(f"{place}: the picture {name!r} has camera {key}, which cameras.txt does not list")
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation_from_quaternion(*quaternion), translation
    return _Picture(name, cameras[key], rigid(pose, place))


def _pinhole(picture: _Picture) -> Array:
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


def _find_image(folder: Path, name: str) -> Path:
    for place in (folder / "images" / name, folder / name):
        if place.is_file():
            return place
    raise InputError(f"the picture {str(folder / 'images' / name)!r} is missing: complete the scene, see docs/data.md")


def _official_cameras(folder: Path) -> dict[str, _Camera] | None:
    """Lens models by file name of the distorted pictures; None where there is no official depth."""
    if not (folder / _OFFICIAL_DEPTH).is_dir():
        return None
    if not (folder / _DISTORTED_MODEL).is_dir():
        raise InputError(
            f"the depth in {str(folder / _OFFICIAL_DEPTH)!r} belongs to the distorted pictures: add their lens model,"
            f" {_DISTORTED_MODEL}/ of the _dslr_jpg archive, or remove the depth"
        )
    return {PurePosixPath(picture.name).name: picture.camera for picture in _read_model(folder / _DISTORTED_MODEL)}


def _find_depth(
    folder: Path, picture: _Picture, intrinsics: Array, distorted: dict[str, _Camera] | None
) -> DepthAt | None:
    name = PurePosixPath(picture.name)
    for place in (name, PurePosixPath(name.name), PurePosixPath(f"{name.stem}.bin")):
        if (folder / "depth" / place).is_file():
            return functools.partial(_raw_depth_at, folder / "depth" / place)
    official = folder / _OFFICIAL_DEPTH / name.name
    if distorted is None or not official.is_file():
        return None
    camera = distorted.get(name.name)
    if camera is None or camera.model != "THIN_PRISM_FISHEYE":
        kind = "no camera" if camera is None else f"the camera model {camera.model}"
        raise InputError(f"{_DISTORTED_MODEL} has {kind} for {name.name!r}: depth needs its THIN_PRISM_FISHEYE model")
    return functools.partial(_official_depth_at, official, camera, inverse(intrinsics))


def _read_raw(path: Path, size: Size) -> NDArray[np.float32]:
    expected, found = 4 * size[0] * size[1], path.stat().st_size
    if found != expected:
        raise InputError(
            f"the depth {str(path)!r} has {found} bytes, {size[0]}x{size[1]} pixels of float32 have {expected}:"
            " it is damaged or belongs to other pictures (ETH3D's own depth to the distorted ones)"
        )
    # A map, because a few thousand of the 24 million values are wanted.
    return np.memmap(path, dtype="<f4", mode="r", shape=(size[1], size[0]))


def _raw_depth_at(path: Path, x: Array, y: Array, size: Size) -> Array:
    return nearest(_read_raw(path, size), x, y)


def _official_depth_at(path: Path, camera: _Camera, inverse: Array, x: Array, y: Array, size: Size) -> Array:
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
