"""Procedural textures and diffuse shading of the surfaces of a synthetic scene.

A surface is one column of a table: normal and texture coordinates are affine in the world point, so flat
faces and spheres need no branches. Patterns are band-limited by the footprint of the ray that sees them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vggtkit.scenes.raycast import Hits, Solids, yaw_matrix

PATTERNS = 4  # checker, stripes, tiles of random tone, smooth noise
SURFACE_DRAWS = 16  # uniform random numbers that a surface takes
TABLE_COLUMNS = 4 + 4 + 4 + 1 + 3 + 3 + PATTERNS
AMBIENT = 0.5


def surface_table(solids: Solids, draws: Tensor) -> Tensor:
    """What the shading needs to know of each surface, ``[TABLE_COLUMNS, B, surfaces]``.

    Columns: normal (3) and its gain per world unit, texture coordinates s and t (gradient and offset each),
    frequency, two colours, weight of each pattern.

    Args:
        solids: the geometry.
        draws: ``[B, surfaces, SURFACE_DRAWS]`` uniform in [0, 1).
    """
    normal, gain, origin, frame, size = _geometry(solids)
    is_room = (torch.arange(draws.shape[1]) < 6).float()
    pattern = torch.nn.functional.one_hot((draws[..., 0] * PATTERNS).long(), PATTERNS).float()
    period = 0.7 + 0.9 * draws[..., 1]
    period = torch.where(is_room > 0, period, size * (1.2 + 0.8 * draws[..., 1]))
    frequency = 1 / period
    angle = torch.where(draws[..., 2] < 0.5, 0.0, (draws[..., 3] - 0.5) * math.pi)
    cos, sin = angle.cos()[..., None], angle.sin()[..., None]
    s = (cos * frame[..., 0, :] + sin * frame[..., 1, :]) * frequency[..., None]
    t = (cos * frame[..., 1, :] - sin * frame[..., 0, :]) * frequency[..., None]
    s0 = draws[..., 4] * 64 - (s * origin).sum(-1)
    t0 = draws[..., 5] * 64 - (t * origin).sum(-1)
    first, second = _colours(draws, is_room)
    columns = [normal, gain[..., None], s, s0[..., None], t, t0[..., None], frequency[..., None]]
    return torch.cat([*columns, first, second, pattern], -1).permute(2, 0, 1).contiguous()


def _geometry(solids: Solids) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Normal, its gain, reference point, two texture axes and characteristic size of every surface."""
    batch, spheres = solids.sphere_radius.shape
    rotation = torch.cat([torch.eye(3).expand(batch, 1, 3, 3), yaw_matrix(solids.box_yaw)], 1)
    axes = rotation.transpose(-1, -2).repeat_interleave(2, 2)  # [B, 1 + K, 6, 3]: x x y y z z
    sign = torch.tensor([-1.0, 1.0] * 3)[:, None] * torch.ones(axes.shape[1], 1, 1)
    sign[0] *= -1  # the room is seen from inside
    centre = torch.cat([torch.zeros(batch, 1, 3), solids.box_centre], 1)[:, :, None].expand_as(axes)
    size = torch.cat([solids.room[:, None], solids.box_half], 1).mean(-1, keepdim=True).expand(axes.shape[:3])
    radius = solids.sphere_radius.clamp(min=1e-3)
    tilted = torch.tensor([[0.8, 0.0, 0.6], [-0.36, 0.8, 0.48]])  # seen from nowhere edge-on in both
    return (
        torch.cat([(axes * sign).flatten(1, 2), -solids.sphere_centre / radius[..., None]], 1),
        torch.cat([torch.zeros(size.flatten(1).shape), 1 / radius], 1),
        torch.cat([centre.flatten(1, 2), solids.sphere_centre], 1),
        torch.cat([_in_plane(axes).flatten(1, 2), tilted.expand(batch, spheres, 2, 3)], 1),
        torch.cat([size.flatten(1), radius], 1),
    )


def _in_plane(axes: Tensor) -> Tensor:
    """The two axes within each face: the next two in cyclic order, ``[..., 6, 2, 3]``."""
    return torch.stack([axes.roll(-2, -2), axes.roll(-4, -2)], -2)


