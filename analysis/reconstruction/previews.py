"""Pictures to look at: what was seen beside its depth and confidence, and all points from above and from the front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from analysis.reconstruction.cloud import Cloud
from analysis.reconstruction.views import Map, Views
from analysis.report.depth_slider import colour
from analysis.report.theme import DEPTH_COLOURS, DPI, FIELD_COLOURS, GREY, PLAN, TEXT_SIZE, TITLE_SIZE

MOST_DRAWN = 60_000
"""Points of an overview; more cover each other."""
GAP = 6
"""Pixels between the parts of a preview."""
LEGIBLE = 200
"""Pixels along the longer side that a part of a preview has at least; small ones are drawn larger, pixel by pixel."""
SHOWN = (0.01, 0.99)
"""Quantiles of what is drawn of numbers with a few wild ones."""


def limits(values: Map) -> tuple[float, float]:
    """The numbers that the two ends of a scale of colours stand for, wild ones left out.

    >>> limits(np.full((2, 2), 3.0, dtype=np.float32))
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
    """Numbers as colours; grey where no picture is shown."""
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
    depth_ends, sure_ends = limits(views.depth[shown]), limits(np.log(views.confidence[shown]))
    for number, stem in enumerate(stems):
        depth = drawn(views.depth[number], shown[number], depth_ends, DEPTH_COLOURS)
        sure = drawn(np.log(views.confidence[number]), shown[number], sure_ends, FIELD_COLOURS)
        kept = shown[number] & (views.confidence[number] >= threshold)
        parts = [images[number], depth, sure, np.where(kept[..., None], images[number], 255).astype(np.uint8)]
        side_by_side(parts).save(folder / f"{stem}.png")


def write_overview(cloud: Cloud, views: Views, path: Path) -> None:
    """Draw the points and cameras from above and from the front, as the first camera sees them."""
    few = cloud.spread(MOST_DRAWN)
    figure = Figure(figsize=(11, 5.5), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    above, front = figure.subplots(1, 2)
    _scatter(above, few, (0, 2), 1.0, "From above, with the cameras")
    _scatter(front, few, (0, 1), -1.0, "From the front")
    above.set_ylabel("z, away from the first camera", fontsize=TEXT_SIZE)
    front.set_ylabel("up", fontsize=TEXT_SIZE)
    _cameras(above, views)
    figure.savefig(path)


def _scatter(axes: Axes, cloud: Cloud, sides: tuple[int, int], sign: float, title: str) -> None:
    """Points in their colours, without the wildest; along x, and along another axis times a sign."""
    across, up = cloud.points[:, sides[0]], sign * cloud.points[:, sides[1]]
    axes.scatter(across, up, s=min(12.0, max(0.6, 40_000 / max(1, len(cloud)))), c=cloud.colours / 255, linewidths=0)
    for set_ends, values in ((axes.set_xlim, across), (axes.set_ylim, up)):
        if len(values):
            low, high = (float(end) for end in np.quantile(values, SHOWN))
            margin = 0.15 * max(high - low, 1e-6)
            set_ends(low - margin, high + margin)
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=TITLE_SIZE, fontweight="bold", loc="left")
    axes.set_xlabel("x", fontsize=TEXT_SIZE)
    axes.spines[["top", "right"]].set_visible(False)


def _cameras(axes: Axes, views: Views) -> None:
    """Where the cameras stand and look, seen from above."""
    centres, looking = views.centres, views.extrinsics[:, 2, :3]
    (left, right), (near, far) = axes.get_xlim(), axes.get_ylim()
    margin = 0.1 * max(right - left, far - near)
    for set_ends, values, ends in (
        (axes.set_xlim, centres[:, 0], (left, right)),
        (axes.set_ylim, centres[:, 2], (near, far)),
    ):
        set_ends(min(ends[0], float(values.min()) - margin), max(ends[1], float(values.max()) + margin))
    axes.plot(centres[:, 0], centres[:, 2], color=GREY, linewidth=0.8, zorder=3)
    axes.quiver(
        centres[:, 0], centres[:, 2], looking[:, 0], looking[:, 2], color=PLAN, scale=18, width=0.004, zorder=4,
    )  # fmt: skip
    for number in sorted({0, len(centres) - 1}):
        axes.annotate(str(number + 1), (centres[number, 0], centres[number, 2]), fontsize=TEXT_SIZE, zorder=5)
