"""Pinhole cameras and poses as matrices, checked where they come out of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.scenes.text_files import read_numbers

_ROTATION_TOLERANCE = 1e-2  # poses are stored as text with few digits; what is worse is no rotation

_SHORTEST = 4.0  # pixels; a shorter focal length is one in widths of the picture


class MissingPoseError(InputError):
    """A frame has no pose: tracking lost it, say. Readers leave the frame out and count it.

    Attributes:
        reason: the same for all frames that lack theirs in the same way.
    """

    def __init__(self, place: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{place}: {reason}: repair it or remove the frame")


def intrinsics_matrix(fx: float, fy: float, cx: float, cy: float) -> Array:
    """``[3, 3]`` without skew.

    >>> intrinsics_matrix(2, 3, 4, 5).tolist()
    [[2.0, 0.0, 4.0], [0.0, 3.0, 5.0], [0.0, 0.0, 1.0]]
    """
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def read_camera(path: Path) -> Array:
    """Intrinsics ``[3, 3]`` of a ``K.txt``: a matrix, or fx fy cx cy.

    Raises:
        InputError: the file is missing or holds no pinhole camera.
    """
    values = [value for _, row in read_numbers(path, "intrinsics") for value in row]
    if len(values) == 4:
        matrix = intrinsics_matrix(*values)
    elif len(values) == 9:
        matrix = np.array(values).reshape(3, 3)
    else:
        raise InputError(f"{str(path)!r} has {len(values)} numbers: give a 3x3 matrix or fx fy cx cy")
    is_camera = np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0
    if not is_camera or matrix[1, 0] != 0 or matrix[2].tolist() != [0, 0, 1]:
        raise InputError(f"{str(path)!r} is no pinhole camera: give fx 0 cx; 0 fy cy; 0 0 1 in pixels, fx and fy > 0")
    if max(matrix[0, 0], matrix[1, 1]) < _SHORTEST:
        raise InputError(
            f"{str(path)!r} has focal lengths of {matrix[0, 0]:g} and {matrix[1, 1]:g}, which look like parts of the "
            f"picture's width; give pixels, at least {_SHORTEST:g}"
        )
    return matrix


def camera_of(folder: Path, default: tuple[float, float, float, float]) -> Array:
    """Intrinsics of a recording: a ``K.txt`` beside the pictures wins over the dataset's nominal camera."""
    path = folder / "K.txt"
    return read_camera(path) if path.exists() else intrinsics_matrix(*default)


def rotation_from_wxyz(w: float, x: float, y: float, z: float) -> Array:
    """``[3, 3]`` of a quaternion of any length but 0 and infinity (of which the matrix is NaN), its real part first.

    >>> rotation_from_wxyz(1, 0, 0, 1).round(6).tolist()  # a quarter turn about z
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    axis = np.array([x, y, z], dtype=np.float64)
    squared = w * w + axis @ axis
    if not 0 < squared < np.inf:
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
        MissingPoseError: a number that is not finite, or a rotation of zeros: both are written for "no pose".
        InputError: a last row other than 0 0 0 1, or no rotation (beyond 0.01).

    >>> rigid(np.eye(4)[:3], "poses.txt line 1").shape
    (4, 4)
    """
    pose = np.eye(4)
    pose[: len(matrix)] = matrix
    if not np.isfinite(pose).all():
        raise MissingPoseError(place, "the pose has a number that is not finite")
    if not pose[:3, :3].any():
        raise MissingPoseError(place, "the pose is all zeros")
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
