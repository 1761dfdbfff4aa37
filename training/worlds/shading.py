"""Colours of what rays meet: pictures on surfaces, lamps with shadows, gloss, light from everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from training.worlds.layout import LAMPS, Layout, Light, Looks
from training.worlds.solids import Hits, World, dot, is_free
from training.worlds.textures import Bank

OFF_SURFACE = 2e-3  # metres, where rays towards lamps begin
GLOSSINESS = 24
STEEPEST = 0.08  # cosine at which a surface's footprint grows no more


def shade(layout: Layout, bank: Bank, origin: Tensor, direction: Tensor, hits: Hits, pixel_angle: float) -> Tensor:
    """Linear light ``[3, R]`` of the hits of rays.

    Args:
        layout: the world.
        bank: its pictures.
        origin: ``[3, R]``.
        direction: ``[3, R]``.
        hits: from `training.worlds.solids.cast`.
        pixel_angle: width of a ray at distance 1.
    """
    point = origin + hits.t * direction
    length = dot(direction, direction).sqrt()
    view = direction / length
    cosine = dot(view, hits.normal).abs().clamp(min=STEEPEST)
    width = hits.t * length * pixel_angle * cosine.rsqrt()
    albedo = _albedo(layout.world, layout.looks, bank, point, hits, width)
    received = _ambient(layout.light, hits.normal)
    mirrored = torch.zeros_like(received)
    for lamp in range(LAMPS):
        to_lamp = layout.light.place[lamp, :, None] - point
        distance = dot(to_lamp, to_lamp).sqrt().clamp(min=0.05)
        to_lamp = to_lamp / distance
        facing = dot(to_lamp, hits.normal).clamp(min=0)
        strength = 1 / (1 + (distance / layout.light.reach[lamp]).square())
        if layout.light.shadows and lamp == 0:
            strength = strength * is_free(layout.world, point + OFF_SURFACE * hits.normal, to_lamp * distance, 0.999)
        light = layout.light.colour[lamp, :, None] * strength
        received = received + 2 * light * facing
        halfway = to_lamp - view
        aligned = dot(halfway, hits.normal) / dot(halfway, halfway).clamp(min=1e-6).sqrt()
        mirrored = mirrored + light * aligned.clamp(min=0) ** GLOSSINESS
    gloss, glow = layout.looks.gloss[hits.surface], layout.looks.glow[hits.surface]
    return albedo * (received * (1 - gloss) + glow) + 2 * gloss * mirrored


def _ambient(light: Light, normal: Tensor) -> Tensor:
    up = 0.5 - 0.5 * normal[1]
    return light.below[:, None] + (light.above - light.below)[:, None] * up


def _albedo(world: World, looks: Looks, bank: Bank, point: Tensor, hits: Hits, width: Tensor) -> Tensor:
    """Pictures are laid on along the axis of the part's box that the surface faces most, or along the wall."""
    part = (hits.surface - world.walls).clamp(min=0)
    on_part = hits.surface >= world.walls
    place = point.clone()
    if len(world.centre):
        local = torch.einsum("nij,jn->in", world.axes[part], point - world.centre[part].T)
        place = torch.where(on_part, local, place)
    facing = hits.local_normal.abs()
    axis = facing.argmax(0)
    # An upright wall is turned any way in the world: along it, by its own horizontal.
    n = hits.normal
    along = n[2] * point[0] - n[0] * point[2]
    u = torch.where(axis == 0, place[2], place[0])
    v = torch.where(axis == 1, place[2], place[1])
    upright = ~on_part & (n[1].abs() < 0.7)
    u = torch.where(upright, along, u)
    v = torch.where(upright, point[1], v)
    frequency, turn, shift = looks.frequency[hits.surface], looks.turn[hits.surface].T, looks.shift[hits.surface].T
    u, v = u * frequency, v * frequency
    colours = bank.colours(
        looks.picture[hits.surface],
        turn[0] * u - turn[1] * v + shift[0],
        turn[1] * u + turn[0] * v + shift[1],
        width * frequency,
    )
    return (colours * looks.tint[hits.surface].T).clamp(0, 1).square()
