"""Pictures to look at: what was seen beside its depth and confidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.reconstruction.views import Views
from analysis.report.charts.colours import colour
from analysis.report.theme import DEPTH_COLOURS, FIELD_COLOURS
from vggtkit.core.arrays import Map

GAP = 6
"""Pixels between the parts of a preview."""
LEGIBLE = 200
"""Pixels along the longer side that a part of a preview has at least; small ones are drawn larger, pixel by pixel."""
SHOWN = (0.01, 0.99)
"""Quantiles of what is drawn of numbers with a few wild ones."""


def colour_limits(values: Map) -> tuple[float, float]:
    """The numbers that the two ends of a scale of colours stand for, wild ones left out.

    >>> colour_limits(np.full((2, 2), 3.0, dtype=np.float32))
    (3.0, 4.0)
    """
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(known, SHOWN))
    return (low, high) if high > low else (low, low + 1.0)


def side_by_side(parts: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """Pictures ``[H, W, 3]`` of one height, with white between them."""
    larger = max(1, -(-LEGIBLE // max(parts[0].shape[:2])))
    gap = np.full((parts[0].shape[0] * larger, GAP, 3), 255, dtype=np.uint8)
    row = [piece for part in parts for piece in (part.repeat(larger, 0).repeat(larger, 1), gap)][:-1]
    return Image.fromarray(np.concatenate(row, axis=1))


def drawn(values: Map, shown: NDArray[np.bool_], ends: tuple[float, float], colours: str) -> NDArray[np.uint8]:
    """Numbers ``[H, W]`` as colours ``[H, W, 3]``; grey where no picture is ``shown`` ``[H, W]``."""
    return colour(np.where(shown, values, np.nan).astype(np.float32), *ends, colours)


def write_previews(
    views: Views,
    images: NDArray[np.uint8],
    shown: NDArray[np.bool_],
    threshold: float,
    stems: Sequence[str],
    folder: Path,
) -> None:
    """Write a PNG for every picture: itself, its depth, its confidence, and what of it becomes points.

    Depth and confidence have one scale of colours for all pictures, so that these can be compared.

    Args:
        views: what the network sees.
        images: the pictures, ``[S, H, W, 3]``.
        shown: which pixels show a picture.
        threshold: confidence below which no point is made.
        stems: what the files are called.
        folder: that is there.
    """
    depth_ends, sure_ends = colour_limits(views.depth[shown]), colour_limits(np.log(views.confidence[shown]))
    for number, stem in enumerate(stems):
        depth = drawn(views.depth[number], shown[number], depth_ends, DEPTH_COLOURS)
        sure = drawn(np.log(views.confidence[number]), shown[number], sure_ends, FIELD_COLOURS)
        kept = shown[number] & (views.confidence[number] >= threshold)
        parts = [images[number], depth, sure, np.where(kept[..., None], images[number], 255).astype(np.uint8)]
        side_by_side(parts).save(folder / f"{stem}.png")
