"""How cameras move: around something, walking, sideways, turning on the spot, or anywhere near; and looking about.

Axes are OpenCV's: x right, y down, z ahead. All lengths are in metres, angles in degrees unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vggtkit.core.arrays import Array

STEPS = (0.03, 0.35)  # between neighbouring views, in distances to what is looked at
CLEARANCE = 0.25  # to the walls
ROLL = 3.0
PANNED = 0.5  # of paths, whichever they are: who records looks about, and pictures of recordings are seconds apart
PAN = (4.0, 30.0)  # degrees from view to view, typically


@dataclass(frozen=True)
class Path:
    """Camera centres ``[S, 3]`` and world-to-camera rotations ``[S, 3, 3]``."""

    centre: Array
    rotation: Array


def looking(forward: Array, roll: Array) -> Array:
    """World-to-camera rotations ``[S, 3, 3]`` that look along ``[S, 3]``, rolled by angles ``[S]``.

    >>> looking(np.array([[0.0, 0, 2]]), np.zeros(1))[0].tolist() == np.eye(3).tolist()
    True
    """
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    upright = np.stack([right, np.cross(forward, right), forward], -2)
    rolled: Array = Rotation.from_euler("z", roll[:, None], degrees=True).as_matrix() @ upright
    return rolled


def _turned(direction: Array, yaw: Array, pitch: Array) -> Array:
    """A direction ``[3]``, or one of each view, turned to the right and downwards by angles ``[S]``: ``[S, 3]``."""
    x, y, z = np.moveaxis(direction, -1, 0)
    heading = np.arctan2(x, z) + np.radians(yaw)
    slope = np.arcsin(np.clip(y / np.linalg.norm(direction, axis=-1), -1, 1)) + np.radians(pitch)
    slope = slope.clip(-1.3, 1.3)
    return np.stack([np.cos(slope) * np.sin(heading), np.sin(slope), np.cos(slope) * np.cos(heading)], -1)


def _wander(rng: np.random.Generator, views: int, each: float) -> Array:
    """Angles ``[S]`` that begin anywhere near 0 and change by some ``each`` from view to view."""
    return rng.normal(0, 1.5 * each) + np.cumsum(rng.normal(0, each, views))


def walk(rng: np.random.Generator, views: int, start: Array, target: Array, step: float) -> tuple[Array, Array]:
    """Ahead, or back, while the head turns a little."""
    ahead = target - start
    heading = _turned(ahead * [1, 0, 1], np.array([rng.normal(0, 20)]), np.zeros(1))[0]
    bends = np.cumsum(rng.normal(0, 6, views))
    moves = _turned(heading, bends, np.zeros(views)) * (step * rng.uniform(0.6, 1.4, (views, 1)))
    bob = rng.normal(0, 0.05 * step, (views, 3))
    path = start + np.cumsum(moves, 0) - moves[0] + bob
    each = rng.uniform(1, 10)
    return path, _turned(
        heading, bends + _wander(rng, views, each), rng.uniform(-10, 35) + _wander(rng, views, each / 2)
    )


def sideways(rng: np.random.Generator, views: int, start: Array, target: Array, step: float) -> tuple[Array, Array]:
    """Across the line of sight, which stays nearly the same."""
    ahead = target - start
    across = _turned(ahead, np.array([rng.choice([-90.0, 90.0]) + rng.normal(0, 15)]), np.zeros(1))[0]
    across = across * [1, 0, 1] + [0, rng.normal(0, 0.3), 0]
    path = start + step * np.outer(np.arange(views), across) + rng.normal(0, 0.1 * step, (views, 3))
    return path, _turned(ahead, _wander(rng, views, 2), _wander(rng, views, 2))


def turn(rng: np.random.Generator, views: int, start: Array, target: Array, step: float) -> tuple[Array, Array]:
    """Nearly on the spot."""
    each = rng.choice([-1, 1]) * rng.uniform(3, 18)
    yaw = each * np.arange(views) * rng.uniform(0.7, 1.3, views)
    path = start + rng.normal(0, max(0.5 * step, 0.04 * float(np.linalg.norm(target - start))), (views, 3)) * [
        1,
        0.5,
        1,
    ]
    return path, _turned(target - start, yaw, _wander(rng, views, 3))


def around(rng: np.random.Generator, views: int, start: Array, target: Array, step: float) -> tuple[Array, Array]:
    """About what is looked at."""
    arm, size = start - target, float(np.linalg.norm(target - start))
    each = np.degrees(step / size) * rng.choice([-1, 1])
    yaw = each * np.arange(views) * rng.uniform(0.7, 1.3, views)
    arms = _turned(arm, yaw, rng.normal(0, abs(each) / 3, views)) * size * np.exp(rng.normal(0, 0.05, (views, 1)))
    return target + arms, target + rng.normal(0, 0.08 * size, (views, 3)) - (target + arms)


def anywhere(rng: np.random.Generator, views: int, start: Array, target: Array, step: float) -> tuple[Array, Array]:
    """In a ball, looking the same way roughly."""
    offsets = rng.normal(0, 1, (views, 3)) * [1, 0.5, 1] * step
    path = start + offsets - offsets[0]
    return path, target + rng.normal(0, 0.12 * float(np.linalg.norm(target - start)), (views, 3)) - path


Move = Callable[[np.random.Generator, int, Array, Array, float], tuple[Array, Array]]
MOVES: tuple[tuple[Move, float], ...] = (
    (around, 0.25),
    (walk, 0.3),
    (sideways, 0.12),
    (turn, 0.08),
    (anywhere, 0.25),
)


def move(rng: np.random.Generator, views: int, start: Array, target: Array, walls: tuple[Array, Array]) -> Path:
    """A path of one kind by lot, forwards, backwards or in no order.

    Args:
        rng: source of chance.
        views: S.
        start: where the first camera is, ``[3]``.
        target: what it looks at, more or less, ``[3]``.
        walls: outward normals ``[M, 3]`` and offsets ``[M]``; centres stay `CLEARANCE` away.
    """
    kinds = [kind for kind, _ in MOVES]
    kind = kinds[rng.choice(len(kinds), p=[share for _, share in MOVES])]
    step = float(np.exp(rng.uniform(*np.log(STEPS)))) * float(np.linalg.norm(target - start))
    centre, forward = kind(rng, views, start, target, step)
    centre = _within(centre, start, walls)
    if rng.random() < PANNED:
        each = float(np.exp(rng.uniform(*np.log(PAN))))
        forward = _turned(forward, _wander(rng, views, each), _wander(rng, views, each / 3))
    rotation = looking(forward, rng.normal(0, ROLL) + rng.normal(0, ROLL / 2, views))
    order = rng.permutation(views) if rng.random() < 0.3 else np.arange(views)[:: rng.choice([-1, 1])]
    return Path(centre[order], rotation[order])


def _within(points: Array, start: Array, walls: tuple[Array, Array]) -> Array:
    """Points ``[S, 3]`` pulled back towards the start, so far as they are too near to a wall."""
    normal, offset = walls
    room = (offset - CLEARANCE - normal @ start).clip(min=0)
    outwards = (points - start) @ normal.T
    share = np.where(outwards > room, room / np.maximum(outwards, 1e-9), 1.0).min(-1)
    pulled: Array = start + share[:, None] * (points - start)
    return pulled
