"""Random rooms, objects and cameras, from one row of uniform random numbers per scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vggtkit.scenes.raycast import Solids

BOXES = 3
SPHERES = 3
TRIES = 8
CLEARANCE = 0.7  # between a camera and any object, in units: nearer ones would fill the view
PARKED = 1000.0  # where unused solids lie, far outside every room
ROOM_DRAWS = 16
OBJECT_DRAWS = 8 + 2 * TRIES
CAMERA_DRAWS = 8


@dataclass(frozen=True)
class Cameras:
    """``centre [B,S,3]``, world-to-camera ``rotation [B,S,3,3]``, ``fov [B]`` (longer side, radians)."""

    centre: Tensor
    rotation: Tensor
    fov: Tensor


@dataclass(frozen=True)
class Layout:
    """Geometry, cameras, lamp ``[B, 3]`` and exposure ``[B, S, 3]`` of B scenes."""

    solids: Solids
    cameras: Cameras
    light: Tensor
    exposure: Tensor


def draws_needed(views: int) -> int:
    """Uniform random numbers per scene that :func:`lay_out` takes."""
    return ROOM_DRAWS + 2 * TRIES + (BOXES + SPHERES) * OBJECT_DRAWS + views * CAMERA_DRAWS


def lay_out(draws: Tensor, views: int, baseline: float) -> Layout:
    """A room with 2 to 6 objects and cameras that look at a common point, from ``[B, draws_needed(views)]``.

    The room measures 4-8 x 2.5-4 x 4-8 units (y, the height, points down). The cameras are placed first and
    the objects around what they look at; an object too near to a camera is shrunk, so none contains a camera.
    """
    sizes = [ROOM_DRAWS, 2 * TRIES, (BOXES + SPHERES) * OBJECT_DRAWS, views * CAMERA_DRAWS]
    room_draws, first_draws, object_draws, camera_draws = draws.split(sizes, -1)
    half = torch.tensor([2.0, 1.25, 2.0]) + torch.tensor([2.0, 0.75, 2.0]) * room_draws[:, :3]
    target = (room_draws[:, 3:6] - 0.5) * half + torch.tensor([0.0, 0.2, 0.0]) * half
    camera_draws = camera_draws.reshape(-1, views, CAMERA_DRAWS)
    first = _first_centre(half, target, first_draws.reshape(-1, TRIES, 2), room_draws[:, 6])
    centre = _other_centres(half, first, camera_draws, baseline)
    rotation = _look_at(centre, target, camera_draws, baseline)
    fov = torch.deg2rad(45 + 30 * room_draws[:, 7])
    solids = _place(half, target, centre, object_draws.reshape(-1, BOXES + SPHERES, OBJECT_DRAWS), room_draws)
    light = half * torch.stack([room_draws[:, 10] - 0.5, -0.6 - 0.3 * room_draws[:, 11], room_draws[:, 12] - 0.5], -1)
    tint = 0.95 + 0.1 * room_draws[:, 13:16]
    exposure = tint[:, None] * (0.95 + 0.1 * camera_draws[..., 7:8])
    return Layout(solids, Cameras(centre, rotation, fov), light, exposure)


def _first_centre(half: Tensor, target: Tensor, draws: Tensor, height: Tensor) -> Tensor:
    """The first of several tries that sees the target from at least 2.2 units, else the farthest."""
    angle, distance = draws[..., 0] * 2 * math.pi, 2.4 + 1.8 * draws[..., 1]
    y = (half[:, 1] * (height - 0.65))[:, None].expand_as(angle)
    x = target[:, :1] + angle.cos() * distance
    z = target[:, 2:] + angle.sin() * distance
    tries = _inside(half[:, None], torch.stack([x, y, z], -1))
    reached = (tries - target[:, None]).norm(dim=-1)
    choice = reached.clamp(max=2.2).argmax(-1)
    return tries[torch.arange(len(tries)), choice]


def _other_centres(half: Tensor, first: Tensor, draws: Tensor, baseline: float) -> Tensor:
    """Up to ``baseline`` units from the first camera, less in height."""
    angle = draws[..., 0] * 2 * math.pi
    distance = baseline * (0.25 + 0.75 * draws[..., 1])
    lift = baseline * 0.5 * (draws[..., 2] - 0.5)
    offset = torch.stack([angle.cos() * distance, lift, angle.sin() * distance], -1)
    offset[:, 0] = 0
    return _inside(half[:, None], first[:, None] + offset)


def _inside(half: Tensor, point: Tensor) -> Tensor:
    limit = half - 0.3
    return torch.maximum(torch.minimum(point, limit), -limit)


def _look_at(centre: Tensor, target: Tensor, draws: Tensor, baseline: float) -> Tensor:
    """World-to-camera rotations towards points near the target, with a slight roll; OpenCV axes."""
    jitter = (draws[..., 3:6] - 0.5) * min(baseline, 1.0)
    forward = torch.nn.functional.normalize(target[:, None] + jitter - centre, dim=-1)
    down = torch.tensor([0.0, 1.0, 0.0]).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(down, forward), dim=-1)
    down = torch.linalg.cross(forward, right)
    roll = (draws[..., 6:7] - 0.5) * math.radians(10)
    cos, sin = roll.cos(), roll.sin()
    return torch.stack([cos * right + sin * down, cos * down - sin * right, forward], -2)


def _place(half: Tensor, target: Tensor, cameras: Tensor, draws: Tensor, room_draws: Tensor) -> Solids:
    """Objects near the target: 1 to 3 boxes and 1 to 3 spheres, two thirds of them on the floor."""
    is_box = torch.arange(BOXES + SPHERES) < BOXES
    radius = 0.25 + 0.4 * draws[..., 0]
    size = torch.where(is_box[:, None], 0.2 + 0.45 * draws[..., 0:3], radius[..., None])
    reach = torch.where(is_box, size[..., [0, 2]].norm(dim=-1), radius)
    spot, shrink = _spots(half, target, cameras, reach, draws[..., 8:].reshape(-1, BOXES + SPHERES, TRIES, 2))
    size = size * shrink[..., None]
    floor = half[:, 1:2] - size[..., 1]
    lifted = floor * (1.8 * draws[..., 5] - 0.8)
    y = torch.where(draws[..., 4] < 0.67, floor, lifted)
    rank = torch.arange(BOXES + SPHERES) % BOXES
    count = 1 + (room_draws[:, 8:10] * BOXES).long()
    present = (rank < count.repeat_interleave(BOXES, 1)) & (shrink > 0.1)
    centre = torch.stack([spot[..., 0], y, spot[..., 1]], -1)
    centre = torch.where(present[..., None], centre, PARKED)
    boxes = (centre[:, :BOXES], size[:, :BOXES], draws[:, :BOXES, 3] * math.pi)
    return Solids(half, *boxes, centre[:, BOXES:], size[:, BOXES:, 0])


def _spots(half: Tensor, target: Tensor, cameras: Tensor, reach: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Places on the floor plan ``[B, K, 2]`` and the factor by which an object must shrink to fit there.

    Seen from above, an object is a disc of radius ``reach``; keeping the discs off the cameras is enough to
    keep the cameras out. The try with the most room for the object wins.
    """
    plan, seen = half[:, [0, 2]], target[:, [0, 2]]
    limit = (plan[:, None] - reach[..., None]).clamp(min=0)[:, :, None]
    spot = seen[:, None, None] + (draws - 0.5) * 3.6
    spot = torch.maximum(torch.minimum(spot, limit), -limit)
    distance = torch.cdist(spot.flatten(1, 2), cameras[..., [0, 2]]).amin(-1).reshape(spot.shape[:3])
    shrink = ((distance - CLEARANCE) / reach[..., None]).clamp(0, 1)
    best, choice = shrink.max(-1)
    return spot.gather(2, choice[..., None, None].expand(-1, -1, 1, 2)).squeeze(2), best
