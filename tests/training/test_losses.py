"""Losses are least for the truth, and count what they say they count."""

import pytest
import torch
from torch import Tensor

from training.correspondence import UNSEEN, displacement_to_first
from training.losses import (
    CONFIDENCE_WEIGHT,
    ITERATION_DECAY,
    PLAIN_WEIGHT,
    ROTATION_WEIGHT,
    TRACK_SCALE,
    WEIGHTS,
    camera_loss,
    depth_loss,
    feature_loss,
    match_loss,
    points_loss,
    probe_losses,
    relative_loss,
    track_losses,
)
from vggtkit.metrics.pose import pose_errors
from vggtkit.model.geometry import decode_pose, encode_pose
from vggtkit.scenes.synthetic import render_batch

SIZE = (16, 24)
Outputs = dict[str, Tensor | list[Tensor]]


@pytest.fixture(scope="module")
def truth() -> dict[str, Tensor]:
    return render_batch(2, 3, SIZE, generator_seed=5, tracks=12, supersample=1)


@pytest.fixture
def perfect(truth: dict[str, Tensor]) -> Outputs:
    """What a network that knows the truth would return."""
    pose = encode_pose(truth["extrinsics"], truth["intrinsics"], SIZE)
    return {
        "poses": [pose.clone() for _ in range(4)],
        "depth": truth["depth"][..., None].clone(),
        "depth_conf": torch.ones_like(truth["depth"]),
        "points": truth["world_points"].clone(),
        "points_conf": torch.ones_like(truth["depth"]),
        "tracks": [truth["tracks"].clone() for _ in range(4)],
        "vis": truth["visible"].float(),
        "conf": truth["visible"].float(),
    }


def all_losses(outputs: Outputs, truth: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "camera": camera_loss(outputs["poses"], truth),
        "depth": depth_loss(outputs["depth"], outputs["depth_conf"], truth),
        "points": points_loss(outputs["points"], outputs["points_conf"], truth),
        **track_losses(outputs["tracks"], outputs["vis"], outputs["conf"], truth),
    }


def test_losses_vanish_for_the_truth(perfect: Outputs, truth: dict[str, Tensor]) -> None:
    found = all_losses(perfect, truth)
    assert found.keys() <= WEIGHTS.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, torch.tensor(0.0), msg=name)


