"""CO3Dv2 categories: gzipped JSON annotations, PyTorch3D cameras; layout in docs/data.md.

Sources: Reizenstein et al., "Common Objects in 3D", ICCV 2021, and the annotation types published with it
(formats ``ndc_isotropic`` and ``ndc_norm_image_bounds``, depth as float16 bits in 16-bit PNG); PyTorch3D's
notes on cameras (row vectors, x left, y up, z forward; the picture's corners at the bounds of NDC).
"""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.core.escaping import in_one_line
from vggtkit.scenes.cameras import MissingPoseError, intrinsics_matrix, rigid
from vggtkit.scenes.depth_files import DepthAt, Size, check_depth_size, nearest, read_depth_png
from vggtkit.scenes.recording import Frame, Omission, Recording, find_recordings, recording_of

FRAMES, SEQUENCES = "frame_annotations.jgz", "sequence_annotations.jgz"
_LEFT_UP = np.array([-1.0, -1.0, 1.0])  # PyTorch3D's x and y point against OpenCV's
_V1_FORMAT = "ndc_norm_image_bounds"  # what annotations without a format are in


def read_co3d(folder: str | Path) -> list[Recording]:
    """The sequences of a category, or of all categories in a folder.

    Sequences of which no picture folder is there were not downloaded and are left out.

    Args:
        folder: a category (with ``frame_annotations.jgz`` and ``sequence_annotations.jgz``), or its parent.

    Returns:
        At least one recording, in the order of the annotations; lengths in each sequence's own unit.

    Raises:
        InputError: annotations that are missing, damaged or incomplete, or no sequence that is there.
    """
    layout = f"CO3D category ({FRAMES} and {SEQUENCES})"
    return find_recordings(Path(folder), holds_category, _read_category, layout)


def holds_category(folder: Path) -> bool:
    """Any of the two files is enough: the missing one is then named."""
    return (folder / FRAMES).is_file() or (folder / SEQUENCES).is_file()


def _read_category(folder: Path) -> list[Recording]:
    names = [_get(entry, "sequence_name", str, SEQUENCES) for entry in read_annotations(folder / SEQUENCES)]
    frames: dict[str, list[tuple[int, Mapping[str, Any]]]] = {name: [] for name in names}
    for entry in read_annotations(folder / FRAMES):
        name = _get(entry, "sequence_name", str, FRAMES)
        if name not in frames:
            raise InputError(f"{str(folder / FRAMES)!r} has frames of {name!r}, which {SEQUENCES} does not list")
        frames[name].append((_get(entry, "frame_number", int, FRAMES), entry))
    # Paths begin with the category; a category under another name has them beside its annotations.
    recordings = []
    for name, entries in frames.items():
        if (folder / name).is_dir() and entries:
            ordered = sorted(entries, key=lambda numbered: numbered[0])
            own = [_read_frame(folder, entry, f"{name} frame {number}") for number, entry in ordered]
            whole = f"{folder.resolve().name}/{name}"
            recordings.append(recording_of(whole, folder / name, own, needs="a picture and a pose"))
    if not recordings:
        raise InputError(
            f"none of the {len(names)} sequences annotated in {str(folder)!r} is there: put the folder of at least"
            " one beside the annotations"
        )
    return recordings


