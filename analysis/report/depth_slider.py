"""Depth maps as pictures: of every scheme, and how far each is from FP32, on one scale of colours."""

from __future__ import annotations

import numpy as np

from analysis.evaluation.depth_maps import DepthMaps
from analysis.evaluation.results import Evaluation, short_title
from analysis.report.charts.colours import ERROR_DECADES, colour, png
from analysis.report.document import Slider, SliderFrame
from analysis.report.theme import DEPTH_COLOURS, ERROR_COLOURS
from analysis.report.wording import Wording
from vggtkit.core.arrays import Map


def depth_slider(maps: DepthMaps, evaluation: Evaluation, say: Wording) -> Slider:
    """Depth of FP32 and of every scheme, view by view."""
    names = {result.key: short_title(result) for result in evaluation.results}
    frames = tuple(_frame(maps, view, names, say) for view in range(len(maps.pictures)))
    scale = say("error: |scheme - FP32| / median depth of FP32, from 0.01 % (dark) to 100 % (bright), log")
    caption = say("Scene {scene}. Left of the slider FP32, right of it the scheme; all depth on one scale of colours.",
                  scene=maps.scene)  # fmt: skip
    return Slider(say("Depth under every scheme"), frames, "FP32", scale, caption)


def _frame(maps: DepthMaps, view: int, names: dict[str, str], say: Wording) -> SliderFrame:
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
    return SliderFrame(name, picture, png(colour(reference, low, high, DEPTH_COLOURS)), depths, errors, worst)


def _limits(depth: Map) -> tuple[float, float]:
    known = depth[np.isfinite(depth)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(known, (0.01, 0.99)))
    return (low, high) if high > low else (low, low + 1.0)
