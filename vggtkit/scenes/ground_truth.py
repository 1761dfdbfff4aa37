"""From the frames of a recording to views that the model takes, with the truth about them.

What every dataset's reader hands over is the same: pictures with pinhole cameras in OpenCV axes and, where it
was measured, depth. Pixel k has its centre at coordinate k, as everywhere in this project.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.scenes.photos import Mode, load_photos, resized_size
from vggtkit.scenes.scene import GroundTruth

Array = NDArray[np.float64]
Size = tuple[int, int]  # width, height in pixels, as Pillow has it
# (x, y, size of the picture) -> depth at these pixel coordinates of the stored picture, 0 = none
DepthAt = Callable[[Array, Array, Size], Array]

_ROTATION_TOLERANCE = 1e-2  # poses are stored as text with few digits; what is worse is no rotation
_DEPTH_MODES = frozenset({"I;16", "I;16L", "I;16B", "I"})


@dataclass(frozen=True)
class Frame:
    """One picture of a recording and what is known about it.

    Attributes:
        image: the picture's file.
        intrinsics: ``[3, 3]`` in pixels of the stored picture.
        extrinsics: world-to-camera ``[4, 4]``, OpenCV axes (x right, y down, z forward).
        depth: gives z-depth in the unit of the poses, at any pixel coordinates; None where there is none.
        size: width and height that the intrinsics are made for; None where the dataset does not tell.
    """

    image: Path
    intrinsics: Array
    extrinsics: Array
    depth: DepthAt | None = None
    size: Size | None = None


@dataclass(frozen=True)
class Recording:
    """Frames of one place, in order; scenes never mix two recordings."""

    name: str
    frames: tuple[Frame, ...]


def intrinsics_matrix(fx: float, fy: float, cx: float, cy: float) -> Array:
    """``[3, 3]`` without skew.

    >>> intrinsics_matrix(2, 3, 4, 5).tolist()
    [[2.0, 0.0, 4.0], [0.0, 3.0, 5.0], [0.0, 0.0, 1.0]]
    """
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def rotation_from_quaternion(w: float, x: float, y: float, z: float) -> Array:
    """``[3, 3]`` of a quaternion of any length but 0 (of which the matrix is NaN).

    >>> rotation_from_quaternion(1, 0, 0, 1).round(6).tolist()  # a quarter turn about z
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    axis = np.array([x, y, z], dtype=np.float64)
    squared = w * w + axis @ axis
    if not squared > 0:
        return np.full((3, 3), np.nan)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=np.float64)
    turned: Array = np.eye(3) + 2 * (w * cross + cross @ cross) / squared
    return turned