@pytest.mark.parametrize(
    ("output", "part"),
    [
        ("poses", "camera"),
        ("depth", "depth"),
        ("points", "points"),
        ("tracks", "track"),
        ("vis", "visibility"),
        ("conf", "visibility"),
    ],
)
def test_any_error_raises_its_loss_and_no_other(
    perfect: Outputs, truth: dict[str, Tensor], output: str, part: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    value = perfect[output]

    def disturbed(tensor: Tensor) -> Tensor:
        noisy = tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        return noisy.clamp(0.01, 0.99) if output in ("vis", "conf") else noisy

    changed = [disturbed(item) for item in value] if isinstance(value, list) else disturbed(value)
    found = all_losses(perfect | {output: changed}, truth)
    assert found.pop(part) > 1e-3
    for other, loss in found.items():
        torch.testing.assert_close(loss, torch.tensor(0.0), msg=other)


@pytest.mark.parametrize(
    ("component", "weight"), [(0, 1.0), (3, ROTATION_WEIGHT), (7, 1.0)], ids=["shift", "turn", "view"]
)
@pytest.mark.parametrize("iteration", [0, 1])
def test_camera_loss_by_hand(truth: dict[str, Tensor], component: int, weight: float, iteration: int) -> None:
    """One of 9 components off by 0.5 in one of two iterations, of which the first counts less."""
    pose = encode_pose(truth["extrinsics"], truth["intrinsics"], SIZE)
    poses = [pose.clone(), pose.clone()]
    poses[iteration][..., component] += 0.5
    expected = 0.5 * weight / 9 * (ITERATION_DECAY if iteration == 0 else 1.0)
    torch.testing.assert_close(camera_loss(poses, truth), torch.tensor(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("factor", [0.8, 1.25], ids=["too-near", "too-far"])
def test_dense_losses_are_relative(perfect: Outputs, truth: dict[str, Tensor], factor: float) -> None:
    """All depths times a factor cost the same near and far: its logarithm, at confidence 1 and by itself."""
    wrong = all_losses(perfect | {"depth": factor * truth["depth"][..., None]}, truth)
    expected = (1 + PLAIN_WEIGHT) * torch.tensor(factor).log().abs()
    torch.testing.assert_close(wrong["depth"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("factor", [1.02, 1.05, 1.2])
def test_best_confidence_is_inverse_to_the_error(perfect: Outputs, truth: dict[str, Tensor], factor: float) -> None:
    """``c e - w log c`` is least at ``c = w / e``: of 5 confidences around it that one has the lowest loss."""
    best = CONFIDENCE_WEIGHT / torch.tensor(factor).log()
    wrong = perfect | {"depth": factor * truth["depth"][..., None]}
    found = [
        float(all_losses(wrong | {"depth_conf": torch.full_like(truth["depth"], best * near)}, truth)["depth"])
        for near in (0.5, 0.9, 1.0, 1.1, 2.0)
    ]
    assert min(found) == found[2]


def test_a_depth_of_zero_has_a_finite_loss_and_gradient(truth: dict[str, Tensor]) -> None:
    depth = torch.zeros(*truth["depth"].shape, 1, requires_grad=True)
    confidence = torch.ones_like(truth["depth"])
    loss = depth_loss(depth, confidence, truth)
    loss.backward()
    assert loss.isfinite()
    assert depth.grad.isfinite().all()


def test_track_loss_counts_visible_points_only(perfect: Outputs, truth: dict[str, Tensor]) -> None:
    hidden = ~truth["visible"]
    assert hidden.any()
    wild = [track + 30.0 * hidden[..., None] for track in perfect["tracks"]]
    torch.testing.assert_close(all_losses(perfect | {"tracks": wild}, truth)["track"], torch.tensor(0.0))


def test_track_loss_by_hand(perfect: Outputs, truth: dict[str, Tensor]) -> None:
    """All points 3 pixels off in x and 1 in y, in the last of 4 iterations; such tracks are not to be confident."""
    off = [*perfect["tracks"][:3], perfect["tracks"][3] + torch.tensor([3.0, -1.0])]
    found = all_losses(perfect | {"tracks": off}, truth)
    torch.testing.assert_close(found["track"], torch.tensor(4.0 / TRACK_SCALE), rtol=1e-4, atol=1e-6)
    assert found["visibility"] > 10


def test_relative_loss_is_the_mean_angle_of_the_evaluation(truth: dict[str, Tensor]) -> None:
    """Against the errors that the evaluation reports, which are told by other formulas; directions count by half."""
    generator = torch.Generator().manual_seed(1)
    pose = encode_pose(truth["extrinsics"], truth["intrinsics"], SIZE)
    pose = pose + 0.02 * torch.randn(pose.shape, generator=generator)
    found = relative_loss(pose, truth["extrinsics"]).rad2deg()
    errors = [pose_errors(decode_pose(one, SIZE)[0], true) for one, true in zip(pose, truth["extrinsics"], strict=True)]
    turned = torch.cat([torch.as_tensor(error.rotation_deg) for error in errors])
    moved = torch.cat([torch.as_tensor(error.translation_deg) for error in errors])
    assert moved.max() < 80  # beyond 90 degrees the evaluation counts the opposite direction
    torch.testing.assert_close(found.double(), (turned.mean() + 0.5 * moved.mean()).double(), rtol=1e-2, atol=0.05)


def test_relative_loss_has_a_finite_slope_at_the_truth_and_opposite(truth: dict[str, Tensor]) -> None:
    pose = encode_pose(truth["extrinsics"], truth["intrinsics"], SIZE)
    opposite = torch.cat([-pose[..., :3], pose[..., 3:]], -1)
    for one in (pose, opposite):
        leaf = one.clone().requires_grad_()
        relative_loss(leaf, truth["extrinsics"]).backward()
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("first", [0, 2])
def test_match_loss_by_hand(first: int) -> None:
    """Two views of two patches, attention to the right one surer by a, of two that are seen at all."""
    views, patches, surer = 2, 2, 3.0
    tokens = first + patches
    target = torch.tensor([[[[0, 1], [1, UNSEEN]], [[0, UNSEEN], [0, 1]]]])  # within a view nothing counts
    logits = torch.zeros(1, views * tokens, views * tokens)
    logits[0, first, tokens + first + 1] = surer  # patch 0 of view 0 looks at patch 1 of view 1, rightly
    logits[0, tokens + first, first + 1] = surer  # patch 0 of view 1 looks at patch 1 of view 0, wrongly
    expected = torch.tensor([0.0, surer]).logsumexp(0) - torch.tensor([surer, 0.0])
    torch.testing.assert_close(match_loss(logits, target, first), expected.mean())


def test_feature_loss_is_least_for_features_that_tell_places_apart(truth: dict[str, Tensor]) -> None:
    """A feature for every scene point beats the same feature everywhere, which is as bad as guessing."""
    flat = torch.ones(2, 3, 8, *SIZE)
    torch.testing.assert_close(feature_loss(flat, truth, 1), torch.tensor(float(SIZE[0] * SIZE[1])).log())
    waves = torch.arange(1.0, 9.0) * 2.0
    points = truth["world_points"].movedim(-1, 2)
    telling = torch.cat([(points[:, :, i : i + 1] * waves[:, None, None]).sin() for i in range(3)], 2)
    assert feature_loss(6 * telling, truth, 1) < 0.6 * feature_loss(flat, truth, 1)


def test_probe_losses_vanish_for_the_truth(truth: dict[str, Tensor]) -> None:
    step = 4
    shift, _ = displacement_to_first(truth, step)
    middles = slice(step // 2, None, step)
    points, depth = truth["world_points"][:, :, middles, middles], truth["depth"][:, :, middles, middles]
    right = torch.cat([shift / 16, points, depth.log()[..., None]], -1)
    for name, value in probe_losses([right, right], truth).items():
        torch.testing.assert_close(value, torch.tensor(0.0), msg=name)
    wrong = probe_losses([right, right + torch.tensor([0.0] * 5 + [0.5])], truth)
    torch.testing.assert_close(wrong["coarse_depth"], torch.tensor(0.25))
    torch.testing.assert_close(wrong["displacement"], torch.tensor(0.0))
