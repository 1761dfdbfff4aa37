"""What rays meet, against closed forms and against looking at many points of every ray."""

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from training.worlds.solids import POWERS, World, cast, distance_to_boxes, is_free, keep

ROOM = 4.0
WALLS = torch.cat([torch.eye(3), -torch.eye(3)]), torch.full((6,), ROOM)


def world_of(
    centre: list[float],
    half: list[float],
    *,
    weights: list[list[float]] | None = None,
    ripple: float = 0.0,
    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> World:
    """A cube of 8 metres with one part in it."""
    axes = torch.from_numpy(Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()).float()
    lot = torch.Generator().manual_seed(1)
    return World(
        *WALLS,
        torch.tensor([centre]),
        axes[None],
        torch.tensor([half]),
        torch.tensor([weights is not None]),
        torch.tensor([weights or [[0.0] * 3] * 3]),
        4 * torch.randn(1, 3, 3, generator=lot),
        torch.rand(1, 3, generator=lot),
        torch.tensor([ripple]),
    )


def rays(count: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """From near one side to all over the other."""
    lot = torch.Generator().manual_seed(seed)
    origin = torch.rand(3, count, generator=lot) * 0.4 + torch.tensor([[0.0], [0.0], [-3.5]])
    ends = (torch.rand(3, count, generator=lot) - 0.5) * torch.tensor([[5.0], [5.0], [0.0]])
    return origin, ends + torch.tensor([[0.0], [0.0], [3.0]]) - origin


def level(world: World, point: Tensor) -> Tensor:
    """The definition of a smooth part, word by word, at points ``[..., 3]``; positive outside of its box as well."""
    local = (point - world.centre[0]) @ world.axes[0].T / world.half[0]
    value = sum(world.weights[0][:, i] @ (local**power).unsqueeze(-1) for i, power in enumerate(POWERS)).squeeze(-1)
    for wave, phase in zip(world.waves[0], world.phases[0], strict=True):
        value = value + world.ripple[0] * (local @ wave + phase).sin()
    return torch.where(local.abs().amax(-1) > 1, 1.0, value - 1)


def test_walls_are_where_the_cube_ends() -> None:
    world = keep(world_of([0.0, 0, 0], [1.0, 1, 1]), torch.tensor([False]))
    origin, direction = rays()
    hits = cast(world, origin, direction)
    end = origin + hits.t * direction
    torch.testing.assert_close(end.abs().amax(0), torch.full((400,), ROOM))
    torch.testing.assert_close((end * hits.normal).sum(0), torch.full((400,), -ROOM))


def test_sphere_is_met_where_the_quadratic_says() -> None:
    sphere = world_of([0.2, 0.1, 0.5], [1.2, 1.2, 1.2], weights=[[1, 0, 0]] * 3, turn_deg=(20, 50, 10))
    origin, direction = rays()
    hits = cast(sphere, origin, direction)
    apart = origin - sphere.centre[0][:, None]
    a, b, c = (direction**2).sum(0), (apart * direction).sum(0), (apart**2).sum(0) - 1.2**2
    root = b * b - a * c
    met = hits.surface == 6
    clear = root.abs() > 0.02 * b * b  # grazing rays may pass between two samples
    assert torch.equal(met[clear], root[clear] > 0)
    assert met.sum() > 50
    torch.testing.assert_close(hits.t[met], ((-b - root.clamp(min=0).sqrt()) / a)[met], rtol=0, atol=4e-3)
    outwards = apart + hits.t * direction
    torch.testing.assert_close(hits.normal[:, met], (outwards / outwards.norm(dim=0))[:, met], rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("weights", "ripple"),
    [
        (None, 0.0),
        ([[0.0, 0.3, 0.7]] * 3, 0.0),
        ([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], 0.0),
        ([[0.5, 0.5, 0.0]] * 3, 0.08),
    ],
    ids=["box", "rounded-box", "cylinder", "lump"],
)
def test_parts_are_met_where_many_points_of_the_ray_say(weights: list[list[float]] | None, ripple: float) -> None:
    """Of 4,000 points of a ray, the first inside is as far as the hit; normals are against the ray and as the slope."""
    world = world_of([0.1, -0.2, 0.4], [0.9, 0.6, 1.3], weights=weights, ripple=ripple, turn_deg=(30, 20, 70))
    origin, direction = rays(150)
    hits = cast(world, origin, direction)
    t = torch.linspace(0, 1, 4000)[:, None, None]
    value = level(world, origin.T + t * direction.T)
    inside = value < 0 if weights else value != 1
    first = torch.where(inside.any(0), inside.to(torch.uint8).argmax(0) / 3999, torch.inf)
    met = hits.surface == 6
    assert met.sum() > 30
    assert (met == first.isfinite()).float().mean() > 0.96  # rays that graze may pass between two samples
    both = met & first.isfinite()
    assert ((hits.t - first).abs()[both] < 2e-3).float().mean() > 0.95
    assert (hits.normal * direction).sum(0)[both].max() < 0.05
    torch.testing.assert_close(hits.normal.norm(dim=0), torch.ones(150))
    if weights:
        point = (origin + hits.t * direction).T[both].requires_grad_()
        (slope,) = torch.autograd.grad(level(world, point).sum(), point)
        local = (point.detach() - world.centre[0]) @ world.axes[0].T / world.half[0]
        curved = local.abs().amax(-1) < 0.98
        agree = torch.nn.functional.cosine_similarity(slope, hits.normal.T[both])[curved]
        assert (agree > 0.99).float().mean() > 0.95


def test_a_ray_is_free_up_to_what_it_meets() -> None:
    world = world_of([0.1, -0.2, 0.4], [0.9, 0.6, 1.3], weights=[[0.5, 0.5, 0.0]] * 3, ripple=0.05)
    origin, direction = rays()
    t = cast(world, origin, direction).t
    assert is_free(world, origin, direction * t, 0.999).all()
    assert not is_free(world, origin, direction * t, 1.001).any()


def test_nearer_parts_hide_farther_ones() -> None:
    near, far = (world_of([0, 0, z], [0.5, 0.5, 0.5]) for z in (0.0, 2.0))
    names = ("centre", "axes", "half", "smooth", "weights", "waves", "phases", "ripple")
    both = World(*WALLS, *(torch.cat([getattr(far, name), getattr(near, name)]) for name in names))
    hits = cast(both, torch.tensor([[0.0], [0.0], [-3.0]]), torch.tensor([[0.0], [0.0], [1.0]]))
    assert hits.surface.tolist() == [7]
    assert hits.t.tolist() == [2.5]
    assert hits.normal.T.tolist() == [[0, 0, -1]]


def test_distance_to_a_turned_box() -> None:
    """After an eighth of a turn an edge is ahead, half a diagonal from the middle."""
    world = world_of([1.0, 0, 0], [1.0, 1, 1], turn_deg=(0, 45, 0))
    points = torch.tensor([[1.0 + 2**0.5 + 0.3, 0, 0], [1, 2.5, 0], [1.5, 0, 0]])
    torch.testing.assert_close(distance_to_boxes(world, points), torch.tensor([[0.3, 1.5, 0]]))
