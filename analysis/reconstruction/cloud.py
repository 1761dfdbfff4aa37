"""Depth and cameras -> coloured points, those of little confidence left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.reconstruction.views import Views

Bytes = NDArray[np.uint8]
_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3), ("confidence", "<f4")])


@dataclass(frozen=True)
class Cloud:
    """Coloured points.

    Attributes:
        points: ``[N, 3]`` in the frame of the views.
        colours: ``[N, 3]``.
        confidence: ``[N]``.
        views: number of the picture that each was seen in, ``[N]``,
        pixels: and its column and row on the canvas, ``[N, 2]``.
        threshold: the confidence that the least sure one has.
    """

    points: NDArray[np.float32]
    colours: Bytes
    confidence: NDArray[np.float32]
    views: NDArray[np.int64]
    pixels: NDArray[np.int64]
    threshold: float

    def __len__(self) -> int:
        """How many."""
        return len(self.points)

    def spread(self, most: int) -> Cloud:
        """At most so many of them, evenly over all pictures."""
        count = min(most, len(self))
        kept = np.arange(count) * len(self) // max(1, count)
        return Cloud(
            self.points[kept], self.colours[kept], self.confidence[kept], self.views[kept], self.pixels[kept],
            self.threshold,
        )  # fmt: skip


def surest(confidence: NDArray[np.float32], shown: NDArray[np.bool_], percentile: float) -> float:
    """The confidence below which a share of the pixels that show a picture lies.

    Args:
        confidence: ``[S, H, W]``.
        shown: which pixels show a picture.
        percentile: 0 to 100; of all pictures together, so that a poor picture loses more than a good one.

    >>> surest(np.array([[[1.0, 2.0, 3.0, 9.0]]], dtype=np.float32), np.array([[[1, 1, 1, 0]]], dtype=bool), 50)
    2.0
    """
    return float(np.percentile(confidence[shown], percentile))


def cloud_of(views: Views, images: Bytes, shown: NDArray[np.bool_], percentile: float) -> Cloud:
    """The points of views, but those of little confidence.

    Args:
        views: depth and cameras.
        images: colours ``[S, H, W, 3]``.
        shown: which pixels show a picture, ``[S, H, W]``.
        percentile: pixels below this percentile of confidence are left out.
    """
    threshold = surest(views.confidence, shown, percentile)
    kept = shown & (views.confidence >= threshold) & (views.depth > 0)
    points = [views.points(number)[kept[number]] for number in range(len(views))]
    number, row, column = np.nonzero(kept)
    return Cloud(
        np.concatenate(points).astype(np.float32), images[kept], views.confidence[kept], number,
        np.stack([column, row], -1), threshold,
    )  # fmt: skip


def write_ply(cloud: Cloud, path: Path) -> None:
    """Write points as binary PLY: place, colour, confidence.

    Source: Turk, "The PLY Polygon File Format", 1994.
    """
    vertices = np.empty(len(cloud), _VERTEX)
    vertices["xyz"], vertices["rgb"], vertices["confidence"] = cloud.points, cloud.colours, cloud.confidence
    names = [f"property float {axis}" for axis in "xyz"]
    names += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud)}", *names]
    header += ["property float confidence", "end_header", ""]
    with path.open("wb") as file:
        file.write("\n".join(header).encode())
        file.write(vertices.tobytes())
