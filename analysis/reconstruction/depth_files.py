"""Depth as pictures of 16 bits, and with all that belongs to it as an archive of numpy's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.reconstruction.views import Views
from vggtkit.core.arrays import Map

SCALE = "scale.json"
LARGEST = 2**16 - 1


def depth_step(depth: Map) -> float:
    """The depth that a step of the 16-bit pictures stands for: the largest depth of all is their largest value.

    >>> depth_step(np.array([0.5, 131.07], dtype=np.float32)).__round__(6)
    0.002
    """
    largest = float(depth.max(initial=0.0))
    return largest / LARGEST if largest > 0 else 1.0


def steps_of(depth: Map, step: float) -> NDArray[np.uint16]:
    """Depth of any shape in whole steps; 0 where there is none, so a depth that is there is 1 at least."""
    steps = np.clip(np.round(depth.astype(np.float64) / step), 1, LARGEST)
    return np.where(depth > 0, steps, 0).astype(np.uint16)


def write_depth_pictures(depth: Map, stems: Sequence[str], folder: Path) -> float:
    """Write a 16-bit PNG for every picture, and beside them what a step is worth.

    Args:
        depth: ``[S, H, W]``; 0 = none.
        stems: what the files are called.
        folder: that is there.

    Returns:
        The depth that a step stands for.
    """
    step = depth_step(depth)
    for values, stem in zip(depth, stems, strict=True):
        Image.fromarray(steps_of(values, step)).save(folder / f"{stem}.png")
    said = {"depth_per_step": step, "none": 0, "unit": "the network's own, as cameras and points have it"}
    (folder / SCALE).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return step


def write_archive(views: Views, names: Sequence[str], shown: NDArray[np.bool_], path: Path) -> None:
    """Write what the network said: depth, confidence, cameras, names; pictures are where ``shown`` ``[S, H, W]``."""
    with path.open("wb") as file:
        np.savez_compressed(
            file, names=np.array(names), depth=views.depth, confidence=views.confidence, shown=shown,
            extrinsics=views.extrinsics, intrinsics=views.intrinsics,
        )  # fmt: skip
