"""Cameras: pose encodings, rotations and unprojection, in VGGT's conventions (world to camera, OpenCV axes)."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_from_xyzw(quaternion: Tensor) -> Tensor:
    """Rotation matrices ``[..., 3, 3]`` of quaternions ``[..., 4]`` in (x, y, z, w) order, of any length but 0.

    >>> rotation_from_xyzw(torch.tensor([0.0, 0.0, 0.0, 2.0])).diagonal()
    tensor([1., 1., 1.])
    """
    x, y, z, w = quaternion.unbind(-1)
    two = 2.0 / (quaternion * quaternion).sum(-1)
    rows = [
        [1 - two * (y * y + z * z), two * (x * y - z * w), two * (x * z + y * w)],
        [two * (x * y + z * w), 1 - two * (x * x + z * z), two * (y * z - x * w)],
        [two * (x * z - y * w), two * (y * z + x * w), 1 - two * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def quaternion_from_rotation(rotation: Tensor) -> Tensor:
    """Unit quaternions ``[..., 4]`` (x, y, z, w), w not negative, of rotations ``[..., 3, 3]``.

    The largest of the four components is taken from the diagonal and the others from it, so that no small number
    is divided by (Shepperd, "Quaternion from rotation matrix", 1978).

    >>> quaternion_from_rotation(torch.eye(3))
    tensor([0., 0., 0., 1.])
    """
    m = rotation
    trace = m.diagonal(dim1=-2, dim2=-1)
    total = trace.sum(-1, keepdim=True)
    squares = torch.cat([1 + 2 * trace - total, 1 + total], dim=-1)  # 4 x^2, 4 y^2, 4 z^2, 4 w^2
    xy, xz, yz = (m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1])
    xw, yw, zw = (m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1])
    products = torch.stack(
        [
            torch.stack([squares[..., 0], xy, xz, xw], dim=-1),
            torch.stack([xy, squares[..., 1], yz, yw], dim=-1),
            torch.stack([xz, yz, squares[..., 2], zw], dim=-1),
            torch.stack([xw, yw, zw, squares[..., 3]], dim=-1),
        ],
        dim=-2,
    )
    best = squares.argmax(dim=-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quaternion = products.gather(-2, best).squeeze(-2)
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def encode_pose(extrinsics: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """Pose encodings ``[..., 9]``: translation, quaternion (x, y, z, w), vertical and horizontal field of view.

    Args:
        extrinsics: ``[..., 3, 4]`` world to camera.
        intrinsics: ``[..., 3, 3]`` in pixels.
        size: height and width of the pictures in pixels.
    """
    height, width = size
    fov_h = 2 * torch.atan(height / 2 / intrinsics[..., 1, 1])
    fov_w = 2 * torch.atan(width / 2 / intrinsics[..., 0, 0])
    quaternion = quaternion_from_rotation(extrinsics[..., :3])
    return torch.cat([extrinsics[..., 3], quaternion, fov_h[..., None], fov_w[..., None]], dim=-1)


def decode_pose(encoding: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Extrinsics ``[..., 3, 4]`` and intrinsics ``[..., 3, 3]`` (pixels) of pose encodings ``[..., 9]``.

    The principal point is the middle of the picture, ``size`` its height and width in pixels.

    >>> _, intrinsics = decode_pose(torch.tensor([0, 0, 0, 0, 0, 0, 1, torch.pi / 2, torch.pi / 2]), (64, 80))
    >>> intrinsics.round()
    tensor([[40.,  0., 40.],
            [ 0., 32., 32.],
            [ 0.,  0.,  1.]])
    """
    height, width = size
    rotation = rotation_from_xyzw(encoding[..., 3:7])
    extrinsics = torch.cat([rotation, encoding[..., :3, None]], dim=-1)
    intrinsics = torch.zeros_like(rotation)
    intrinsics[..., 0, 0] = width / 2 / torch.tan(encoding[..., 8] / 2)
    intrinsics[..., 1, 1] = height / 2 / torch.tan(encoding[..., 7] / 2)
    intrinsics[..., 0, 2], intrinsics[..., 1, 2], intrinsics[..., 2, 2] = width / 2, height / 2, 1
    return extrinsics, intrinsics


def unproject(depth: Tensor, extrinsics: Tensor, intrinsics: Tensor) -> Tensor:
    """World points ``[..., H, W, 3]`` of depth maps ``[..., H, W]`` seen by cameras.

    As published, whole (u, v) are looked through at exactly (u, v): the principal point is that of pixel indices.

    Args:
        depth: z of each pixel in the camera.
        extrinsics: ``[..., 3, 4]`` world to camera.
        intrinsics: ``[..., 3, 3]`` in pixels, without skew.
    """
    height, width = depth.shape[-2:]
    u = torch.arange(width, device=depth.device, dtype=depth.dtype)
    v = torch.arange(height, device=depth.device, dtype=depth.dtype)[:, None]
    fx, fy, cx, cy = (intrinsics[..., i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    camera = torch.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], dim=-1)
    rotation, translation = extrinsics[..., :3], extrinsics[..., 3]
    return torch.einsum("...hwc,...cd->...hwd", camera - translation[..., None, None, :], rotation)
