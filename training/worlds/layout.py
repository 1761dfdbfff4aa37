"""A random world: walls, things, what they look like, lamps, and the path of the cameras in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.worlds.furniture import THINGS, Part, placed
from training.worlds.motion import Path, move
from training.worlds.solids import World, distance_to_boxes, keep
from vggtkit.core.arrays import Array

MOST_PARTS = 48
NEAREST_PART = 0.22  # of any camera, in metres
LAMPS = 2
PLAIN = 0.4  # of surfaces, beside those that are so by chance


@dataclass(frozen=True)
class Looks:
    """What surfaces look like, a row for each: walls first, then parts.

    Attributes:
        picture: of the bank, ``[K]``.
        frequency: pictures per metre, ``[K]``.
        turn: cosine and sine of the picture's turn, ``[K, 2]``.
        shift: of the picture, ``[K, 2]``.
        tint: factor of its colours, ``[K, 3]``.
        gloss: share of light that is mirrored, ``[K]``.
        glow: light of its own, ``[K]``.
    """

    picture: Tensor
    frequency: Tensor
    turn: Tensor
    shift: Tensor
    tint: Tensor
    gloss: Tensor
    glow: Tensor


@dataclass(frozen=True)
class Light:
    """Lamps and what comes from everywhere.

    Attributes:
        place: ``[LAMPS, 3]``.
        colour: ``[LAMPS, 3]``, at `reach`.
        reach: distance ``[LAMPS]`` at which a lamp is half as bright as near to it.
        above: ambient light from above, ``[3]``.
        below: and from below, ``[3]``.
        shadows: whether lamps cast them.
    """

    place: Tensor
    colour: Tensor
    reach: Tensor
    above: Tensor
    below: Tensor
    shadows: bool


@dataclass(frozen=True)
class Layout:
    """All of a world but the pictures of its surfaces."""

    world: World
    looks: Looks
    light: Light
    path: Path


def lay_out(rng: np.random.Generator, views: int, pictures: int, plain: int) -> Layout:
    """A world for so many views, whose surfaces take so many pictures, the first of them plain.

    Indoors are 3 to 10 metres wide, a third of worlds is wider and higher. A camera starts at the height of a hand or
    an eye and looks at a thing or across the room. Parts that come too near to any camera are left out.
    """
    wide = rng.random() < 0.3
    normal, offset, height, reach = _walls(rng, wide)
    start = np.array([*(rng.uniform(-0.7, 0.7, 2) * reach)])
    start = np.array([start[0], height - rng.uniform(0.5, min(2.0, height * 1.6)), start[1]])
    towards = rng.uniform(0, 2 * np.pi)
    away = rng.uniform(0.8, 3.5) if rng.random() < 0.7 else rng.uniform(2, 8)
    target = start + away * np.array([np.sin(towards), 0, np.cos(towards)])
    target = _inside(target, normal, offset, 0.3)
    target[1] = height - rng.uniform(0.0, 1.4)
    start = _inside(start, normal, offset, 0.4)
    if np.linalg.norm((target - start)[[0, 2]]) < 0.8:  # in a corner: look across
        target = _inside(start * [-0.5, 1, -0.5] + [1e-3, 0.3, 0], normal, offset, 0.3)
    parts, owners = _things(rng, target, height, reach, (normal, offset))
    path = move(rng, views, start, target, (normal, offset))
    world = _world(rng, normal, offset, parts)
    near = distance_to_boxes(world, torch.from_numpy(path.centre).float()).amin(1) > NEAREST_PART
    chosen = near.nonzero().squeeze(1)[:MOST_PARTS]
    wanted = torch.zeros(len(parts), dtype=torch.bool)
    wanted[chosen] = True
    looks = _looks(
        rng, len(offset), [owners[index] for index in chosen.tolist()], (pictures, max(1, plain)), world.half[chosen]
    )
    return Layout(keep(world, wanted), looks, _light(rng, height, reach), path)


def _walls(rng: np.random.Generator, wide: bool) -> tuple[Array, Array, float, float]:
    """Outward normals ``[M, 3]``, offsets ``[M]``, half the height, and how far the nearest wall is."""
    height = rng.uniform(2.0, 6.0) if wide else rng.uniform(1.1, 1.9)
    count = int(rng.integers(3, 7)) if rng.random() < 0.5 else 4
    corners = rng.normal(0, 0.25, count) if rng.random() < 0.4 else np.zeros(count)
    angle = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count + corners
    lean = rng.normal(0, 0.15, count) if rng.random() < 0.25 else np.zeros(count)
    normal = np.stack([np.cos(angle), lean, np.sin(angle)], -1)
    floor = np.array([rng.normal(0, 0.03), 1, rng.normal(0, 0.03)]) if wide else np.array([0.0, 1.0, 0.0])
    ceiling = np.array([rng.normal(0, 0.3), -1, rng.normal(0, 0.3)]) if rng.random() < 0.3 else np.array([0.0, -1, 0])
    normal = np.concatenate([normal, [floor, ceiling]])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    apart = rng.uniform(4, 12, count) if wide else rng.uniform(1.5, 5.0, count)
    return normal, np.concatenate([apart, [height, height]]), float(height), float(apart.min())


def _inside(point: Array, normal: Array, offset: Array, clearance: float) -> Array:
    """A point moved inwards from each wall that it is too near to, one after the other."""
    for axis, limit in zip(normal, offset, strict=True):
        point = point - max(0.0, float(axis @ point) - limit + clearance) * axis
    return point


def _things(
    rng: np.random.Generator, target: Array, height: float, reach: float, walls: tuple[Array, Array]
) -> tuple[list[Part], list[tuple[int, int]]]:
    """Parts, and for each its thing and its look in there; the first things stand near the target."""
    parts: list[Part] = []
    owners: list[tuple[int, int]] = []
    scale = float(np.exp(rng.normal(0, 0.2)))
    for number in range(int(rng.integers(3, 11))):
        if rng.random() < 0.2:
            own = _on_wall(rng, height, walls)
        else:
            spread = 0.6 if number < 2 else min(1.5 + 0.4 * reach, 4.0)
            place = _inside(target + rng.normal(0, spread, 3), *walls, 0.35)
            place[1] = height
            own = placed(THINGS[rng.integers(len(THINGS))](rng), place, rng.uniform(0, 2 * np.pi), scale)
        parts += own
        owners += [(number, part.look) for part in own]
    return parts, owners


def _on_wall(rng: np.random.Generator, height: float, walls: tuple[Array, Array]) -> list[Part]:
    """A picture, a door, a window or a cupboard on an upright wall."""
    normal, offset = walls
    number = int(rng.integers(len(normal) - 2))
    out = normal[number]
    along = np.array([out[2], 0, -out[0]])
    along /= np.linalg.norm(along)
    half = [rng.uniform(0.15, 0.8), rng.uniform(0.15, 1.0), rng.choice([0.012, 0.03, 0.15])]
    place = offset[number] * out + along * rng.normal(0, 1.5)
    place[1] = rng.uniform(-0.3, 0.8) * max(height - half[1], 0)
    return [Part(place, np.array(half), np.stack([along, np.cross(out, along), out]), look=0)]


def _world(rng: np.random.Generator, normal: Array, offset: Array, parts: list[Part]) -> World:
    none = np.zeros((3, 3))
    smooth = np.array([part.weights is not None for part in parts])
    waves = rng.normal(0, 1, (len(parts), 3, 3)) * np.array([part.waves for part in parts])[:, None, None] * 3
    arrays = (
        normal,
        offset,
        np.stack([part.centre for part in parts]),
        np.stack([part.axes for part in parts]),
        np.stack([part.half for part in parts]),
        smooth,
        np.stack([none if part.weights is None else part.weights for part in parts]),
        waves,
        rng.uniform(0, 2 * np.pi, (len(parts), 3)),
        np.array([part.ripple / 3 for part in parts]),
    )
    return World(*(torch.from_numpy(a if a.dtype == bool else a.astype(np.float32)) for a in arrays))


def _looks(
    rng: np.random.Generator, walls: int, owners: list[tuple[int, int]], pictures: tuple[int, int], half: Tensor
) -> Looks:
    """Walls by themselves (uprights often alike), parts of one look alike."""
    upright = rng.random() < 0.6
    keys: list[tuple[int, int]] = [(-1, 0 if upright and wall < walls - 2 else wall) for wall in range(walls)]
    keys += owners
    size = np.concatenate([np.full(walls, 2.0), half.amax(1).numpy()])
    rows: dict[tuple[int, int], Array] = {}
    for key in keys:
        if key not in rows:
            angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
            tint = np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.08, 3))
            gloss = rng.uniform(0, 0.5) if rng.random() < 0.3 else 0.0
            glow = rng.uniform(0.5, 2.5) if rng.random() < 0.04 else 0.0
            scale = np.exp(rng.uniform(np.log(0.3), np.log(3)))
            picture, shift = rng.integers(pictures[int(rng.random() < PLAIN)]), rng.random(2)
            rows[key] = np.array([picture, scale, np.cos(angle), np.sin(angle), *shift, *tint, gloss, glow])
    table = np.stack([rows[key] for key in keys])
    # A picture is as wide as the surface, times a factor, and at least some centimetres.
    frequency = 1 / np.maximum(table[:, 1] * 1.5 * np.minimum(size, 1.5), 0.05)
    of = torch.from_numpy(table.astype(np.float32))
    return Looks(
        of[:, 0].long(), torch.from_numpy(frequency).float(), of[:, 2:4], of[:, 4:6], of[:, 6:9], of[:, 9], of[:, 10]
    )


def _light(rng: np.random.Generator, height: float, reach: float) -> Light:
    place = rng.uniform(-0.8, 0.8, (LAMPS, 3)) * [reach, 1, reach]
    place[:, 1] = -height * rng.uniform(0.2, 0.95, LAMPS)
    colour = np.exp(rng.normal(0, 0.12, (LAMPS, 3))) * rng.uniform(0.1, 1.0, (LAMPS, 1))
    ambient = np.exp(rng.normal(0, 0.1, 3)) * rng.uniform(0.15, 0.9)
    numbers = (place, colour, rng.uniform(1.5, 8.0, LAMPS), ambient, ambient * rng.uniform(0.3, 0.9))
    tensors = [torch.from_numpy(np.asarray(number)).float() for number in numbers]
    return Light(tensors[0], tensors[1], tensors[2], tensors[3], tensors[4], bool(rng.random() < 0.6))
