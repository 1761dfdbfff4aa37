"""Losses are least for the truth, and count what they say they count."""

import pytest
import torch
from torch import Tensor

from model.geometry import encode_pose
from scenes.synthetic import render_batch
from training.losses import (
    CONFIDENCE_WEIGHT,
    ITERATION_DECAY,
    ROTATION_WEIGHT,
    TRACK_SCALE,
    WEIGHTS,
    camera_loss,
    dense_losses,
    track_losses,
)

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
        **dense_losses((outputs["depth"], outputs["depth_conf"]), (outputs["points"], outputs["points_conf"]), truth),
        **track_losses(outputs["tracks"], outputs["vis"], outputs["conf"], truth),
    }


def test_losses_vanish_for_the_truth(perfect: Outputs, truth: dict[str, Tensor]) -> None:
    found = all_losses(perfect, truth)
    assert found.keys() == WEIGHTS.keys()
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
    """All depths times a factor cost the same near and far: its logarithm, at confidence 1."""
    wrong = all_losses(perfect | {"depth": factor * truth["depth"][..., None]}, truth)
    expected = torch.tensor(factor).log().abs()
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
    loss = dense_losses((depth, confidence), (truth["world_points"], confidence), truth)["depth"]
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
