"""Numbers as colours, and pictures as files."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.report.theme import FIELD_COLOURS
from vggtkit.core.arrays import Map

ERROR_DECADES = (-4.0, 0.0)
"""Powers of ten of the relative error at the two ends of its colours."""


def colour(values: Map, low: float, high: float, colours: str) -> NDArray[np.uint8]:
    """Numbers as colours ``[H, W, 3]``; what is not a number is grey.

    >>> colour(np.array([[0.0, 1.0, np.nan]], dtype=np.float32), 0.0, 1.0, "gray")[0].tolist()
    [[0, 0, 0], [255, 255, 255], [128, 128, 128]]
    """
    from matplotlib import colormaps

    with np.errstate(invalid="ignore"):
        places = np.clip((values - low) / (high - low), 0, 1)
    drawn: NDArray[np.uint8] = (255 * colormaps[colours](np.nan_to_num(places))[..., :3]).round().astype(np.uint8)
    drawn[np.isnan(places)] = 128
    return drawn


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture ``[H, W, 3]`` or ``[H, W]`` as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def field_stops(count: int) -> list[list[int]]:
    """So many colours of the scale of fields, from the lowest to the highest, red, green and blue to 255.

    >>> field_stops(2)
    [[0, 34, 78], [254, 232, 56]]
    """
    from matplotlib import colormaps

    stops: list[list[int]] = (
        np.round(255 * colormaps[FIELD_COLOURS](np.linspace(0, 1, count))[:, :3]).astype(int).tolist()
    )
    return stops
