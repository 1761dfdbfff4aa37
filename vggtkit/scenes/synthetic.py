"""Synthetic scenes with exact ground truth: textured rooms, rendered by ray casting."""

from __future__ import annotations

import hashlib
import itertools
from typing import Literal

import torch
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.scenes.layout import BOXES, SPHERES, Cameras, Layout, draws_needed, lay_out
from vggtkit.scenes.raycast import ROOM_FACES, cast
from vggtkit.scenes.scene import GroundTruth, Scene
from vggtkit.scenes.textures import SURFACE_DRAWS, shade, surface_table

SyntheticSplit = Literal["calibration", "evaluation", "training"]
SPLIT_CODES: dict[str, int] = {"calibration": 1, "evaluation": 2, "training": 3}
SEED_BITS = 30  # torch's CPU generator looks at 32 bits of its seed; two of them tell the splits apart
QUERY_DRAWS = 2
OCCLUSION_TOLERANCE = 0.01
SURFACES = ROOM_FACES * (1 + BOXES) + SPHERES
CHUNK_RAYS = 1 << 17


def render_batch(
    count: int,
    views: int,
    size: tuple[int, int],
    *,
    generator_seed: int,
    baseline: float = 1.0,
    tracks: int = 32,
    supersample: int = 2,
) -> dict[str, Tensor]:
    """Render ``count`` random rooms, each seen by ``views`` cameras.

    Args:
        count: scenes, B.
        views: views per scene, S.
        size: height and width in pixels.
        generator_seed: 0 to 2**30 - 1; the same arguments give the same bytes.
        baseline: how far the cameras are apart: at 1.0 up to about one unit, in rooms of 4 to 8 units.
        tracks: query points per scene, N.
        supersample: colour samples per pixel and axis; depth and points always belong to pixel centres.

    Returns:
        ``images [B,S,3,H,W]`` in [0, 1]; ``extrinsics [B,S,3,4]`` world-to-camera, the first the identity;
        ``intrinsics [B,S,3,3]``; ``depth [B,S,H,W]`` z-depth; ``world_points [B,S,H,W,3]`` in the first
        camera's frame, their mean distance to the origin 1 in every scene; ``query_points [B,N,2]`` xy in the
        first view and ``tracks [B,S,N,2]`` where they are in every view, integer k being the centre of pixel
        k; ``visible [B,S,N]`` bool, the rest float32. Points behind a camera have finite, meaningless tracks.

    Raises:
        InputError: a count or size below 1, a negative baseline, or a seed out of range.

    >>> batch = render_batch(2, 3, (14, 28), generator_seed=0, tracks=4)
    >>> batch["images"].shape, batch["tracks"].shape
    (torch.Size([2, 3, 3, 14, 28]), torch.Size([2, 3, 4, 2]))
    """
    _check_seed(generator_seed, "generator_seed")
    _check(count, views, size, tracks, supersample, baseline)
    draws = _draws(generator_seed, count, views)
    return _render(draws, views, size, baseline, tracks, supersample)


def render_scene(
    seed: int,
    views: int = 4,
    size: tuple[int, int] = (64, 64),
    *,
    baseline: float = 1.0,
    tracks: int = 32,
    supersample: int = 2,
) -> Scene:
    """Render one random room; see :func:`render_batch` for arguments, conventions and errors.

    >>> render_scene(7, views=2, size=(14, 14)).name
    'synthetic-7'
    """
    _check_seed(seed, "seed")
    _check(1, views, size, tracks, supersample, baseline)
    batch = _render(_draws(seed, 1, views), views, size, baseline, tracks, supersample)
    return _scene(f"synthetic-{seed}", batch)


def synthetic_scenes(
    count: int, views: int, size: tuple[int, int], *, seed: int = 0, split: SyntheticSplit, baseline: float = 1.0
) -> list[Scene]:
    """Scenes for one purpose; no two splits ever share a random stream, whatever the seeds.

    Args:
        count: how many scenes; fewer of them are the first of more.
        views: views per scene.
        size: height and width in pixels.
        seed: any integer.
        split: what they are for.
        baseline: see :func:`render_batch`.

    Raises:
        InputError: an unknown split, or what :func:`render_batch` refuses.

    >>> [scene.name for scene in synthetic_scenes(2, 2, (14, 14), seed=3, split="evaluation")]
    ['evaluation-3-0', 'evaluation-3-1']
    """
    _check(count, views, size, 32, 2, baseline)
    draws = _draws(split_seed(split, seed), count, views)
    return [  # one by one: in a batch, rounding may depend on its size, and then fingerprints would
        _scene(f"{split}-{seed}-{index}", _render(row, views, size, baseline, 32, 2))
        for index, row in enumerate(draws.split(1))
    ]