def _colours(draws: Tensor, is_room: Tensor) -> tuple[Tensor, Tensor]:
    """Two tones per surface; the room's six hues are spread around the circle, so that walls differ."""
    spread = torch.arange(draws.shape[1]) / 6
    hue = draws[:, :1, 6] + spread * is_room + draws[..., 7] * torch.where(is_room > 0, 0.1, 1.0)
    saturation = torch.where(is_room > 0, 0.25 + 0.35 * draws[..., 8], 0.4 + 0.5 * draws[..., 8])
    value = 0.65 + 0.3 * draws[..., 9]
    darker = value * (0.25 + 0.35 * draws[..., 10])
    return _rgb(hue, saturation, value), _rgb(hue + 0.3 * (draws[..., 11] - 0.5), saturation, darker)


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV (hue in turns) to RGB in the last dimension."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + hue[..., None] * 6) % 6
    return value[..., None] * (1 - saturation[..., None] * torch.minimum(k, 4 - k).clamp(0, 1))


def shade(hits: Hits, table: Tensor, origin: Tensor, light: Tensor, pixel_angle: Tensor) -> Tensor:
    """Colours of the hits, ``[B, S, 3, P]`` in [0, 1].

    Args:
        hits: what the rays met.
        table: from :func:`surface_table`.
        origin: camera centres ``[B, S, 3]``.
        light: position of the lamp ``[B, 3]``.
        pixel_angle: width of a ray at depth 1, ``[B]`` (1 / focal length in samples).
    """
    batch, surfaces = table.shape[1:]
    index = (hits.surface + torch.arange(batch)[:, None, None] * surfaces).flatten()
    rows = table.flatten(1).index_select(1, index).reshape(-1, *hits.t.shape)
    point = [hits.direction[:, :, i] * hits.t + origin[:, :, i, None] for i in range(3)]
    normal = [rows[i] + rows[3] * point[i] for i in range(3)]
    facing = _dot(normal, hits.direction.unbind(2)).abs_().clamp_(min=0.05)
    distance = _dot(hits.direction.unbind(2), hits.direction.unbind(2)).sqrt_()
    footprint = rows[12] * hits.t * distance / facing * pixel_angle[:, None, None]
    s, t = (_dot(point, rows[k : k + 3].unbind(0)).add_(rows[k + 3]) for k in (4, 8))
    tone = _pattern(s, t, footprint, rows[19:])
    brightness = _diffuse(point, normal, light)
    first, second = rows[13:16], rows[16:19]
    return torch.stack([(b + (a - b) * tone) * brightness for a, b in zip(first, second, strict=True)], 2)


def _dot(a: list[Tensor] | tuple[Tensor, ...], b: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return (a[0] * b[0]).addcmul_(a[1], b[1]).addcmul_(a[2], b[2])


def _diffuse(point: list[Tensor], normal: list[Tensor], light: Tensor) -> Tensor:
    to_light = [light[:, i, None, None] - point[i] for i in range(3)]
    cosine = _dot(to_light, normal) * _dot(to_light, to_light).clamp_(min=1e-2).rsqrt_()
    return cosine.clamp_(min=0).mul_(1 - AMBIENT).add_(AMBIENT)


def _pattern(s: Tensor, t: Tensor, footprint: Tensor, weights: Tensor) -> Tensor:
    """Tone in [0, 1] at texture coordinates in periods; ``footprint`` is periods per ray.

    Edges are as wide as the ray, and contrast fades to nothing at the Nyquist rate of 0.5 periods per ray.
    """
    sharp = footprint.clamp(min=0.03).reciprocal().div_(math.pi)
    fade = (2 - 4 * footprint).clamp_(0, 1)
    sin_s, sin_t = (2 * math.pi * s).sin_(), (2 * math.pi * t).sin_()
    stripes = (sin_s * sharp).clamp_(-1, 1)
    checker = (sin_t * sharp).clamp_(-1, 1).mul_(stripes)
    joint = torch.minimum(sin_s.abs(), sin_t.abs()).mul_(sharp).clamp_(0, 1)
    tiles = joint * (_cell_tone(s, t) + 1) - 1
    noise = _noise(s, t)
    blend = weights[0] * checker + weights[1] * stripes + weights[2] * tiles
    return (blend * 0.75 + noise * (0.25 + 0.75 * weights[3])).mul_(fade * 0.5).add_(0.5)


def _cell_tone(s: Tensor, t: Tensor) -> Tensor:
    """A tone in [-1, 1] for each half-period cell, so that no two neighbourhoods look alike."""
    return ((2 * s).floor_() * 12.9898 + (2 * t).floor_() * 78.233).sin_().mul_(43.7585).frac_()


def _noise(s: Tensor, t: Tensor) -> Tensor:
    """Smooth, aperiodic in practice: two sines warped by two others, in [-1, 1]."""
    warp_s, warp_t = (s * 2.1 + 0.4).sin_().mul_(1.6), (t * 1.7).sin_().mul_(1.6)
    one = (s * 2.9 + t * 1.3 + warp_t).sin_()
    two = (t * 3.7 - s * 1.1 + warp_s).sin_()
    return (one + two).mul_(0.5)
