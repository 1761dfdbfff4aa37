"""Who is where in the other views: true correspondences of rendered scenes, from depth and cameras."""

from __future__ import annotations

import torch
from torch import Tensor

NEAREST = 1e-2
OCCLUSION_TOLERANCE = 0.04
UNSEEN = -1


def project(points: Tensor, extrinsics: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Points in every view.

    Args:
        points: ``[B, N, 3]`` in the world frame.
        extrinsics: ``[B, S, 3, 4]`` world to camera.
        intrinsics: ``[B, S, 3, 3]`` in pixels.

    Returns:
        Pixels (x, y) ``[B, S, N, 2]`` and z-depths ``[B, S, N]``; pixels of points behind a camera mean nothing.

    >>> camera = torch.eye(4)[None, None, :3], torch.eye(3)[None, None]
    >>> project(torch.tensor([[[2.0, 4.0, 2.0]]]), *camera)[0]
    tensor([[[[1., 2.]]]])
    """
    local = torch.einsum("bsij,bnj->bsni", extrinsics[..., :3], points) + extrinsics[..., None, :, 3]
    focal, centre = intrinsics[..., [0, 1], [0, 1]], intrinsics[..., :2, 2]
    pixels = local[..., :2] / local[..., 2:].clamp(min=NEAREST) * focal[:, :, None] + centre[:, :, None]
    return pixels, local[..., 2]


def matching_patches(batch: dict[str, Tensor], patch: int) -> Tensor:
    """The patch of view j in which the middle of each patch of view i is seen.

    Args:
        batch: what `vggtkit.scenes.render_batch` returns.
        patch: side in pixels.

    Returns:
        Indices ``[B, S (i), S (j), P]``, row by row; `UNSEEN` where the point is outside of view j or hidden there.
    """
    points, depth = batch["world_points"], batch["depth"]
    views, height, width = points.shape[1:4]
    middles = points[:, :, patch // 2 :: patch, patch // 2 :: patch].flatten(1, 3)
    pixels, z = project(middles, batch["extrinsics"], batch["intrinsics"])
    x, y = pixels.round().long().unbind(-1)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height) & (z > NEAREST)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    surface = depth.flatten(2).gather(2, y * width + x)
    seen = inside & ((z / surface - 1).abs() < OCCLUSION_TOLERANCE)
    index = torch.where(seen, y // patch * (width // patch) + x // patch, UNSEEN)
    by_view: Tensor = index.unflatten(2, (views, -1))
    return by_view.transpose(1, 2)


def displacement_to_first(batch: dict[str, Tensor], step: int) -> tuple[Tensor, Tensor]:
    """How far away in the first view the points of every view lie.

    Args:
        batch: what `vggtkit.scenes.render_batch` returns.
        step: distance in pixels between the points of a view, the first half of it from the edge.

    Returns:
        Displacements (x, y) ``[B, S, h, w, 2]`` in pixels, and ``[B, S, h, w]`` bool, whether the point lies in the
        first picture or within half a picture of it.
    """
    points = batch["world_points"][:, :, step // 2 :: step, step // 2 :: step]
    height, width = batch["depth"].shape[-2:]
    pixels, z = project(points.flatten(1, 3), batch["extrinsics"][:, :1], batch["intrinsics"][:, :1])
    pixels, z = pixels[:, 0].view(*points.shape[:-1], 2), z[:, 0].view(points.shape[:-1])
    v, u = torch.meshgrid(torch.arange(step // 2, height, step), torch.arange(step // 2, width, step), indexing="ij")
    size = torch.tensor([width, height])
    near = ((pixels > -size / 2) & (pixels < 1.5 * size)).all(-1) & (z > 5 * NEAREST)
    return pixels - torch.stack([u, v], -1), near