def read_annotations(path: Path) -> list[Mapping[str, Any]]:
    """The entries of an annotation file.

    Raises:
        InputError: it is missing, damaged, or no list of objects.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            entries = json.load(file)
    except FileNotFoundError:
        raise InputError(f"the annotations {str(path)!r} are missing: see docs/data.md for the layout") from None
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        reason = in_one_line(error)
        raise InputError(f"the annotations {str(path)!r} are damaged ({reason}): download them again") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"the annotations {str(path)!r} are no list of objects: download them again")
    return entries


def _get(entry: Mapping[str, Any], key: str, kind: type, place: str) -> Any:  # noqa: ANN401 - JSON
    value = entry.get(key)
    if not isinstance(value, kind):
        raise InputError(f"{place}: the annotation has no {key} ({kind.__name__}): download it again")
    return value


def _read_frame(folder: Path, entry: Mapping[str, Any], place: str) -> Frame | Omission:
    image = _get(entry, "image", dict, place)
    height, width = _numbers(image, "size", (2,), place).astype(int).tolist()
    if entry.get("viewpoint", {}) is None:
        return Omission(place, "it has no viewpoint")
    viewpoint = _get(entry, "viewpoint", dict, place)
    try:
        extrinsics = _extrinsics(viewpoint, place)
    except MissingPoseError as error:
        return Omission(place, error.reason)
    return Frame(
        _locate(folder, _get(image, "path", str, place)),
        _intrinsics(viewpoint, (width, height), place),
        extrinsics,
        _depth(folder, entry.get("depth"), place),
        (width, height),
    )


def _extrinsics(viewpoint: Mapping[str, Any], place: str) -> Array:
    pose = np.eye(4)
    # Row vectors: x_camera = x_world R + T, so the matrix for columns is the transpose.
    pose[:3, :3] = _LEFT_UP[:, None] * _numbers(viewpoint, "R", (3, 3), place, finite=False).T
    pose[:3, 3] = _LEFT_UP * _numbers(viewpoint, "T", (3,), place, finite=False)
    return rigid(pose, place)


def _numbers(entry: Mapping[str, Any], key: str, shape: tuple[int, ...], place: str, *, finite: bool = True) -> Array:
    try:
        values = np.array(entry.get(key), dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != shape or (finite and not np.isfinite(values).all()):
        count = "x".join(map(str, shape))
        raise InputError(f"{place}: {key} of the annotation is not {count} finite numbers: leave the sequence out")
    return values


def _intrinsics(viewpoint: Mapping[str, Any], size: Size, place: str) -> Array:
    """Pixels with centres at whole numbers, from NDC: x left, y up, the origin in the picture's middle.

    One NDC unit is half the picture's shorter side (``ndc_isotropic``) or half of each side
    (``ndc_norm_image_bounds``).
    """
    kind = viewpoint.get("intrinsics_format", _V1_FORMAT)
    half = np.array(size, dtype=np.float64) / 2
    if kind not in ("ndc_isotropic", _V1_FORMAT):
        raise InputError(f"{place}: unknown intrinsics_format {kind!r}: known are ndc_isotropic and {_V1_FORMAT}")
    unit = np.full(2, half.min()) if kind == "ndc_isotropic" else half
    focal = _numbers(viewpoint, "focal_length", (2,), place) * unit
    centre = half - _numbers(viewpoint, "principal_point", (2,), place) * unit - 0.5
    if focal.min() <= 0:
        raise InputError(f"{place}: the focal length is {focal.min():g} pixels, it must be above 0")
    return intrinsics_matrix(*focal.tolist(), *centre.tolist())


def _locate(folder: Path, path: str) -> Path:
    """Paths start at the folder of all categories; a renamed category keeps what follows its name."""
    whole = folder.parent / path
    return whole if whole.exists() else folder / Path(*Path(path).parts[1:])


def _depth(folder: Path, annotation: object, place: str) -> DepthAt | None:
    """None where the sequence has no depth or it was not downloaded."""
    if not isinstance(annotation, Mapping):
        return None
    path = _locate(folder, _get(annotation, "path", str, place))
    if not path.is_file():
        return None
    scale = float(_numbers(annotation, "scale_adjustment", (), place))
    if scale <= 0:
        raise InputError(f"{place}: scale_adjustment is {scale:g}, it must be above 0: leave the sequence out")
    mask = annotation.get("mask_path")
    mask_path = _locate(folder, mask) if isinstance(mask, str) else None
    return functools.partial(_depth_at, path, scale, mask_path if mask_path and mask_path.is_file() else None)


def _depth_at(path: Path, scale: float, mask_path: Path | None, x: Array, y: Array, size: Size) -> Array:
    """Depth of the bits, where the mask of reliable depth allows it."""
    depth = nearest(read_depth_png(path, size).view(np.float16), x, y) * scale
    if mask_path is None:
        return depth
    try:
        with Image.open(mask_path) as image:
            check_depth_size(mask_path, image.size, size)
            mask = np.asarray(image.convert("L"))
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the depth mask {str(mask_path)!r}: repair or remove it") from error
    return np.where(nearest(mask, x, y) > 0, depth, 0.0)
