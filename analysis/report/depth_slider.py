"""Depth maps as pictures: of every scheme, and how far each is from FP32, on one scale of colours."""

from __future__ import annotations

import io

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from analysis.evaluation.depth_maps import DepthMaps
from analysis.evaluation.results import Evaluation, short_title
from analysis.report.document import Frame, Slider
from analysis.report.theme import DEPTH_COLOURS, ERROR_COLOURS
from analysis.report.wording import Wording

ERROR_DECADES = (-4.0, 0.0)
"""Powers of ten of the relative error at the two ends of its colours."""

Map = NDArray[np.float32]


def depth_slider(maps: DepthMaps, evaluation: Evaluation, say: Wording) -> Slider:
    """Depth of FP32 and of every scheme, view by view."""
    names = {result.key: short_title(result) for result in evaluation.results}
    frames = tuple(_frame(maps, view, names, say) for view in range(len(maps.pictures)))
    scale = say("error: |scheme - FP32| / median depth of FP32, from 0.01 % (dark) to 100 % (bright), log")
    caption = say("Scene {scene}. Left of the slider FP32, right of it the scheme; all depth on one scale of colours.",
                  scene=maps.scene)  # fmt: skip
    return Slider(say("Depth under every scheme"), frames, "FP32", scale, caption)


def _frame(maps: DepthMaps, view: int, names: dict[str, str], say: Wording) -> Frame:
    reference = maps.depth[0, view]
    low, high = _limits(reference)
    typical = float(np.nanmedian(np.abs(reference))) or 1.0
    depths, errors, worst = {}, {}, {}
    for number, key in enumerate(maps.keys[1:], start=1):
        depth = maps.depth[number, view]
        error = np.abs(depth - reference) / typical
        depths[names[key]] = png(colour(depth, low, high, DEPTH_COLOURS))
        with np.errstate(divide="ignore", invalid="ignore"):
            errors[names[key]] = png(colour(np.log10(error), *ERROR_DECADES, ERROR_COLOURS))
        worst[names[key]] = float(error.mean())
    picture = png(maps.pictures[view])
    name = say("view {number}", number=view + 1)
    return Frame(name, picture, png(colour(reference, low, high, DEPTH_COLOURS)), depths, errors, worst)


def _limits(depth: Map) -> tuple[float, float]:
    known = depth[np.isfinite(depth)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(known, (0.01, 0.99)))
    return (low, high) if high > low else (low, low + 1.0)


def colour(values: Map, low: float, high: float, colours: str) -> NDArray[np.uint8]:
    """Numbers as colours ``[H, W, 3]``; what is not a number is grey.

    >>> colour(np.array([[0.0, 1.0, np.nan]], dtype=np.float32), 0.0, 1.0, "gray")[0].tolist()
    [[0, 0, 0], [255, 255, 255], [128, 128, 128]]
    """
    with np.errstate(invalid="ignore"):
        places = np.clip((values - low) / (high - low), 0, 1)
    drawn: NDArray[np.uint8] = (255 * colormaps[colours](np.nan_to_num(places))[..., :3]).round().astype(np.uint8)
    drawn[np.isnan(places)] = 128
    return drawn


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
