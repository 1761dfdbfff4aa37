"""How good is the bundled network on rooms that it has not seen? JSON on the last line.

Run: ``python benchmarks/held_out.py [--scenes 200] [--model tiny]``. Figures of ``training.heldout`` on rendered scenes
of 4 views of the evaluation split, beside what was aimed at and what a network gets that looks at nothing: the same
depth everywhere, cameras in a row that all look ahead, tracks that stand still.
"""

from __future__ import annotations

import argparse
import json
import operator
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.heldout import held_out
from vggtkit.model import VGGT, VGGTConfig, load_vggt
from vggtkit.model.geometry import decode_pose, encode_pose, unproject

VIEWS = 4
STEP = 0.5  # between the cameras in a row, in the unit of the depth that is 1 everywhere
FOCAL = 0.9  # of the picture's side; rooms have a field of view of 45 to 75 degrees
TARGETS: dict[str, tuple[Callable[[float, float], bool], float]] = {
    "depth_abs_rel": (operator.le, 0.10),
    "depth_delta_1_25": (operator.ge, 0.88),
    "points_over_unprojected": (operator.le, 1.5),
    "auc_30": (operator.ge, 0.50),
    "track_px": (operator.le, 4.0),
}


class Blind(nn.Module):
    """Gives the same answer to all pictures."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: Tensor, query_points: Tensor) -> dict[str, Tensor]:
        """Outputs of the shapes of VGGT's for ``[S, 3, H, W]`` pictures and ``[N, 2]`` query points."""
        views, _, height, width = images.shape
        extrinsics = torch.eye(3, 4).repeat(views, 1, 1)
        extrinsics[:, 0, 3] = -STEP * torch.arange(views)
        intrinsics = torch.tensor([[FOCAL * width, 0, width / 2], [0, FOCAL * width, height / 2], [0, 0, 1]])
        pose = encode_pose(extrinsics, intrinsics.repeat(views, 1, 1), (height, width))[None]
        depth = torch.ones(1, views, height, width, 1)
        points = unproject(depth[0, ..., 0], *(part[0] for part in decode_pose(pose, (height, width))))[None]
        track = query_points.repeat(1, views, 1, 1)
        return {"pose_enc": pose, "depth": depth, "world_points": points, "track": track}


def figures(model: VGGT | Blind, scenes: int) -> dict[str, float]:
    """The held-out figures, and how much worse the point head is than the unprojected depth."""
    errors = held_out(model, scenes, VIEWS)  # type: ignore[arg-type]
    return errors | {"points_over_unprojected": errors["points_error"] / errors["unprojected_error"]}


def report(source: str, scenes: int) -> dict[str, object]:
    """Both networks' figures and the targets."""
    model = load_vggt(source)
    start = time.perf_counter()
    measured = figures(model, scenes)
    seconds = time.perf_counter() - start
    return {
        "question": "held-out figures of the bundled network, with their targets",
        "model": source,
        "scenes": scenes,
        "views": VIEWS,
        "figures": measured,
        "targets": {
            key: {"value": measured[key], "target": target, "met": bool(meets(measured[key], target))}
            for key, (meets, target) in TARGETS.items()
        },
        "without_looking": figures(Blind(model.config), scenes),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    result = report(arguments.model, arguments.scenes)
    for key, row in result["targets"].items():  # type: ignore[attr-defined]
        blind = result["without_looking"][key]  # type: ignore[index]
        sign = "<=" if TARGETS[key][0] is operator.le else ">="
        verdict = "met" if row["met"] else "missed"
        print(f"{key:<24} {row['value']:.3f}  {sign} {row['target']:.2f} {verdict:<6}  without looking {blind:.3f}")
    print(json.dumps(result))
