"""A reconstruction's points and cameras from above and from the front."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.reconstruction.cloud import Cloud
from analysis.reconstruction.views import Views
from analysis.report.theme import DPI, GREY, PLAN, TEXT_SIZE, TITLE_SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_DRAWN = 60_000
"""Points of an overview; more cover each other."""
SHOWN = (0.01, 0.99)
"""Quantiles of coordinates that are drawn."""


def write_overview(cloud: Cloud, views: Views, path: Path) -> None:
    """Draw the points and cameras from above and from the front, as the first camera sees them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
