"""RGB-D recordings in a folder: plain ones, TUM sequences and 7-Scenes sequences; layouts in docs/data.md.

Sources: Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012 (TUM: file formats,
depth factor 5000, intrinsics, pairs at most 0.02 s apart); Shotton et al., "Scene Coordinate Regression
Forests", CVPR 2013 (7-Scenes: file names, millimetres, 65535 = none, intrinsics 585 585 320 240).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

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
    read_depth_png,
    read_lines,
    read_numbers,
    rigid,
    rotation_from_quaternion,
)
from vggtkit.scenes.photos import list_photos

_PICTURES = ("images", "rgb", "color")
_MILLIMETRES = 1000.0
_TUM_FACTOR = 5000.0
_TUM_APART = 0.02  # seconds between a picture and the depth or pose that belongs to it
_TUM_CAMERAS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
_TUM_DEFAULT = (525.0, 525.0, 319.5, 239.5)
_SEVEN_SCENES_CAMERA = (585.0, 585.0, 320.0, 240.0)
_SEVEN_SCENES_NONE = 65535
_LAYOUTS = "RGB-D recording (images/ depth/ K.txt poses.txt; or TUM's rgb.txt; or 7-Scenes' frame-*.color.png)"


def read_rgbd(folder: str | Path) -> list[Recording]:
    """The recordings of a folder, or of its subfolders (as in 7-Scenes' ``seq-01``).

    Plain recordings have ``images/`` (or ``rgb/``, ``color/``), ``depth/`` (16-bit PNG, 0 = none; values per
    metre in ``depth_scale.txt``, else 1000), ``K.txt`` and ``poses.txt``, one camera-to-world matrix a line in
    the order of the sorted pictures, or ``poses_world_to_camera.txt``.

    Args:
        folder: of any of the three layouts, told by its files.

    Returns:
        At least one recording; depth and translations in metres.

    Raises:
        InputError: a missing file, counts that differ, or a pose or camera that cannot be one.
    """
    return find_recordings(Path(folder), _holds_recording, _read_recording, _LAYOUTS)


def _holds_recording(folder: Path) -> bool:
    return _is_tum(folder) or _is_seven_scenes(folder) or _is_plain(folder)


def _read_recording(folder: Path) -> list[Recording]:
    read = _read_tum if _is_tum(folder) else _read_seven_scenes if _is_seven_scenes(folder) else _read_plain
    frames = read(folder)
    if not frames:
        raise InputError(f"the recording {str(folder)!r} has no frame with a picture, depth and a pose")
    return [Recording(folder.resolve().name, tuple(frames))]


def _is_tum(folder: Path) -> bool:
    return (folder / "rgb.txt").is_file() or (folder / "groundtruth.txt").is_file()


def _is_seven_scenes(folder: Path) -> bool:
    return next(folder.glob("frame-*.color.png"), None) is not None


def _is_plain(folder: Path) -> bool:
    """Any part is enough: what is missing beside it is then named."""
    return any((folder / name).exists() for name in ("poses.txt", "poses_world_to_camera.txt", "K.txt", "depth"))


def _read_plain(folder: Path) -> list[Frame]:
    place = next((folder / name for name in _PICTURES if (folder / name).is_dir()), None)
    if place is None:
        raise InputError(f"the recording {str(folder)!r} has no folder images, rgb or color with its pictures")
    images = list_photos(place)
    depths = sorted(path for path in (folder / "depth").glob("*.png") if not path.name.startswith("."))
    _check_pairs(folder, images, depths)
    extrinsics = _read_poses(folder, len(images))
    camera = _read_camera(folder / "K.txt")
    per_metre = _read_scale(folder / "depth_scale.txt")
    return [
        Frame(image, camera, pose, stored_depth(depth, per_metre))
        for image, depth, pose in zip(images, depths, extrinsics, strict=True)
    ]


def _check_pairs(folder: Path, images: list[Path], depths: list[Path]) -> None:
    if len(images) != len(depths):
        raise InputError(
            f"the recording {str(folder)!r} has {len(images)} pictures but {len(depths)} depth PNGs: each needs its own"
        )
    shared = {path.stem for path in images} & {path.stem for path in depths}
    if shared and len(shared) < len(images):
        odd = next(path for path in images if path.stem not in shared)
        raise InputError(f"the picture {str(odd)!r} has no depth picture {odd.stem}.png, though others have theirs")


def _read_poses(folder: Path, count: int) -> list[Array]:
    """World-to-camera matrices."""
    path = folder / "poses.txt"
    inverted = not path.exists() and (folder / "poses_world_to_camera.txt").exists()
    if inverted:
        path = folder / "poses_world_to_camera.txt"
    rows = read_numbers(path, "poses")
    if len(rows) != count:
        raise InputError(f"{str(path)!r} has {len(rows)} poses for {count} pictures: give one a line, in their order")
    poses = []
    for number, values in rows:
        if len(values) not in (12, 16):
            raise InputError(f"{str(path)!r} line {number} has {len(values)} numbers: a pose has 16 (4x4, row by row)")
        pose = rigid(np.array(values).reshape(-1, 4), f"{str(path)!r} line {number}")
        poses.append(pose if inverted else inverse(pose))
    return poses


def _read_camera(path: Path) -> Array:
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
    return matrix


def _read_scale(path: Path) -> float:
    """Depth values per metre."""
    if not path.exists():
        return _MILLIMETRES
    values = [value for _, row in read_numbers(path, "depth scale") for value in row]
    if len(values) != 1 or not 0 < values[0] < float("inf"):
        raise InputError(f"{str(path)!r} must hold one positive number, the depth values per metre, like 1000")
    return values[0]


def _read_tum(folder: Path) -> list[Frame]:
    """Pictures that have depth and a pose near their time; the others are left out, as the dataset does."""
    images = _read_stamped(folder / "rgb.txt", 1, "list of pictures")
    depths = _read_stamped(folder / "depth.txt", 1, "list of depth pictures")
    poses = _read_stamped(folder / "groundtruth.txt", 7, "camera path")
    known = (values for name, values in _TUM_CAMERAS.items() if name in folder.resolve().name)
    camera = _camera_or(folder, next(known, _TUM_DEFAULT))
    frames = []
    for time, (name,) in images:
        depth, pose = _near(depths, time), _near(poses, time)
        if depth is None or pose is None:
            continue
        image, stored = folder / name, folder / depth[0]
        _check_exists(image, "picture")
        _check_exists(stored, "depth picture")
        extrinsics = _from_tum(pose, f"{str(folder / 'groundtruth.txt')!r} near time {time:.6f}")
        frames.append(Frame(image, camera, extrinsics, stored_depth(stored, _TUM_FACTOR)))
    return frames


def _read_stamped(path: Path, columns: int, what: str) -> list[tuple[float, list[str]]]:
    """Lines ``time value ...`` in the order of time."""
    rows = []
    for number, line in enumerate(read_lines(path, what), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            if len(words) != columns + 1:
                raise ValueError
            rows.append((float(words[0]), words[1:]))
        except ValueError:
            form = "a time and a file" if columns == 1 else "a time and tx ty tz qx qy qz qw"
            raise InputError(f"{str(path)!r} line {number} is not {form}: {line.strip()[:60]!r}") from None
    return sorted(rows)


def _near(rows: list[tuple[float, list[str]]], time: float) -> list[str] | None:
    """The values nearest in time, if they are near enough."""
    times = np.array([row[0] for row in rows])
    if not len(times):
        return None
    nearest_row = int(np.abs(times - time).argmin())
    return rows[nearest_row][1] if abs(times[nearest_row] - time) <= _TUM_APART else None


def _from_tum(words: list[str], place: str) -> Array:
    """World-to-camera from ``tx ty tz qx qy qz qw``, which is camera-to-world."""
    try:
        tx, ty, tz, qx, qy, qz, qw = map(float, words)
    except ValueError:
        raise InputError(f"{place}: the pose is not all numbers: {' '.join(words)[:60]!r}") from None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation_from_quaternion(qw, qx, qy, qz), (tx, ty, tz)
    return inverse(rigid(pose, place))


def _read_seven_scenes(folder: Path) -> list[Frame]:
    camera = _camera_or(folder, _SEVEN_SCENES_CAMERA)
    frames = []
    for image in sorted(folder.glob("frame-*.color.png")):
        stem = image.name.removesuffix(".color.png")
        depth, pose = folder / f"{stem}.depth.png", folder / f"{stem}.pose.txt"
        _check_exists(depth, "depth picture")
        values = [value for _, row in read_numbers(pose, "pose") for value in row]
        if len(values) != 16:
            raise InputError(f"{str(pose)!r} has {len(values)} numbers: a pose has 16 (4x4, row by row)")
        extrinsics = inverse(rigid(np.array(values).reshape(4, 4), repr(str(pose))))
        frames.append(Frame(image, camera, extrinsics, stored_depth(depth, _MILLIMETRES, _SEVEN_SCENES_NONE)))
    return frames


def _camera_or(folder: Path, default: tuple[float, float, float, float]) -> Array:
    """A ``K.txt`` beside the pictures wins over the dataset's nominal camera."""
    path = folder / "K.txt"
    return _read_camera(path) if path.exists() else intrinsics_matrix(*default)


def _check_exists(path: Path, what: str) -> None:
    if not path.is_file():
        raise InputError(f"the {what} {str(path)!r} is missing: complete the recording or remove the frame")


def stored_depth(path: Path, per_metre: float, none: int = 0) -> DepthAt:
    """Depth in metres from a 16-bit PNG, read when it is asked for.

    Args:
        path: of the PNG.
        per_metre: values per metre.
        none: a value that means no depth, beside 0.
    """
    return functools.partial(_depth_at, path, per_metre, none)


def _depth_at(path: Path, per_metre: float, none: int, x: Array, y: Array, size: Size) -> Array:
    values = nearest(read_depth_png(path, size), x, y)
    return np.where(values == none, 0.0, values / per_metre)
