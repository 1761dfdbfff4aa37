"""Parts of things: tables, chairs, shelves, sofas, plants, heaps of lumps; each a few boxes and smooth solids.

Things stand at the origin, x right, z ahead, y down, so that what stands has negative y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from vggtkit.core.arrays import Array

THINNEST = 0.012  # half sides, in metres


@dataclass(frozen=True)
class Part:
    """A box, or a smooth solid within one; as a row of `training.worlds.solids.World`.

    Attributes:
        centre: ``[3]``.
        half: ``[3]``.
        axes: ``[3, 3]``, rows are the axes of the box.
        weights: ``[3, 3]`` by axis and power; None of a box.
        ripple: amplitude.
        waves: most periods of the ripple over the part.
        look: parts of a thing with the same number look the same.
    """

    centre: Array
    half: Array
    axes: Array
    weights: Array | None = None
    ripple: float = 0.0
    waves: float = 1.0
    look: int = 0


Thing = Callable[[np.random.Generator], list[Part]]


def box(centre: list[float], half: list[float], look: int = 0) -> Part:
    """A box along the axes of its thing."""
    return Part(np.array(centre), np.maximum(half, THINNEST), np.eye(3), look=look)


def profile(rng: np.random.Generator) -> Array:
    """Weights of a smooth solid: round, boxy, a cylinder, or between."""
    if rng.random() < 0.3:
        weights = np.zeros((3, 3))
        weights[:, 0] = 1
        weights[rng.integers(3)] = [0, 0, 1]
        return weights
    return rng.dirichlet([0.5, 0.5, 0.5], size=3) if rng.random() < 0.5 else np.tile(rng.dirichlet([0.6] * 3), (3, 1))


def lump(
    rng: np.random.Generator, centre: list[float], half: list[float], look: int = 0, *, turned: bool = True
) -> Part:
    """A smooth solid, half of them with a rough surface, as scans have it."""
    axes = Rotation.random(random_state=rng).as_matrix() if turned else np.eye(3)
    ripple = float(rng.uniform(0.03, 0.35)) if rng.random() < 0.5 else 0.0
    return Part(np.array(centre), np.maximum(half, THINNEST), axes, profile(rng), ripple, rng.uniform(0.5, 2.5), look)


def rounded(centre: list[float], half: list[float], look: int = 0) -> Part:
    """A box with round edges."""
    weights = np.tile([0.0, 0.3, 0.7], (3, 1))
    return Part(np.array(centre), np.array(half), np.eye(3), weights, look=look)


def table(rng: np.random.Generator) -> list[Part]:
    """A board on four legs, often with things on it."""
    x, z, height = rng.uniform(0.25, 1.0), rng.uniform(0.25, 0.6), rng.uniform(0.35, 0.85)
    leg, thick = rng.uniform(0.015, 0.05), rng.uniform(0.015, 0.05)
    parts = [box([0, thick - height, 0], [x, thick, z])]
    for side in (-1, 1):
        for end in (-1, 1):
            place = [side * (x - 2 * leg), -height / 2, end * (z - 2 * leg)]
            parts.append(box(place, [leg, height / 2, leg], 1))
    for number in range(rng.integers(0, 5)):
        size = rng.uniform(0.04, 0.16)
        place = [rng.uniform(-0.8, 0.8) * x, -height - 0.8 * size, rng.uniform(-0.8, 0.8) * z]
        parts += [_clutter(rng, place, size, 2 + number)]
    return parts


def _clutter(rng: np.random.Generator, centre: list[float], size: float, look: int) -> Part:
    half = (size * np.exp(rng.normal(0, 0.35, 3))).tolist()
    if rng.random() < 0.4:
        angle = rng.uniform(0, np.pi)
        return replace(box(centre, half, look), axes=Rotation.from_euler("y", angle).as_matrix())
    return lump(rng, centre, half, look)


def chair(rng: np.random.Generator) -> list[Part]:
    """A seat, a back and four legs."""
    half, seat, leg = rng.uniform(0.18, 0.28), rng.uniform(0.38, 0.5), rng.uniform(0.012, 0.03)
    back = rng.uniform(0.15, 0.3)
    parts = [box([0, -seat, 0], [half, 0.025, half]), box([0, -seat - back - 0.1, half], [half, back, 0.02])]
    for side in (-1, 1):
        parts.append(box([side * half, -seat / 2, -half], [leg, seat / 2, leg], 1))
        parts.append(box([side * half, -(seat + back) / 2, half], [leg, (seat + back) / 2, leg], 1))
    return parts


def shelf(rng: np.random.Generator) -> list[Part]:
    """Boards between two sides, with rows of things on some."""
    x, z, height = rng.uniform(0.3, 0.9), rng.uniform(0.12, 0.25), rng.uniform(0.7, 2.0)
    boards = int(rng.integers(2, 5))
    parts = [box([side * x, -height / 2, 0], [0.02, height / 2, z]) for side in (-1, 1)]
    parts.append(box([0, -height / 2, z], [x, height / 2, 0.012], 1))
    for number in range(boards + 1):
        level = -height * number / boards
        parts.append(box([0, level, 0], [x, 0.018, z]))
        if number < boards and rng.random() < 0.7:
            tall = rng.uniform(0.3, 0.9) * height / boards / 2
            wide = rng.uniform(0.2, 0.9) * x
            parts.append(box([rng.uniform(-1, 1) * (x - wide), level - tall, 0], [wide, tall, 0.7 * z], 2 + number))
    return parts


def sofa(rng: np.random.Generator) -> list[Part]:
    """Cushions."""
    x, z, seat = rng.uniform(0.4, 1.1), rng.uniform(0.35, 0.5), rng.uniform(0.18, 0.25)
    parts = [rounded([0, -seat, 0], [x, seat, z]), rounded([0, -2.6 * seat, z], [x, 1.6 * seat, 0.14])]
    return parts + [rounded([side * x, -1.5 * seat, 0], [0.13, 1.5 * seat, z]) for side in (-1, 1)]


def cabinet(rng: np.random.Generator) -> list[Part]:
    """A box on the floor, with or without things on it."""
    half = [rng.uniform(0.2, 1.0), rng.uniform(0.2, 1.0), rng.uniform(0.2, 0.4)]
    parts = [box([0, -half[1], 0], half)]
    if half[1] < 0.7:
        size = rng.uniform(0.06, 0.2)
        parts.append(_clutter(rng, [rng.uniform(-0.5, 0.5) * half[0], -2 * half[1] - 0.8 * size, 0], size, 1))
    return parts


def plant(rng: np.random.Generator) -> list[Part]:
    """Leaves above a pot."""
    pot, height, spread = rng.uniform(0.1, 0.22), rng.uniform(0.3, 1.6), rng.uniform(0.15, 0.45)
    round_pot = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0]], dtype=np.float64)
    parts = [Part(np.array([0, -pot, 0]), np.array([pot, pot, pot]), np.eye(3), round_pot)]
    for _ in range(rng.integers(6, 14)):
        place = rng.normal(0, spread / 2, 3) - np.array([0, 2 * pot + height * rng.random(), 0])
        half = [rng.uniform(0.08, 0.3), rng.uniform(0.02, 0.08), THINNEST]
        parts.append(replace(lump(rng, place.tolist(), half, 1), ripple=0.0))
    return parts


def heap(rng: np.random.Generator) -> list[Part]:
    """Lumps that grow into one another, as of a statue, a person or a heap of bags."""
    size = rng.uniform(0.15, 0.6)
    parts, place = [], np.zeros(3)
    for _ in range(rng.integers(2, 7)):
        half = size * np.exp(rng.normal(-0.3, 0.4, 3))
        parts.append(lump(rng, (place - [0, 0.7 * half.mean(), 0]).tolist(), half.tolist(), int(rng.integers(2))))
        place = place + rng.normal(0, 0.5 * size, 3) * [1, 0.5, 1] - [0, 0.6 * size, 0]
    return parts


def pillar(rng: np.random.Generator) -> list[Part]:
    """A tree, a pole or a column, taller than any room."""
    radius = rng.uniform(0.04, 0.3)
    half = [radius, 4.0, radius]
    return [box([0, -4, 0], half)] if rng.random() < 0.4 else [lump(rng, [0, -4, 0], half, turned=False)]


def single(rng: np.random.Generator) -> list[Part]:
    """One lump or box of any size on the floor or above it."""
    size = float(np.exp(rng.uniform(np.log(0.1), np.log(0.8))))
    part = _clutter(rng, [0, -size * rng.uniform(0.6, 1.5), 0], size, 0)
    if rng.random() < 0.2:
        part = replace(part, axes=Rotation.random(random_state=rng).as_matrix())
    return [part]


THINGS: tuple[Thing, ...] = (table, chair, shelf, sofa, cabinet, plant, heap, pillar, single, single)
"""All kinds, equally likely."""


def placed(parts: list[Part], place: Array, yaw: float, scale: float) -> list[Part]:
    """A thing, turned about y, scaled and moved to a place on the floor."""
    turn = Rotation.from_euler("y", yaw).as_matrix()
    return [
        replace(
            part,
            centre=place + scale * turn @ part.centre,
            half=scale * part.half,
            axes=part.axes @ turn.T,
        )
        for part in parts
    ]
