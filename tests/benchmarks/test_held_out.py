"""The network that looks at nothing, and the JSON of the held-out figures."""

import json
import math

import pytest
import torch

from benchmarks.held_out import TARGETS, Blind, report
from training.heldout import held_out
from vggtkit.model import VGGTConfig
from vggtkit.scenes import synthetic_scenes


@pytest.fixture
def blind(tiniest_config: VGGTConfig) -> Blind:
    return Blind(tiniest_config)


def test_without_looking_cameras_look_ahead_and_tracks_stand_still(blind: Blind) -> None:
    """Against the truth of the scenes themselves, in plain words: constant depth, static tracks, no rotation."""
    found = held_out(blind, 3, 4)  # type: ignore[arg-type]
    relative, still, turns = [], [], []
    for scene in synthetic_scenes(3, 4, (32, 32), seed=0, split="evaluation"):
        truth = scene.truth
        assert truth is not None and truth.tracks is not None and truth.visible is not None
        depth = truth.depth[truth.depth > 0].double()
        relative.append(float(((depth.quantile(0.5) - depth).abs() / depth).mean()))
        moved = (truth.tracks - scene.query_points).norm(dim=-1)[1:][truth.visible[1:]]
        still.append(float(moved.quantile(0.5)))
        for i in range(4):
            for j in range(i + 1, 4):
                turn = truth.extrinsics[i, :, :3] @ truth.extrinsics[j, :, :3].T
                turns.append(math.degrees(math.acos(min(1.0, (turn.trace().item() - 1) / 2))))
    assert found["depth_abs_rel"] == pytest.approx(sum(relative) / 3, rel=1e-3)
    assert found["track_px"] == pytest.approx(sum(still) / 3, rel=0.02)
    assert found["rotation_deg"] == pytest.approx(torch.tensor(turns).quantile(0.5).item(), rel=1e-3)
    assert found["points_error"] == pytest.approx(found["unprojected_error"])


def test_the_report_holds_every_target_and_is_json(model_folder: object) -> None:
    found = json.loads(json.dumps(report(str(model_folder), 2)))
    assert found["targets"].keys() == TARGETS.keys()
    for key, row in found["targets"].items():
        smaller = key in ("depth_abs_rel", "points_over_unprojected", "track_px")
        assert row["value"] == found["figures"][key]
        assert row["met"] == (row["value"] <= row["target"] if smaller else row["value"] >= row["target"])
    assert found["figures"].keys() == found["without_looking"].keys()