def split_seed(split: str, seed: int) -> int:
    """32-bit generator seed of a split: the split in the top two bits, a hash of the seed below.

    The top bits are 0 for the seeds that :func:`render_batch` and :func:`render_scene` take.

    >>> split_seed("calibration", 0) >> 30, split_seed("evaluation", 0) >> 30
    (1, 2)
    """
    if split not in SPLIT_CODES:
        raise InputError(f"unknown split {split!r} of synthetic scenes: use one of {', '.join(SPLIT_CODES)}")
    digest = hashlib.sha256(str(seed).encode()).digest()
    low = int.from_bytes(digest[:4], "big") & ((1 << SEED_BITS) - 1)
    return (SPLIT_CODES[split] << SEED_BITS) | low


def _check_seed(seed: int, name: str) -> None:
    if not 0 <= seed < 1 << SEED_BITS:
        raise InputError(f"{name} is {seed}, but must be between 0 and {(1 << SEED_BITS) - 1}")


def _check(count: int, views: int, size: tuple[int, int], tracks: int, supersample: int, baseline: float) -> None:
    limits = {"count": count, "views": views, "height": size[0], "width": size[1], "supersample": supersample}
    for name, value in limits.items():
        if value < 1:
            raise InputError(f"synthetic scenes need {name} of at least 1, got {value}")
    if tracks < 0 or baseline < 0:
        raise InputError(f"synthetic scenes need tracks >= 0 and baseline >= 0, got {tracks} and {baseline}")


@torch.no_grad()
def _render(
    draws: Tensor, views: int, size: tuple[int, int], baseline: float, tracks: int, supersample: int
) -> dict[str, Tensor]:
    room = draws_needed(views)
    layout = lay_out(draws[:, :room], views, baseline)
    surface_draws = draws[:, room:-QUERY_DRAWS].reshape(-1, SURFACES, SURFACE_DRAWS)
    intrinsics = _intrinsics(layout.cameras.fov, views, size)
    depth = _depth(layout, intrinsics, size)
    query_points = _query_points(draws[:, -QUERY_DRAWS:], tracks, size)
    positions, visible = _tracks(layout, intrinsics, query_points, size)
    truth = _normalised(layout.cameras, intrinsics, depth)
    images = _images(layout, surface_table(layout.solids, surface_draws), intrinsics, size, supersample)
    return {"images": images, **truth, "query_points": query_points, "tracks": positions, "visible": visible}


def _draws(seed: int, count: int, views: int) -> Tensor:
    """One row per scene of all the random numbers that it takes."""
    columns = draws_needed(views) + SURFACES * SURFACE_DRAWS + QUERY_DRAWS
    return torch.rand(count, columns, generator=torch.Generator().manual_seed(seed))


def _intrinsics(fov: Tensor, views: int, size: tuple[int, int]) -> Tensor:
    """``[B, S, 3, 3]``: one camera per scene, square pixels, the principal point in the middle."""
    height, width = size
    matrix = torch.eye(3).repeat(len(fov), views, 1, 1)
    matrix[..., 0, 0] = matrix[..., 1, 1] = (max(size) / 2 / (fov / 2).tan())[:, None]
    matrix[..., 0, 2], matrix[..., 1, 2] = width / 2, height / 2
    return matrix


def _unproject(intrinsics: Tensor) -> Tensor:
    """Inverse intrinsics in closed form, because rays deserve every bit."""
    focal, centre = intrinsics[..., 0, 0], intrinsics[..., :2, 2]
    inverse = torch.eye(3).repeat(*intrinsics.shape[:2], 1, 1)
    inverse[..., 0, 0] = inverse[..., 1, 1] = 1 / focal
    inverse[..., :2, 2] = -centre / focal[..., None]
    return inverse


def _pixels(size: tuple[int, int], shift_x: float = 0.0, shift_y: float = 0.0) -> Tensor:
    """Homogeneous pixel centres ``[3, H * W]``, row by row, shifted by a part of a pixel."""
    v, u = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return torch.stack([u + shift_x, v + shift_y, torch.ones(size)]).flatten(1)


