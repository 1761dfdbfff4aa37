"""Worlds rendered, with the truth about them: ``world_batch`` for training, ``world_scenes`` for judging."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from training.worlds.developing import develop
from training.worlds.layout import Layout, lay_out
from training.worlds.shading import shade
from training.worlds.solids import cast, is_free
from training.worlds.textures import Bank, make_bank
from vggtkit.scenes.scene import GroundTruth, Scene

WorldSplit = Literal["calibration", "evaluation", "training", "validation"]
SPLIT_CODES: dict[str, int] = {"calibration": 1, "evaluation": 2, "training": 3, "validation": 4}
FIELD_DEG = (32.0, 95.0)  # of view along the longer side
OCCLUSION = 0.99
BEHIND = 1e-2
TRACKS = 32
PICTURES = 256
SPLIT_BANKS = 2**40  # seeds of banks from here on are for scenes to judge on


def world_batch(
    count: int, views: int, size: tuple[int, int], *, seed: tuple[int, ...], bank: Bank, supersample: int = 1
) -> dict[str, Tensor]:
    """Worlds of different kinds, as `vggtkit.scenes.render_batch` gives rooms, in the same conventions.

    Args:
        count: worlds, B.
        views: of each, S.
        size: height and width in pixels.
        seed: of the batch: the same gives the same pictures, and no two share a world.
        bank: pictures for the surfaces.
        supersample: samples of colour per pixel and axis.

    Returns:
        ``images``, ``extrinsics``, ``intrinsics``, ``depth``, ``world_points``, ``query_points``, ``tracks`` and
        ``visible``; depth is positive everywhere.

    >>> batch = world_batch(2, 3, (16, 24), seed=(0,), bank=make_bank(0, 4))
    >>> batch["images"].shape, batch["tracks"].shape
    (torch.Size([2, 3, 3, 16, 24]), torch.Size([2, 3, 32, 2]))
    """
    rows = [_render(np.random.default_rng([*seed, row]), views, size, bank, supersample) for row in range(count)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def world_scenes(
    count: int, views: int, size: tuple[int, int], *, seed: int = 0, split: WorldSplit, pictures: int = PICTURES
) -> list[Scene]:
    """Worlds for one purpose; no two splits share a world or a picture on a surface.

    Args:
        count: how many; fewer are the first of more.
        views: of each.
        size: height and width in pixels.
        seed: of the worlds.
        split: what they are for.
        pictures: in the bank.

    >>> [scene.name for scene in world_scenes(1, 2, (16, 16), split="validation", pictures=4)]
    ['world-validation-0-0']
    """
    code = SPLIT_CODES[split]
    bank, scenes = make_bank(SPLIT_BANKS + code, pictures), []
    for index in range(count):
        batch = world_batch(1, views, size, seed=(code, seed, index), bank=bank, supersample=2)
        names = ("extrinsics", "intrinsics", "depth", "world_points", "tracks", "visible")
        truth = GroundTruth(**{name: batch[name][0] for name in names})
        scenes.append(Scene(f"world-{split}-{seed}-{index}", batch["images"][0], batch["query_points"][0], truth))
    return scenes


@torch.no_grad()
def _render(
    rng: np.random.Generator, views: int, size: tuple[int, int], bank: Bank, supersample: int
) -> dict[str, Tensor]:
    layout = lay_out(rng, views, bank.count, bank.plain)
    rotation = torch.from_numpy(layout.path.rotation).float()
    centre = torch.from_numpy(layout.path.centre).float()
    intrinsics = _intrinsics(rng, size)
    origin, direction = _rays(centre, rotation, intrinsics, size)
    hits = cast(layout.world, origin, direction)
    depth = hits.t.view(views, *size)
    angle = 1 / (float(intrinsics[0, 0]) * supersample)
    if supersample == 1:
        light = shade(layout, bank, origin, direction, hits, angle)
    else:
        light = _supersampled(layout, bank, (centre, rotation, intrinsics), size, supersample)
    images = develop(rng, light.view(3, views, *size).transpose(0, 1).contiguous())
    points = (origin + hits.t * direction).view(3, views, *size).permute(1, 2, 3, 0)
    queries = torch.from_numpy(rng.integers([size[1], size[0]], size=(TRACKS, 2))).float()
    tracks, visible = _tracks(layout, points[0], queries, (centre, rotation, intrinsics), size)
    truth = _normalised(centre, rotation, depth, points)
    both = {"intrinsics": intrinsics.repeat(views, 1, 1), "query_points": queries, "tracks": tracks, "visible": visible}
    return {"images": images, **truth, **both}


def _intrinsics(rng: np.random.Generator, size: tuple[int, int]) -> Tensor:
    """``[3, 3]``: pixels nearly square, the principal point near the middle, as in lenses and crops."""
    height, width = size
    focal = max(size) / 2 / np.tan(np.radians(rng.uniform(*FIELD_DEG)) / 2)
    offset = rng.normal(0, 0.012, 2).clip(-0.03, 0.03) * [width, height]
    matrix = torch.eye(3)
    matrix[0, 0], matrix[1, 1] = focal, focal * np.exp(rng.normal(0, 0.01))
    matrix[0, 2], matrix[1, 2] = width / 2 + offset[0], height / 2 + offset[1]
    return matrix


def _rays(
    centre: Tensor, rotation: Tensor, intrinsics: Tensor, size: tuple[int, int], shift: tuple[float, float] = (0.0, 0.0)
) -> tuple[Tensor, Tensor]:
    """Origins and directions ``[3, S * H * W]`` whose camera z is 1, so that t is depth."""
    v, u = torch.meshgrid(torch.arange(size[0]) + shift[1], torch.arange(size[1]) + shift[0], indexing="ij")
    x = (u - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (v - intrinsics[1, 2]) / intrinsics[1, 1]
    local = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    direction = (rotation.transpose(1, 2) @ local).transpose(0, 1).flatten(1)
    return centre.T.repeat_interleave(local.shape[1], 1), direction.contiguous()


def _supersampled(
    layout: Layout, bank: Bank, cameras: tuple[Tensor, Tensor, Tensor], size: tuple[int, int], supersample: int
) -> Tensor:
    total = torch.zeros(3, len(cameras[0]) * size[0] * size[1])
    shifts = [(index + 0.5) / supersample - 0.5 for index in range(supersample)]
    for shift in itertools.product(shifts, shifts):
        origin, direction = _rays(*cameras, size, shift)
        hits = cast(layout.world, origin, direction)
        total += shade(layout, bank, origin, direction, hits, 1 / (float(cameras[2][0, 0]) * supersample))
    return total / supersample**2


def _tracks(
    layout: Layout, points: Tensor, queries: Tensor, cameras: tuple[Tensor, Tensor, Tensor], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Where points of the first view are in every view, and whether they are seen there."""
    centre, rotation, intrinsics = cameras
    column, row = queries.long().unbind(-1)
    followed = points[row, column]
    local = (followed - centre[:, None]) @ rotation.transpose(1, 2)
    z = local[..., 2]
    focal, middle = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    places = local[..., :2] / z.clamp(min=BEHIND)[..., None] * focal + middle
    places[0] = queries
    inside = (places >= 0).all(-1) & (places < torch.tensor([size[1], size[0]])).all(-1) & (z > BEHIND)
    origin = centre.T.repeat_interleave(len(queries), 1)
    towards = followed.T.repeat(1, len(centre)) - origin
    seen = is_free(layout.world, origin, towards, OCCLUSION).view(inside.shape)
    return places, inside & seen


def _normalised(centre: Tensor, rotation: Tensor, depth: Tensor, points: Tensor) -> dict[str, Tensor]:
    """Into the first camera's frame, all lengths divided by the mean distance of the points to its centre."""
    relative = rotation @ rotation[0].T
    relative[0] = torch.eye(3)
    moved = (centre - centre[0]) @ rotation[0].T
    points = (points - centre[0]) @ rotation[0].T
    scale = points.norm(dim=-1).mean()
    translation = -(relative @ moved[..., None]) / scale
    return {
        "extrinsics": torch.cat([relative, translation], -1),
        "depth": depth / scale,
        "world_points": points / scale,
    }
