"""RGB-D recordings in a folder: plain ones, TUM sequences and 7-Scenes sequences; layouts in docs/data.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.scenes.cameras import MissingPoseError, inverse, read_camera, rigid
from vggtkit.scenes.depth_files import stored_depth
from vggtkit.scenes.naming import natural_key, stem_of
from vggtkit.scenes.photos import list_photos, note_skipped
from vggtkit.scenes.recording import Frame, Omission, Recording, find_recordings, recording_of
from vggtkit.scenes.seven_scenes import holds_seven_scenes, read_seven_scenes
from vggtkit.scenes.text_files import read_numbers
from vggtkit.scenes.tum import holds_tum, read_tum

_PICTURES = ("images", "rgb", "color")
_MILLIMETRES = 1000.0
_LAYOUTS = "RGB-D recording (images/ depth/ K.txt poses.txt; or TUM's rgb.txt; or 7-Scenes' frame-*.color.png or .jpg)"


def read_rgbd(folder: str | Path) -> list[Recording]:
    """The recordings of a folder, or of its subfolders (as in 7-Scenes' ``seq-01``).

    Plain recordings have ``images/`` (or ``rgb/``, ``color/``), ``depth/`` (16-bit PNG, 0 = none; values per
    metre in ``depth_scale.txt``, else 1000), ``K.txt`` and ``poses.txt``, one camera-to-world matrix a line in
    the order of the sorted pictures, or ``poses_world_to_camera.txt``.

    Args:
        folder: of any of the three layouts, told by its files.

    Returns:
        At least one recording; depth and translations in metres. Frames without a usable pose are left out and
        counted in its notes.

    Raises:
        InputError: a missing file, counts that differ, or a pose or camera that cannot be one.
    """
    return find_recordings(Path(folder), _holds_recording, _read_recording, _LAYOUTS)


def _holds_recording(folder: Path) -> bool:
    return holds_tum(folder) or holds_seven_scenes(folder) or _holds_plain(folder)


def _read_recording(folder: Path) -> list[Recording]:
    name = folder.resolve().name
    if holds_tum(folder):
        return [recording_of(name, folder, read_tum(folder))]
    if holds_seven_scenes(folder):
        return [recording_of(name, folder, read_seven_scenes(folder))]
    pictures = _picture_folder(folder)
    return [recording_of(name, folder, _read_plain(folder, pictures), notes=note_skipped(pictures))]


def _holds_plain(folder: Path) -> bool:
    """Any part is enough: what is missing beside it is then named."""
    return any((folder / name).exists() for name in ("poses.txt", "poses_world_to_camera.txt", "K.txt", "depth"))


def _picture_folder(folder: Path) -> Path:
    place = next((folder / name for name in _PICTURES if (folder / name).is_dir()), None)
    if place is None:
        raise InputError(f"the recording {str(folder)!r} has no folder images, rgb or color with its pictures")
    return place


def _read_plain(folder: Path, pictures: Path) -> Iterator[Frame | Omission]:
    images, depths = list_photos(pictures), _list_depths(folder / "depth")
    _check_pairs(folder, images, depths)
    rows, inverted = _read_poses(folder, len(images))
    camera = read_camera(folder / "K.txt")
    per_metre = _read_scale(folder / "depth_scale.txt")
    for image, depth, (place, matrix) in zip(images, depths, rows, strict=True):
        try:
            pose = rigid(matrix, place)
        except MissingPoseError as error:
            yield Omission(f"{place}, {image.name}", error.reason)
            continue
        yield Frame(image, camera, pose if inverted else inverse(pose), stored_depth(depth, per_metre))


def _list_depths(folder: Path) -> list[Path]:
    files = folder.iterdir() if folder.is_dir() else iter(())
    depths = (path for path in files if path.suffix.lower() == ".png" and not path.name.startswith("."))
    return sorted(depths, key=lambda path: natural_key(path.name))


def _check_pairs(folder: Path, images: list[Path], depths: list[Path]) -> None:
    if len(images) != len(depths):
        raise InputError(
            f"the recording {str(folder)!r} has {len(images)} pictures but {len(depths)} depth PNGs: each needs its own"
            f"{_other_depth(folder / 'depth')}"
        )
    for paths, what in ((images, "pictures"), (depths, "depth pictures")):
        owners: dict[str, Path] = {}
        for path in paths:
            if owners.setdefault(stem_of(path), path) != path:
                raise InputError(
                    f"the {what} {str(owners[stem_of(path)])!r} and {path.name!r} differ in their ending only, so that"
                    " pictures and depth cannot be told apart: remove or rename one"
                )
    shared = {stem_of(path) for path in images} & {stem_of(path) for path in depths}
    if shared and len(shared) < len(images):
        odd = next(path for path in images if stem_of(path) not in shared)
        raise InputError(f"the picture {str(odd)!r} has no depth picture {odd.stem}.png, though others have theirs")


def _other_depth(folder: Path) -> str:
    """What lies where depth is looked for and is of another kind, for the message."""
    endings = Counter(path.suffix.lower() for path in folder.iterdir()) if folder.is_dir() else Counter()
    others = [f"{count} {ending}" for ending, count in endings.most_common() if ending not in (".png", "")]
    return f", of 16 bits; not read are {', '.join(others)}" if others else ""


def _read_poses(folder: Path, count: int) -> tuple[list[tuple[str, Array]], bool]:
    """The place of each matrix and the matrix, and whether they are world-to-camera."""
    path = folder / "poses.txt"
    inverted = not path.exists() and (folder / "poses_world_to_camera.txt").exists()
    if inverted:
        path = folder / "poses_world_to_camera.txt"
    rows = read_numbers(path, "poses")
    if len(rows) != count:
        raise InputError(f"{str(path)!r} has {len(rows)} poses for {count} pictures: give one a line, in their order")
    for number, values in rows:
        if len(values) not in (12, 16):
            raise InputError(f"{str(path)!r} line {number} has {len(values)} numbers: a pose has 16 (4x4, row by row)")
    return [(f"{str(path)!r} line {number}", np.array(values).reshape(-1, 4)) for number, values in rows], inverted


def _read_scale(path: Path) -> float:
    """Depth values per metre."""
    if not path.exists():
        return _MILLIMETRES
    values = [value for _, row in read_numbers(path, "depth scale") for value in row]
    if len(values) != 1 or not 0 < values[0] < float("inf"):
        raise InputError(f"{str(path)!r} must hold one positive number, the depth values per metre, like 1000")
    return values[0]
