"""What a world is made of, and what rays meet: walls around a convex space, boxes and smooth solids in it.

One world at a time; components stand in front, as ``[3, R]``, because that is what makes it fast on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MISS = 1e9
POWERS = (2, 4, 8)
SAMPLES = 10  # along the part of a ray within the box around a smooth solid
REFINEMENTS = 4
PARALLEL = 1e-6
FLAT = 0.999  # of half a box: as near to its side as this, a point is on it


@dataclass(frozen=True)
class World:
    """Geometry: M walls and N parts, each in a box of its own.

    A smooth part is where ``sum of weight * |q|^power over axes and powers + ripple < 1`` within its box, q being the
    place in half sides of the box: an ellipsoid (power 2), a rounded box (power 8), a cylinder (both), and, by ripples,
    lumps. A part that is a box has no weights.

    Attributes:
        wall_normal: ``[M, 3]`` outwards.
        wall_offset: ``[M]``; inside is ``normal @ p < offset``.
        centre: ``[N, 3]``.
        axes: ``[N, 3, 3]``, rows are the axes of the box in the world.
        half: half sides ``[N, 3]``.
        smooth: ``[N]`` bool.
        weights: ``[N, 3, 3]`` by axis and power of `POWERS`.
        waves: ``[N, 3, 3]``, wave vectors of three ripples in half sides.
        phases: ``[N, 3]``.
        ripple: amplitude ``[N]``.
    """

    wall_normal: Tensor
    wall_offset: Tensor
    centre: Tensor
    axes: Tensor
    half: Tensor
    smooth: Tensor
    weights: Tensor
    waves: Tensor
    phases: Tensor
    ripple: Tensor

    @property
    def walls(self) -> int:
        """How many surfaces come before the parts."""
        return len(self.wall_offset)

    @property
    def to_box(self) -> Tensor:
        """``[N, 3, 3]``, from offsets in the world to half sides of each box."""
        return self.axes / self.half[:, :, None]


@dataclass(frozen=True)
class Hits:
    """First hits of rays.

    Attributes:
        t: parameters ``[R]``.
        surface: ``[R]``: a wall, or the number of walls plus that of a part.
        normal: ``[3, R]``, of length 1, towards where the ray comes from.
        local_normal: ``[3, R]`` in the axes of the part's box; as ``normal`` of walls.
    """

    t: Tensor
    surface: Tensor
    normal: Tensor
    local_normal: Tensor


def cast(world: World, origin: Tensor, direction: Tensor) -> Hits:
    """First surface that each ray ``origin + t * direction`` meets, t > 0.

    Args:
        world: what may be hit.
        origin: ``[3, R]``, inside of the walls and outside of every part.
        direction: ``[3, R]``, of any length but 0.

    >>> box = torch.zeros(1, 3), torch.eye(3)[None], torch.full((1, 3), 0.5), torch.tensor([False])
    >>> walls = torch.cat([torch.eye(3), -torch.eye(3)]), torch.full((6,), 2.0)
    >>> world = World(*walls, *box, *torch.zeros(2, 1, 3, 3), torch.zeros(1, 3), torch.zeros(1))
    >>> origin = torch.tensor([[0.0, 1.0], [0.0, 0.0], [-1.5, -1.5]])
    >>> cast(world, origin, torch.tensor([[0.0], [0.0], [1.0]]).expand(3, 2)).t
    tensor([1.0000, 3.5000])
    """
    t, surface = _leave(world, origin, direction)
    part, ray = _candidates(world, origin, direction, t)
    start, slope = _in_box(world, part, origin[:, ray], direction[:, ray])
    entry = _enter(world, part, start, slope)
    best = t.scatter_reduce(0, ray, entry, "amin")
    first = (entry == best[ray]) & (entry < t[ray])
    part, ray, start, slope = part[first], ray[first], start[:, first], slope[:, first]
    surface[ray] = part + world.walls
    normal = -world.wall_normal.T[:, surface.clamp(max=world.walls - 1)]
    local = normal.clone()
    gradient = _gradient(world, part, start + best[ray] * slope) / world.half[part].T
    local[:, ray] = gradient / dot(gradient, gradient).sqrt()
    normal[:, ray] = torch.einsum("nij,in->jn", world.axes[part], local[:, ray])
    return Hits(best, surface, normal, local)


def is_free(world: World, origin: Tensor, direction: Tensor, reach: float) -> Tensor:
    """Whether nothing is met before ``t = reach``, ``[R]`` bool; arguments as those of `cast`."""
    t, _ = _leave(world, origin, direction)
    part, ray = _candidates(world, origin, direction, t.clamp(max=reach))
    start, slope = _in_box(world, part, origin[:, ray], direction[:, ray])
    free: Tensor = t.scatter_reduce(0, ray, _enter(world, part, start, slope), "amin") >= reach
    return free


def distance_to_boxes(world: World, points: Tensor) -> Tensor:
    """How far points ``[K, 3]`` are from the box of each part, 0 within: ``[N, K]``."""
    local = torch.einsum("nij,nkj->nki", world.axes, points[None] - world.centre[:, None])
    distance: Tensor = (local.abs() - world.half[:, None]).clamp(min=0).norm(dim=-1)
    return distance


def keep(world: World, wanted: Tensor) -> World:
    """The world with the parts of which ``wanted`` (``[N]`` bool) is true."""
    names = ("centre", "axes", "half", "smooth", "weights", "waves", "phases", "ripple")
    return World(world.wall_normal, world.wall_offset, *(getattr(world, name)[wanted] for name in names))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Of vectors ``[3, ...]``; faster than a sum over three.

    >>> dot(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 0, 2]))
    tensor(7.)
    """
    return (a[0] * b[0]).addcmul_(a[1], b[1]).addcmul_(a[2], b[2])


