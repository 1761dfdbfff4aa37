"""Analytic ray casting against a room, boxes and spheres, vectorised over scenes and views.

Rays are ``origin + t * direction`` with directions whose camera z is 1, so that ``t`` is the z-depth.
Planes of pixels are kept contiguous (components in front) because that is what makes it fast on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROOM_FACES = 6
MISS = 1e9


@dataclass(frozen=True)
class Solids:
    """The geometry of B scenes; the room is centred at the origin, y points down.

    The room is convex and seen from inside, so a solid outside is never seen: there unused ones are parked.

    Attributes:
        room: half extents ``[B, 3]``.
        box_centre: ``[B, K, 3]``.
        box_half: half extents ``[B, K, 3]``.
        box_yaw: rotation about y in radians, ``[B, K]``.
        sphere_centre: ``[B, L, 3]``.
        sphere_radius: ``[B, L]``.
    """

    room: Tensor
    box_centre: Tensor
    box_half: Tensor
    box_yaw: Tensor
    sphere_centre: Tensor
    sphere_radius: Tensor

    @property
    def surfaces(self) -> int:
        """Surfaces per scene: 6 of the room, 6 of every box, 1 of every sphere, in this order."""
        return ROOM_FACES * (1 + self.box_yaw.shape[1]) + self.sphere_radius.shape[1]


@dataclass(frozen=True)
class Hits:
    """First hits of rays: ``t`` and ``surface`` are ``[B, S, P]``, ``direction`` is ``[B, S, 3, P]``."""

    t: Tensor
    surface: Tensor
    direction: Tensor


def yaw_matrix(yaw: Tensor) -> Tensor:
    """Rotations about y that take local axes to the world, ``[..., 3, 3]``, from radians ``[...]``.

    >>> yaw_matrix(torch.tensor(0.0)).diagonal()
    tensor([1., 1., 1.])
    """
    c, s, zero, one = yaw.cos(), yaw.sin(), torch.zeros_like(yaw), torch.ones_like(yaw)
    return torch.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).reshape(*yaw.shape, 3, 3)


def cast(solids: Solids, origin: Tensor, to_world: Tensor, pixels: Tensor) -> Hits:
    """First surface that each ray meets.

    Args:
        solids: what may be hit.
        origin: camera centres ``[B, S, 3]``, inside the room and outside every solid.
        to_world: ``[B, S, 3, 3]``, takes homogeneous pixels to ray directions (rotation^T @ K^-1).
        pixels: homogeneous pixel coordinates ``[3, P]`` or ``[B, S, 3, P]``.

    Returns:
        Parameter, surface index (see ``Solids.surfaces``) and direction of each ray.

    >>> no_boxes = (torch.zeros(1, 0, 3), torch.zeros(1, 0, 3), torch.zeros(1, 0))
    >>> sphere = (torch.tensor([[[0.0, 0.0, 2.0]]]), torch.tensor([[0.5]]))
    >>> solids = Solids(torch.tensor([[2.0, 1.0, 3.0]]), *no_boxes, *sphere)
    >>> ahead = torch.tensor([[0.0], [0.0], [1.0]])
    >>> cast(solids, torch.zeros(1, 1, 3), torch.eye(3).expand(1, 1, 3, 3), ahead).t
    tensor([[[1.5000]]])
    """
    boxes = solids.box_yaw.shape[1]
    to_local = yaw_matrix(solids.box_yaw).transpose(-1, -2)
    local = (to_local[:, None] @ to_world[:, :, None]).flatten(2, 3)
    directions = torch.cat([to_world, local], 2) @ pixels
    offset = (to_local[:, None] @ (origin[:, :, None] - solids.box_centre[:, None])[..., None]).flatten(2)
    inverse = directions.reciprocal().clamp_(-MISS, MISS)
    centre = inverse * -torch.cat([origin, offset], 2)[..., None]
    reach = inverse.abs() * torch.cat([solids.room, solids.box_half.flatten(1)], 1)[:, None, :, None]
    best, surface = _leave_room(directions[:, :, :3], centre[:, :, :3] + reach[:, :, :3])
    for k in range(boxes):
        rows = slice(3 + 3 * k, 6 + 3 * k)
        t, face = _enter_box(directions[:, :, rows], centre[:, :, rows], reach[:, :, rows])
        best, surface = _nearer(best, surface, t, face + ROOM_FACES * (1 + k))
    direction = directions[:, :, :3]
    for k, t in enumerate(_enter_spheres(solids, origin, direction).unbind(2)):
        best, surface = _nearer(best, surface, t, torch.tensor(float(ROOM_FACES * (1 + boxes) + k)))
    return Hits(best, surface.long(), direction)


def _nearer(best: Tensor, surface: Tensor, t: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    return torch.minimum(best, t), torch.where(t < best, other, surface)


def _leave_room(direction: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Parameter and face (2 * axis + 1 on the positive side) where rays from inside leave the box."""
    x, y, z = far.unbind(2)
    t = torch.minimum(torch.minimum(x, y), z)
    return t, _face(direction, x == t, y == t, outward=1.0)


def _enter_box(direction: Tensor, centre: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Slab method (Kay and Kajiya, SIGGRAPH 1986) in the box's own frame."""
    x, y, z = (centre - reach).unbind(2)
    near = torch.maximum(torch.maximum(x, y), z)
    fx, fy, fz = (centre + reach).unbind(2)
    far = torch.minimum(torch.minimum(fx, fy), fz)
    hit = (near < far) & (near > 0)
    return torch.where(hit, near, MISS), _face(direction, x == near, y == near, outward=-1.0)


def _face(direction: Tensor, on_x: Tensor, on_y: Tensor, *, outward: float) -> Tensor:
    x, y, z = ((direction * outward) > 0).float().unbind(2)
    return torch.where(on_x, x, torch.where(on_y, y + 2, z + 4))


def _enter_spheres(solids: Solids, origin: Tensor, direction: Tensor) -> Tensor:
    """Nearer root of ``|origin + t * direction - centre|^2 = radius^2``, ``[B, S, L, P]``."""
    to_centre = solids.sphere_centre[:, None] - origin[:, :, None]
    a = direction.square().sum(2, keepdim=True)
    b = to_centre @ direction
    c = to_centre.square().sum(-1) - solids.sphere_radius[:, None].square()
    discriminant = b.square().sub_(a * c[..., None])
    t = (b - discriminant.clamp(min=0).sqrt_()).div_(a)
    return torch.where((discriminant > 0) & (t > 0), t, MISS)
