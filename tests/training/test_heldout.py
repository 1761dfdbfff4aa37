"""Held-out figures of networks whose errors are known."""

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from training.heldout import AUC_DEGREES, held_out
from vggtkit.model.config import TINY, VGGTConfig
from vggtkit.model.geometry import encode_pose
from vggtkit.scenes.synthetic import synthetic_scenes

SCENES, SEED = 2, 4


class Oracle(nn.Module):
    """Knows the truth of the evaluation scenes by their pictures, and errs as it is told.

    Args:
        views: pictures in a scene.
        scale: of all lengths.
        turn_deg: by which all cameras but the first roll on the spot.
        depth_factor: for every second column of the depth.
        track_shift: pixels to the right.
    """

    config: VGGTConfig = TINY

    def __init__(
        self,
        views: int,
        *,
        scale: float = 1.0,
        turn_deg: float = 0.0,
        depth_factor: float = 1.0,
        track_shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.size = (self.config.img_size, self.config.img_size)
        self.scenes = synthetic_scenes(SCENES, views, self.size, seed=SEED, split="evaluation")
        self.scale, self.depth_factor, self.track_shift = scale, depth_factor, track_shift
        roll = Rotation.from_euler("z", turn_deg, degrees=True).as_matrix()
        self.roll = torch.from_numpy(roll).float()

    def forward(self, images: Tensor, query_points: Tensor) -> dict[str, Tensor | list[Tensor]]:
        (scene,) = (scene for scene in self.scenes if torch.equal(scene.images, images))
        truth = scene.truth
        assert truth is not None
        assert torch.equal(scene.query_points, query_points)
        extrinsics = truth.extrinsics.clone()
        extrinsics[..., 3] *= self.scale
        extrinsics[1:] = self.roll @ extrinsics[1:]
        depth = self.scale * truth.depth
        depth[..., ::2] *= self.depth_factor
        pose = encode_pose(extrinsics, truth.intrinsics, self.size)[None]
        return {
            "pose_enc": pose,
            "pose_enc_list": [pose],
            "depth": depth[None, ..., None],
            "world_points": self.scale * truth.world_points[None],
            "track": truth.tracks[None] + torch.tensor([self.track_shift, 0.0]),
        }


@pytest.mark.parametrize("scale", [1.0, 3.0], ids=["true-scale", "another-scale"])
def test_oracle_is_perfect(scale: float) -> None:
    """Scale is free: every figure is taken after alignment."""
    figures = held_out(Oracle(3, scale=scale), SCENES, 3, SEED)
    for name in ("depth_abs_rel", "points_error", "unprojected_error", "track_px"):
        assert figures.pop(name) == pytest.approx(0, abs=1e-4), name
    for name in ("rotation_deg", "translation_deg"):  # the arc cosine of a float32 near 1
        assert figures.pop(name) == pytest.approx(0, abs=0.1), name
    assert figures.pop("depth_delta_1_25") == 1
    assert figures.pop("auc_30") == pytest.approx(1, abs=0.01)
    assert figures == {}


def test_a_roll_of_ten_degrees_is_ten_degrees() -> None:
    """Of two views, so that there is one relative pose: the camera's place is right, its rotation is off."""
    figures = held_out(Oracle(2, turn_deg=10.0), SCENES, 2, SEED)
    assert figures["rotation_deg"] == pytest.approx(10, abs=0.01)
    assert figures["translation_deg"] == pytest.approx(0, abs=0.1)
    assert figures["auc_30"] == pytest.approx(1 - 10 / AUC_DEGREES, abs=0.01)
    assert figures["depth_abs_rel"] == pytest.approx(0, abs=1e-4)
    assert figures["unprojected_error"] > 0.02


def test_beyond_thirty_degrees_there_is_no_credit() -> None:
    assert held_out(Oracle(2, turn_deg=90.0), SCENES, 2, SEED)["auc_30"] == 0


def test_depth_errors_are_relative() -> None:
    """Half the pixels at 1.5 times the depth: whatever the alignment, the two halves stay a factor 1.5 apart."""
    figures = held_out(Oracle(2, depth_factor=1.5), SCENES, 2, SEED)
    assert 0.1 < figures["depth_abs_rel"] < 0.5
    assert figures["depth_delta_1_25"] < 1
    assert figures["points_error"] == pytest.approx(0, abs=1e-4)
    assert figures["unprojected_error"] > 0.05


def test_track_error_is_in_pixels() -> None:
    assert held_out(Oracle(3, track_shift=2.5), SCENES, 3, SEED)["track_px"] == pytest.approx(2.5, abs=1e-3)