def rigid(matrix: Array, place: str) -> Array:
    """A pose ``[4, 4]`` whose rotation is exact, from one that went through text.

    Args:
        matrix: ``[3, 4]`` or ``[4, 4]``.
        place: where it stands, for the error.

    Raises:
        InputError: a number that is not finite, a last row other than 0 0 0 1, or no rotation (beyond 0.01).

    >>> rigid(np.eye(4)[:3], "poses.txt line 1").shape
    (4, 4)
    """
    pose = np.eye(4)
    pose[: len(matrix)] = matrix
    if not np.isfinite(pose).all():
        raise InputError(f"{place}: the pose has a number that is not finite: repair it or remove the frame")
    if np.abs(pose[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise InputError(f"{place}: the last row of the pose is {pose[3].tolist()}, not 0 0 0 1")
    error = float(np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max())
    if error > _ROTATION_TOLERANCE or np.linalg.det(pose[:3, :3]) < 0:
        reason = f"R R^T differs from 1 by {error:.2g}" if error > _ROTATION_TOLERANCE else "it mirrors"
        raise InputError(f"{place}: the pose is not a rotation and a translation ({reason}): repair or remove it")
    left, _, right = np.linalg.svd(pose[:3, :3])
    pose[:3, :3] = left @ right
    return pose


def inverse(matrices: Array) -> Array:
    """Of one matrix or several, ``[..., N, N]``.

    >>> inverse(np.diag([2.0, 4.0])).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    return np.asarray(np.linalg.inv(matrices), dtype=np.float64)


def read_numbers(path: Path, what: str) -> list[tuple[int, list[float]]]:
    """Lines of a text file of numbers, with their line numbers; blank lines and ``#`` comments are left out.

    Raises:
        InputError: the file is missing or has something else in it.
    """
    rows = []
    for number, line in enumerate(read_lines(path, what), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        try:
            values = [float(word) for word in words]
        except ValueError:
            raise InputError(f"{str(path)!r} line {number} is not all numbers: {line.strip()[:60]!r}") from None
        if values:
            rows.append((number, values))
    return rows


def read_lines(path: Path, what: str) -> list[str]:
    """Lines of a text file.

    Raises:
        InputError: the file is missing or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        state = f"cannot be read as text ({type(error).__name__})" if path.is_file() else "is missing"
        raise InputError(f"the {what} {str(path)!r} {state}: see docs/data.md for the layout") from error


def read_depth_png(path: Path, size: Size) -> NDArray[np.uint16]:
    """The 16-bit values of a depth picture, ``[height, width]``.

    Raises:
        InputError: the file is missing, damaged, not of 16 bits, or not as large as its picture.
    """
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        state = f"cannot be read: {' '.join(str(error).split())}" if path.exists() else "is missing"
        raise InputError(f"the depth picture {str(path)!r} {state}") from error
    if mode not in _DEPTH_MODES:
        raise InputError(f"the depth picture {str(path)!r} has pixels of kind {mode}: it must be grey of 16 bits")
    check_depth_size(path, (values.shape[1], values.shape[0]), size)
    return values.astype(np.uint16)


def check_depth_size(path: Path, own: Size, picture: Size) -> None:
    """Depth belongs to its picture pixel by pixel.

    Raises:
        InputError: their sizes differ.
    """
    if own != picture:
        raise InputError(
            f"the depth {str(path)!r} is {own[0]}x{own[1]} pixels, its picture {picture[0]}x{picture[1]}:"
            " depth must be registered to the picture, pixel by pixel"
        )


def nearest(values: NDArray[np.generic], x: Array, y: Array) -> Array:
    """Values at the pixels nearest to (x, y), 0 outside; depth is never mixed across an edge.

    >>> nearest(np.array([[1.0, 2.0]]), np.array([0.4, 0.6, 7.0]), np.zeros(3)).tolist()
    [1.0, 2.0, 0.0]
    """
    column, row = np.floor(x + 0.5), np.floor(y + 0.5)
    inside = (column >= 0) & (row >= 0) & (column < values.shape[1]) & (row < values.shape[0])
    found = np.zeros(x.shape)
    found[inside] = values[row[inside].astype(np.int64), column[inside].astype(np.int64)]
    return found


def find_recordings(
    folder: Path, holds: Callable[[Path], bool], read: Callable[[Path], list[Recording]], layout: str
) -> list[Recording]:
    """The recordings of a folder, or of its subfolders where the folder itself has none.

    Args:
        folder: where to look; one level deep.
        holds: whether a folder has the layout.
        read: reads one that has.
        layout: its description, for the error.

    Raises:
        InputError: there is no such folder, or nothing of this layout in it.
    """
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"the folder {str(folder)!r} {state}: give the folder of the recording")
    places = [folder] if holds(folder) else sorted(path for path in folder.iterdir() if path.is_dir() and holds(path))
    if not places:
        raise InputError(f"the folder {str(folder)!r} has no {layout}, nor has a subfolder: see docs/data.md")
    return [recording for place in places for recording in read(place)]


def prepare_views(
    frames: Sequence[Frame], canvas: Size, *, mode: Mode, target_size: int, patch_size: int
) -> tuple[Tensor, GroundTruth]:
    """Pictures as :func:`vggtkit.scenes.photos.load_photos` prepares them, and cameras, depth and points that fit them.

    Resizing by s moves the coordinate x to ``(x + 0.5) * s - 0.5``, because pixel centres are at whole numbers;
    focal lengths and the principal point (which stays the camera's own, not the picture's middle) follow.
    Depth is taken from the nearest stored pixel. The first camera becomes the world frame, and all lengths are
    divided by the mean distance of the valid points of all views to its centre; without any depth, by the mean
    distance of the other cameras to it.

    Args:
        frames: S frames of one recording.
        canvas: width and height of the result; at least those of every prepared picture, which is centred, and
            at most ``target_size``.
        mode: ``"crop"`` or ``"pad"``.
        target_size: pixels.
        patch_size: pixels.

    Returns:
        ``[S, 3, H, W]`` in [0, 1], and the truth (float32; depth and points are 0 where nothing is known).

    Raises:
        InputError: a picture or depth that is missing, damaged, turned by its orientation tag, or not of the
            size that its camera or depth has.
    """
    views = [_prepare(frame, canvas, mode, target_size, patch_size) for frame in frames]
    images = torch.stack([image for image, _, _ in views])
    intrinsics, depth = (np.stack([view[part] for view in views]) for part in (1, 2))
    to_first = inverse(frames[0].extrinsics)
    extrinsics = np.stack([frame.extrinsics @ to_first for frame in frames])
    extrinsics[0] = np.eye(4)
    points = unproject(depth, intrinsics, extrinsics)
    scale = _scale(points, depth, extrinsics)
    extrinsics[:, :3, 3] /= scale
    arrays = (extrinsics[:, :3], intrinsics, depth / scale, points / scale)
    return images, GroundTruth(*(torch.from_numpy(array.astype(np.float32)) for array in arrays))


def unproject(depth: Array, intrinsics: Array, extrinsics: Array) -> Array:
    """World points ``[S, H, W, 3]`` of z-depth ``[S, H, W]``; 0 where the depth is 0.

    Args:
        depth: any unit.
        intrinsics: ``[S, 3, 3]``.
        extrinsics: world-to-camera ``[S, 4, 4]`` in the same unit.

    >>> unproject(np.full((1, 1, 2), 2.0), np.eye(3)[None], np.eye(4)[None])[0, 0].tolist()
    [[0.0, 0.0, 2.0], [2.0, 0.0, 2.0]]
    """
    y, x = np.indices(depth.shape[1:], dtype=np.float64)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ inverse(intrinsics).transpose(0, 2, 1)[:, None]
    # Row vectors: R^T (p - t) is (p - t)^T R.
    points: Array = (rays * depth[..., None] - extrinsics[:, None, None, :3, 3]) @ extrinsics[:, None, :3, :3]
    return np.where(depth[..., None] > 0, points, 0.0)


def _scale(points: Array, depth: Array, extrinsics: Array) -> float:
    valid = points[depth > 0]
    if len(valid):
        return float(np.linalg.norm(valid, axis=-1).mean())
    centres = -(extrinsics[1:, :3, 3:].transpose(0, 2, 1) @ extrinsics[1:, :3, :3])
    spread = float(np.linalg.norm(centres, axis=-1).mean()) if len(centres) else 0.0
    return spread or 1.0


def _prepare(frame: Frame, canvas: Size, mode: Mode, target_size: int, patch_size: int) -> tuple[Tensor, Array, Array]:
    """Image ``[3, H, W]``, intrinsics ``[3, 3]`` and depth ``[H, W]`` of one frame on the canvas."""
    picture = load_photos([frame.image], mode=mode, target_size=target_size, patch_size=patch_size)[0]
    stored = _stored_size(frame)
    resized = resized_size(stored, mode, target_size, patch_size)
    height, width = picture.shape[1:]
    image = picture.new_ones(3, canvas[1], canvas[0])
    top, left = (canvas[1] - height) // 2, (canvas[0] - width) // 2
    image[:, top : top + height, left : left + width] = picture
    surplus = max(0, resized[1] - height)  # rows that crop mode cut, half of them at the top
    corner = ((canvas[0] - resized[0]) // 2, top - surplus // 2 if surplus else (canvas[1] - resized[1]) // 2)
    return image, _placement(stored, resized, corner) @ frame.intrinsics, _depth_on(canvas, frame, resized, corner)


def _placement(stored: Size, resized: Size, corner: tuple[int, int]) -> Array:
    """Pixel coordinates of the canvas from those of the stored picture, homogeneous ``[3, 3]``."""
    scale_x, scale_y = resized[0] / stored[0], resized[1] / stored[1]
    offset_x, offset_y = 0.5 * scale_x - 0.5 + corner[0], 0.5 * scale_y - 0.5 + corner[1]
    return np.array([[scale_x, 0, offset_x], [0, scale_y, offset_y], [0, 0, 1]])


def _depth_on(canvas: Size, frame: Frame, resized: Size, corner: tuple[int, int]) -> Array:
    """Depth ``[H, W]``, 0 where there is none or only white."""
    depth = np.zeros((canvas[1], canvas[0]))
    if frame.depth is None:
        return depth
    stored = _stored_size(frame)
    y, x = np.indices(depth.shape, dtype=np.float64) - np.array(corner[::-1])[:, None, None]
    inside = (x >= 0) & (y >= 0) & (x < resized[0]) & (y < resized[1])
    at_x = (x[inside] + 0.5) * (stored[0] / resized[0]) - 0.5
    at_y = (y[inside] + 0.5) * (stored[1] / resized[1]) - 0.5
    found = frame.depth(at_x, at_y, stored)
    depth[inside] = np.where(np.isfinite(found) & (found > 0), found, 0.0)
    return depth


def _stored_size(frame: Frame) -> Size:
    """Width and height of a picture as stored, which must be as shown and as its camera has it."""
    with Image.open(frame.image) as image:
        size: Size = image.size
        turn = image.getexif().get(0x0112, 1)
    if turn not in (0, 1):
        raise InputError(
            f"the picture {str(frame.image)!r} is turned by its orientation tag ({turn}), its camera and depth are"
            " not: remove the tag"
        )
    if frame.size not in (None, size):
        wanted = "x".join(map(str, frame.size or ()))
        raise InputError(
            f"the picture {str(frame.image)!r} is {size[0]}x{size[1]} pixels, its camera is for {wanted}:"
            " use the pictures that belong to the calibration"
        )
    return size
