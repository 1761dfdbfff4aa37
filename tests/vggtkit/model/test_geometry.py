"""Cameras against scipy's rotations and a loop over pixels."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from vggtkit.model.geometry import (
    decode_pose,
    encode_pose,
    quaternion_from_rotation,
    rotation_from_xyzw,
    unproject,
)

AXES = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, -1), (0, -1, 1), (1, 2, 3), (-3, 1, 2)]
ANGLES = [0.0, 1e-4, 0.5, np.pi / 2, 3.0, np.pi - 1e-4, np.pi]


def some_rotations() -> dict[str, Rotation]:
    turns = [np.array(axis) / np.linalg.norm(axis) * angle for axis in AXES for angle in ANGLES]
    return {
        "random": Rotation.random(200, random_state=0),
        "half-turns": Rotation.from_rotvec(np.pi * np.array(AXES) / np.linalg.norm(AXES, axis=1, keepdims=True)),
        "axes-and-angles": Rotation.from_rotvec(np.array(turns)),
    }


@pytest.fixture(params=["random", "half-turns", "axes-and-angles"])
def rotations(request: pytest.FixtureRequest) -> Rotation:
    return some_rotations()[request.param]


def test_rotation_from_xyzw_equals_scipy(rotations: Rotation) -> None:
    quaternion = torch.from_numpy(rotations.as_quat())
    expected = torch.from_numpy(rotations.as_matrix())
    torch.testing.assert_close(rotation_from_xyzw(quaternion), expected)
    torch.testing.assert_close(rotation_from_xyzw(-3 * quaternion), expected)  # of any length and sign


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_quaternion_from_rotation_equals_scipy(rotations: Rotation, dtype: torch.dtype) -> None:
    """Up to the sign, which is free: q and -q are one rotation; ours has w >= 0."""
    found = quaternion_from_rotation(torch.from_numpy(rotations.as_matrix()).to(dtype))
    expected = torch.from_numpy(rotations.as_quat()).to(dtype)
    sign = (found * expected).sum(-1, keepdim=True).sign()
    assert (found[..., 3] >= 0).all()
    torch.testing.assert_close(found, sign * expected)


def test_leading_axes_are_kept() -> None:
    matrices = torch.from_numpy(Rotation.random(6, random_state=1).as_matrix()).view(2, 3, 3, 3)
    quaternions = quaternion_from_rotation(matrices)
    assert quaternions.shape == (2, 3, 4)
    torch.testing.assert_close(rotation_from_xyzw(quaternions), matrices)


def some_cameras(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Extrinsics ``[2, 3, 3, 4]`` and intrinsics ``[2, 3, 3, 3]`` with the principal point in the middle."""
    generator = np.random.default_rng(0)
    rotation = Rotation.random(6, random_state=2).as_matrix()
    translation = generator.normal(size=(6, 3, 1))
    intrinsics = np.zeros((6, 3, 3))
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = generator.uniform(30, 90, (2, 6))
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = size[1] / 2, size[0] / 2, 1
    extrinsics = np.concatenate([rotation, translation], axis=2)
    return torch.from_numpy(extrinsics).view(2, 3, 3, 4), torch.from_numpy(intrinsics).view(2, 3, 3, 3)


def test_pose_encoding_round_trip() -> None:
    size = (48, 80)
    extrinsics, intrinsics = some_cameras(size)
    decoded = decode_pose(encode_pose(extrinsics, intrinsics, size), size)
    torch.testing.assert_close(decoded, (extrinsics, intrinsics))


def test_pose_encoding_has_the_published_order() -> None:
    """Translation, quaternion (x, y, z, w), vertical, then horizontal field of view."""
    quaternion = [0.1, -0.5, 0.3, 0.8]
    extrinsics = torch.zeros(3, 4, dtype=torch.float64)
    extrinsics[:, :3] = torch.from_numpy(Rotation.from_quat(quaternion).as_matrix())
    extrinsics[:, 3] = torch.tensor([1.0, 2.0, 3.0])
    intrinsics = torch.tensor([[40.0, 0, 40], [0, 24 / np.tan(0.35), 24], [0, 0, 1]], dtype=torch.float64)
    expected = [1.0, 2.0, 3.0, *(np.array(quaternion) / np.linalg.norm(quaternion)), 0.7, np.pi / 2]
    encoding = encode_pose(extrinsics, intrinsics, (48, 80))
    torch.testing.assert_close(encoding, torch.tensor(expected, dtype=torch.float64))


def unprojected_by_hand(depth: Tensor, extrinsics: Tensor, intrinsics: Tensor) -> Tensor:
    """Pixel by pixel: the point whose projection is (u, v) at this depth."""
    rotation, translation = extrinsics[:, :3].numpy(), extrinsics[:, 3].numpy()
    points = np.empty((*depth.shape, 3))
    for v in range(depth.shape[0]):
        for u in range(depth.shape[1]):
            in_camera = float(depth[v, u]) * np.linalg.solve(intrinsics.numpy(), np.array([u, v, 1.0]))
            points[v, u] = np.linalg.solve(rotation, in_camera - translation)
    return torch.from_numpy(points)


def test_unproject_equals_a_loop_over_pixels() -> None:
    size = (5, 7)
    extrinsics, intrinsics = some_cameras(size)
    depth = torch.from_numpy(np.random.default_rng(3).uniform(0.5, 4, (2, 3, *size)))
    found = unproject(depth, extrinsics, intrinsics)
    for b, s in np.ndindex(2, 3):
        torch.testing.assert_close(found[b, s], unprojected_by_hand(depth[b, s], extrinsics[b, s], intrinsics[b, s]))
