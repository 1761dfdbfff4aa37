"""Depth that lies beside pictures, pixel by pixel, and is read when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError

Size = tuple[int, int]  # width, height in pixels, as Pillow has it
# (x, y, size of the picture) -> depth at these pixel coordinates of the stored picture, 0 = none
DepthAt = Callable[[Array, Array, Size], Array]

_DEPTH_MODES = frozenset({"I;16", "I;16L", "I;16B", "I"})


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


def read_depth_png(path: Path, size: Size) -> NDArray[np.uint16]:
    """The 16-bit values of a depth picture, ``[height, width]``.

    Raises:
        InputError: the file is missing, damaged, not of 16 bits, or not as large as its picture.
    """
    try:
        with Image.open(path) as image:
            # The header is checked before the pixels are decoded, so that a lying file takes no memory.
            if image.mode not in _DEPTH_MODES:
                raise InputError(
                    f"the depth picture {str(path)!r} has pixels of kind {image.mode}: it must be grey of 16 bits"
                )
            check_depth_size(path, image.size, size)
            return np.asarray(image).astype(np.uint16)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        state = f"cannot be read: {' '.join(str(error).split())}" if path.exists() else "is missing"
        raise InputError(f"the depth picture {str(path)!r} {state}") from error


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
    picked = np.zeros(x.shape)
    picked[inside] = values[row[inside].astype(np.int64), column[inside].astype(np.int64)]
    return picked