def _leave(world: World, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    facing = world.wall_normal @ direction
    gap = world.wall_offset[:, None] - world.wall_normal @ origin
    t, wall = torch.where(facing > PARALLEL, gap / facing, MISS).min(0)
    return t, wall


def _candidates(world: World, origin: Tensor, direction: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Parts and rays ``[K]`` each, of pairs where the ray meets the sphere around the part's box before the limit."""
    centre, radius = world.centre, world.half.norm(dim=-1, keepdim=True)
    squared = dot(direction, direction)
    along = (centre @ direction).sub_(dot(origin, direction))
    apart = (centre @ origin).mul_(-2).add_(dot(origin, origin)).add_(centre.square().sum(-1, keepdim=True))
    apart.sub_(radius.square())
    meets = (apart * squared < along.square()) & ((along > 0) | (apart < 0))
    meets &= along - radius * squared.sqrt() < limit * squared
    part, ray = meets.nonzero().unbind(1)
    return part, ray


def _in_box(world: World, part: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Origins and directions ``[3, K]`` of rays in half sides of the box of their part."""
    turn = world.to_box.permute(2, 1, 0)[:, :, part]
    apart = origin - world.centre.T[:, part]
    return dot(turn, apart[:, None]), dot(turn, direction[:, None])


def _enter(world: World, part: Tensor, start: Tensor, slope: Tensor) -> Tensor:
    """Where rays enter their parts, `MISS` where they do not."""
    inverse = torch.where(slope.abs() > PARALLEL, slope, PARALLEL).reciprocal()
    middle, reach = -start * inverse, inverse.abs()
    near, far = (middle - reach).amax(0), (middle + reach).amin(0)
    t = torch.where((near < far) & (near > 0), near, MISS)
    soft = (world.smooth[part] & (near < far) & (far > 0)).nonzero().squeeze(1)
    t[soft] = _enter_smooth(world, part[soft], start[:, soft], slope[:, soft], near[soft].clamp(min=0), far[soft])
    return t


def _enter_smooth(world: World, part: Tensor, start: Tensor, slope: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """The first of some samples within the solid, then false position between it and the one before."""
    level = _Level(world, part, start, slope)
    t = near + (far - near) * torch.linspace(0, 1, SAMPLES)[:, None]
    values = level(t)
    index = (values < 0).to(torch.uint8).argmax(0)
    inside = values.gather(0, index[None])[0] < 0
    before = (index - 1).clamp(min=0)[None]
    low, high = t.gather(0, before)[0], t.gather(0, index[None])[0]
    above, below = values.gather(0, before)[0], values.gather(0, index[None])[0]
    for step in range(REFINEMENTS):
        share = 0.5 if step % 2 else (above / (above - below).clamp(min=PARALLEL)).clamp(0.02, 0.98)
        middle = low + share * (high - low)
        value = level(middle[None])[0]
        outside = value > 0
        low, above = torch.where(outside, middle, low), torch.where(outside, value, above)
        high, below = torch.where(outside, high, middle), torch.where(outside, below, value)
    return torch.where(inside, torch.where(index > 0, high, near), MISS)


class _Level:
    """The function of smooth parts along rays, negative inside."""

    def __init__(self, world: World, part: Tensor, start: Tensor, slope: Tensor) -> None:
        self.start, self.slope = start, slope
        self.weights = world.weights[part].permute(1, 2, 0)
        self.ripple = world.ripple[part]
        waves = world.waves[part].permute(1, 2, 0)
        self.phase, self.rate = (waves * start).sum(1) + world.phases[part].T, (waves * slope).sum(1)

    def __call__(self, t: Tensor) -> Tensor:
        """At parameters ``[T, K]``."""
        total = torch.zeros_like(t)
        for axis in range(3):
            power = (self.start[axis] + t * self.slope[axis]).square_()
            total.addcmul_(power, self.weights[axis, 0].expand_as(t))
            power = power.square_()
            total.addcmul_(power, self.weights[axis, 1].expand_as(t))
            total.addcmul_(power.square_(), self.weights[axis, 2].expand_as(t))
        wave = sum((self.phase[i] + t * self.rate[i]).sin_() for i in range(3))
        return total + self.ripple * wave - 1


def _gradient(world: World, part: Tensor, point: Tensor) -> Tensor:
    """Outward normals ``[3, K]`` of parts at points of their surface, in half sides; not of length 1."""
    on_side = torch.where(point.abs() == point.abs().amax(0), point.sign(), 0.0)
    weights = world.weights[part].permute(1, 2, 0)
    slope = sum(power * weights[:, i] * point ** (power - 1) for i, power in enumerate(POWERS))
    waves = world.waves[part].permute(1, 2, 0)
    phase = (waves * point).sum(1) + world.phases[part].T
    slope = slope + world.ripple[part] * (phase.cos()[:, None] * waves).sum(0)
    return torch.where(world.smooth[part] & (point.abs().amax(0) < FLAT), slope, on_side)
