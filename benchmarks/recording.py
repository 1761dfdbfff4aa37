"""What does the bundled network get on a real recording, which it was not trained for? JSON on the last line.

Run: ``python benchmarks/recording.py rgbd:DIR [--count 3] [--views 4] [--model tiny]``; any recording with ground truth
will do. Figures are of its evaluation half and of both halves. Beside the network's are those of one that looks at
nothing (``benchmarks/held_out.py``).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.held_out import Blind
from vggtkit.metrics.geometry import geometry_metrics, over_scenes
from vggtkit.model import VGGT, load_vggt
from vggtkit.scenes import Scene, SceneSource, load_scenes, parse_scenes


@torch.no_grad()
def rows_of(model: VGGT | Blind, scenes: list[Scene]) -> list[dict[str, float]]:
    """Every figure of every scene."""
    rows = []
    for scene in scenes:
        height, width = scene.images.shape[-2:]
        rows.append(geometry_metrics(model(scene.images, scene.query_points), scene.truth, (height, width)))
    return rows


def figures(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and interval of every figure over the scenes."""
    return {key: estimate._asdict() for key, estimate in over_scenes(rows, seed=0).items()}


def report(text: str, count: int, views: int, source: str) -> dict[str, object]:
    """Figures on so many scenes of a recording's evaluation half, and on as many of each half."""
    kind, folder = parse_scenes(text)
    model = load_vggt(source)
    side, patch = model.config.img_size, model.config.patch_size
    load = partial(load_scenes, SceneSource(kind, folder, count=count, views=views), img_size=side, patch_size=patch)
    calibration, evaluation = load("calibration"), load("evaluation")
    both = [*calibration, *evaluation]
    seen, blind = rows_of(model, both), rows_of(Blind(model.config), both)
    first = len(calibration)
    return {
        "question": "figures of the bundled network on a real recording",
        "model": source,
        "scenes": [scene.name for scene in evaluation],
        "pixels": list(evaluation[0].images.shape[-2:]),
        "figures": figures(seen[first:]),
        "without_looking": figures(blind[first:]),
        "both_halves": {"figures": figures(seen), "without_looking": figures(blind)},
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", help="as --scenes of the command line takes it")
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    print(json.dumps(report(arguments.scenes, arguments.count, arguments.views, arguments.model)))
