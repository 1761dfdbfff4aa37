"""Sequences of the TUM RGB-D benchmark: lists of pictures, depth and poses, joined by their times.

Source: Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012 (file formats, depth factor
5000, intrinsics, pairs at most 0.02 s apart).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.scenes.cameras import MissingPoseError, camera_of, inverse, rigid, rotation_from_wxyz
from vggtkit.scenes.depth_files import stored_depth
from vggtkit.scenes.recording import Frame, Omission, check_exists
from vggtkit.scenes.text_files import number_words, read_lines

_FACTOR = 5000.0
_APART = 0.02  # seconds between a picture and the depth or pose that belongs to it
_CAMERAS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
_DEFAULT = (525.0, 525.0, 319.5, 239.5)


@dataclass(frozen=True)
class _Stamped:
    """The lines of a list.

    Attributes:
        path: of the list.
        times: seconds, ascending, ``[N]``.
        values: what stands behind each time.
    """

    path: Path
    times: Array
    values: list[str]

    def near(self, time: float) -> int | None:
        """The line nearest in time; None where the list is empty."""
        if not len(self.times):
            return None
        after = int(np.searchsorted(self.times, time))
        return min(
            (row for row in (after - 1, after) if 0 <= row < len(self.times)), key=lambda row: self.gap(row, time)
        )

    def gap(self, row: int, time: float) -> float:
        """Seconds between a line and a time."""
        return abs(float(self.times[row]) - time)


def holds_tum(folder: Path) -> bool:
    """Any of the two files is enough: the missing one is then named."""
    return (folder / "rgb.txt").is_file() or (folder / "groundtruth.txt").is_file()


def read_tum(folder: Path) -> Iterator[Frame | Omission]:
    """Pictures that have depth and a pose near their time; the others are omissions, as the dataset means it.

    No two pictures have one depth or pose: it goes to the picture that is nearest to it in time.

    Raises:
        InputError: a missing or damaged file, or clocks that have no time in common.
    """
    images = _read_list(folder / "rgb.txt", "list of pictures", is_pose=False)
    depths = _read_list(folder / "depth.txt", "list of depth pictures", is_pose=False)
    poses = _read_list(folder / "groundtruth.txt", "camera path", is_pose=True)
    for other in (depths, poses):
        _check_clocks(images, other)
    known = (values for name, values in _CAMERAS.items() if name in folder.resolve().name)
    camera = camera_of(folder, next(known, _DEFAULT))
    owned = [_owned(images.times, depths, "depth"), _owned(images.times, poses, "pose")]
    for time, name, depth, pose in zip(images.times.tolist(), images.values, *owned, strict=True):
        if isinstance(depth, str) or isinstance(pose, str):
            yield Omission(name, depth if isinstance(depth, str) else str(pose))
        else:
            yield _frame(folder, camera, time, name, (depths, depth), (poses, pose))


def _owned(times: Array, stamped: _Stamped, what: str) -> list[int | str]:
    """For each picture the line that is its own, or why it has none; of several near one line, the nearest has it."""
    near = [stamped.near(time) for time in times.tolist()]
    gaps = [np.inf if row is None else stamped.gap(row, time) for row, time in zip(near, times.tolist(), strict=True)]
    owners: dict[int | None, int] = {}
    for picture in sorted(range(len(times)), key=lambda index: gaps[index]):
        owners.setdefault(near[picture], picture)
    owned: list[int | str] = []
    for picture, (row, gap) in enumerate(zip(near, gaps, strict=True)):
        if row is None or gap > _APART:
            owned.append(f"no {what} within {_APART:g} s of its time")
        else:
            owned.append(row if owners[row] == picture else f"its {what} belongs to a picture nearer in time")
    return owned


def _frame(
    folder: Path, camera: Array, time: float, name: str, depth: tuple[_Stamped, int], pose: tuple[_Stamped, int]
) -> Frame | Omission:
    """A picture with its lines of depth and pose."""
    (depths, depth_row), (poses, pose_row) = depth, pose
    image, stored = folder / name, folder / depths.values[depth_row]
    check_exists(image, "picture")
    check_exists(stored, "depth picture")
    place = f"{str(poses.path)!r} near time {time:.6f}"
    try:
        extrinsics = _extrinsics(poses.values[pose_row].split(), place)
    except MissingPoseError as error:
        return Omission(place, error.reason)
    return Frame(image, camera, extrinsics, stored_depth(stored, _FACTOR))


def _check_clocks(images: _Stamped, other: _Stamped) -> None:
    """Lists of which no two times are near were written by different clocks, or in another unit than seconds.

    Raises:
        InputError: with the smallest gap between the two.
    """
    if not len(images.times) or not len(other.times):
        return
    gaps = [other.gap(other.near(time) or 0, time) for time in images.times.tolist()]
    if min(gaps) > _APART:
        spans = " and ".join(
            f"{stamped.path.name} ({stamped.times[0]:.6f} to {stamped.times[-1]:.6f})" for stamped in (images, other)
        )
        raise InputError(
            f"the recording {str(images.path.parent)!r} has no frame with a picture, depth and a pose: the clocks of"
            f" {spans} are {min(gaps):.6g} s apart where they are nearest, the limit is {_APART:g} s: bring both lists"
            " to the same clock, in seconds"
        )


def _read_list(path: Path, what: str, *, is_pose: bool) -> _Stamped:
    """Lines ``time file`` or ``time tx ty tz qx qy qz qw``, in the order of time."""
    rows = []
    for number, line in enumerate(read_lines(path, what), start=1):
        text = " ".join(number_words(line)) if is_pose else line.split("#")[0].strip()
        if not text:
            continue
        time, _, value = text.replace("\t", " ").partition(" ")
        try:
            if not value or (is_pose and len(value.split()) != 7) or not np.isfinite(float(time)):
                raise ValueError
            rows.append((float(time), value.strip()))
        except ValueError:
            form = "a time and tx ty tz qx qy qz qw" if is_pose else "a time and a file"
            raise InputError(f"{str(path)!r} line {number} is not {form}: {line.strip()[:60]!r}") from None
    rows.sort()
    return _Stamped(path, np.array([time for time, _ in rows]), [value for _, value in rows])


def _extrinsics(words: list[str], place: str) -> Array:
    """World-to-camera from ``tx ty tz qx qy qz qw``, which is camera-to-world."""
    try:
        tx, ty, tz, qx, qy, qz, qw = map(float, words)
    except ValueError:
        raise InputError(f"{place}: the pose is not all numbers: {' '.join(words)[:60]!r}") from None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation_from_wxyz(qw, qx, qy, qz), (tx, ty, tz)
    return inverse(rigid(pose, place))