def _slices(total: int, rays_each: int) -> list[slice]:
    """Pieces of the pixel list that keep the working set of all scenes and views in bounded memory."""
    step = max(1, CHUNK_RAYS // rays_each)
    return [slice(start, start + step) for start in range(0, total, step)]


def _depth(layout: Layout, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    cameras, pixels = layout.cameras, _pixels(size)
    to_world = cameras.rotation.transpose(-1, -2) @ _unproject(intrinsics)
    pieces = _slices(pixels.shape[1], cameras.centre.shape[:2].numel())
    hits = [cast(layout.solids, cameras.centre, to_world, pixels[:, piece]).t for piece in pieces]
    return torch.cat(hits, -1).reshape(*cameras.centre.shape[:2], *size)


def _images(layout: Layout, table: Tensor, intrinsics: Tensor, size: tuple[int, int], supersample: int) -> Tensor:
    """Colours, averaged over a grid of samples in each pixel."""
    cameras = layout.cameras
    to_world = cameras.rotation.transpose(-1, -2) @ _unproject(intrinsics)
    sample_angle = 1 / (intrinsics[:, 0, 0, 0] * supersample)
    images = torch.zeros(*cameras.centre.shape[:2], 3, size[0] * size[1])
    shifts = [(index + 0.5) / supersample - 0.5 for index in range(supersample)]
    for shift_x, shift_y in itertools.product(shifts, shifts):
        pixels = _pixels(size, shift_x, shift_y)
        for piece in _slices(pixels.shape[1], cameras.centre.shape[:2].numel()):
            hits = cast(layout.solids, cameras.centre, to_world, pixels[:, piece])
            images[..., piece] += shade(hits, table, cameras.centre, layout.light, sample_angle)
    images *= layout.exposure[..., None] / supersample**2
    return images.clamp_(0, 1).reshape(*images.shape[:3], *size)


def _query_points(draws: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """Pixels ``[B, N, 2]`` that cover the view evenly: the R2 sequence (Roberts, 2018) from a random start.

    Every pixel sees a wall, so each has a depth.
    """
    steps = torch.arange(count)[:, None] * torch.tensor([0.7548776662, 0.5698402910])
    extent = torch.tensor([size[1], size[0]])
    pixels = ((draws[:, None] + steps).frac() * extent).floor()
    return torch.minimum(pixels, extent - 1.0)


def _tracks(layout: Layout, intrinsics: Tensor, query_points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where the query points are in every view, and whether each is seen there, told by one more ray."""
    cameras, unproject = layout.cameras, _unproject(intrinsics)
    to_world = cameras.rotation.transpose(-1, -2) @ unproject
    queries = torch.nn.functional.pad(query_points, (0, 1), value=1.0).transpose(-1, -2)[:, None]
    hits = cast(layout.solids, cameras.centre[:, :1], to_world[:, :1], queries)
    points = cameras.centre[:, :1, :, None] + hits.t[:, :, None] * hits.direction
    local = cameras.rotation @ (points - cameras.centre[..., None])
    z = local[:, :, 2]
    projected = intrinsics @ (local / z.clamp(min=1e-2)[:, :, None])
    projected[:, 0, :2] = queries[:, 0, :2]
    projected[:, :, 2] = 1
    first = cast(layout.solids, cameras.centre, to_world, projected).t
    u, v = projected[:, :, 0], projected[:, :, 1]
    inside = (u >= 0) & (v >= 0) & (u < size[1]) & (v < size[0]) & (z > 1e-2)
    seen = inside & (first > z * (1 - OCCLUSION_TOLERANCE))
    return projected[:, :, :2].transpose(-1, -2), seen


def _normalised(cameras: Cameras, intrinsics: Tensor, depth: Tensor) -> dict[str, Tensor]:
    """Into the first camera's frame, all lengths divided by the mean distance of the points to its centre."""
    to_first = cameras.rotation[:, :1].transpose(-1, -2)
    rotation = cameras.rotation @ to_first
    rotation[:, 0] = torch.eye(3)
    centre = (cameras.rotation[:, :1] @ (cameras.centre - cameras.centre[:, :1])[..., None]).squeeze(-1)
    rays = (rotation.transpose(-1, -2) @ _unproject(intrinsics)) @ _pixels((depth.shape[-2], depth.shape[-1]))
    points = rays.mul_(depth.flatten(2)[:, :, None]).add_(centre[..., None])
    scale = points.square().sum(2).sqrt().mean((1, 2))[:, None, None, None]
    translation = -(rotation @ centre[..., None]) / scale
    world_points = points.div_(scale).transpose(-1, -2).reshape(*depth.shape, 3)
    return {
        "extrinsics": torch.cat([rotation, translation], -1),
        "intrinsics": intrinsics,
        "depth": depth / scale,
        "world_points": world_points,
    }


def _scene(name: str, batch: dict[str, Tensor]) -> Scene:
    """The only scene of a batch of one."""
    fields = ("extrinsics", "intrinsics", "depth", "world_points", "tracks", "visible")
    truth = GroundTruth(**{field: batch[field][0] for field in fields})
    return Scene(name, batch["images"][0], batch["query_points"][0], truth)
