"""Light of surfaces, against Lambert's law, and what cameras make of it."""

import dataclasses

import numpy as np
import pytest
import torch

from training.worlds.developing import LEVELS, develop
from training.worlds.layout import LAMPS, Layout, Light, lay_out
from training.worlds.shading import shade
from training.worlds.solids import cast, keep
from training.worlds.textures import LEVELS as REDUCTIONS
from training.worlds.textures import SIDE, Bank

HEIGHT = 2.0


@pytest.fixture
def white() -> Bank:
    texels = sum((SIDE >> level) ** 2 for level in range(REDUCTIONS))
    return Bank(torch.full((texels,), 0xFFFFFF, dtype=torch.int32), 1, 1)


@pytest.fixture
def room() -> Layout:
    """White walls two metres away, a lamp in the middle, another that is out, and light from everywhere."""
    layout = lay_out(np.random.default_rng(0), 2, 1, 1)
    world = keep(layout.world, torch.zeros(len(layout.world.half), dtype=torch.bool))
    normal = torch.cat([torch.eye(3), -torch.eye(3)])
    world = dataclasses.replace(world, wall_normal=normal, wall_offset=torch.full((6,), HEIGHT))
    looks = dataclasses.replace(
        layout.looks,
        picture=torch.zeros(6, dtype=torch.long),
        tint=torch.ones(6, 3),
        gloss=torch.zeros(6),
        glow=torch.zeros(6),
        frequency=torch.ones(6),
        turn=torch.tensor([[1.0, 0]] * 6),
        shift=torch.zeros(6, 2),
    )
    lamps = torch.tensor([[1.0, 0.5, 0.25], [0, 0, 0]])
    assert len(lamps) == LAMPS
    light = Light(torch.zeros(LAMPS, 3), lamps, torch.ones(LAMPS), torch.full((3,), 0.2), torch.full((3,), 0.1), False)
    return Layout(world, looks, light, layout.path)


def test_a_white_floor_is_as_bright_as_lamberts_law_says(room: Layout, white: Bank) -> None:
    """A lamp is half as bright at its reach, 1 metre here; the floor faces up."""
    origin = torch.tensor([[0.0], [0.0], [0.0]]).expand(3, 2)
    direction = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    hits = cast(room.world, origin, direction)
    found = shade(room, white, origin, direction, hits, 0.01)
    squared, cosine = torch.tensor([HEIGHT**2, 2 * HEIGHT**2]), torch.tensor([1.0, 0.5**0.5])
    expected = 0.2 + 2 * torch.tensor([1.0, 0.5, 0.25])[:, None] * cosine / (1 + squared)
    torch.testing.assert_close(found[:, :1], expected[:, :1])
    torch.testing.assert_close(found[:, 1], torch.where(hits.normal[1, 1] < -0.5, expected[:, 1], found[:, 1]))


def test_what_a_thing_hides_from_the_lamp_is_darker(white: Bank, room: Layout) -> None:
    """A box between the lamp and the floor: seen from the side, the floor below it has no light but from everywhere."""
    box = [torch.tensor(value) for value in ([[0.0, 1.0, 0]], [[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]], [[0.5, 0.1, 0.5]])]
    none = [
        torch.zeros(1, dtype=torch.bool),
        torch.zeros(1, 3, 3),
        torch.zeros(1, 3, 3),
        torch.zeros(1, 3),
        torch.zeros(1),
    ]
    world = dataclasses.replace(
        room.world,
        **dict(
            zip(("centre", "axes", "half", "smooth", "weights", "waves", "phases", "ripple"), box + none, strict=True)
        ),
    )
    looks = dataclasses.replace(
        room.looks, **{f.name: getattr(room.looks, f.name)[[0, *range(6)]] for f in dataclasses.fields(room.looks)}
    )
    origin = torch.tensor([[1.5], [1.5], [0.0]])
    direction = torch.tensor([[-1.5], [0.5], [0.0]])
    hits = cast(world, origin, direction)
    lit, dark = (
        shade(
            Layout(world, looks, dataclasses.replace(room.light, shadows=on), room.path),
            white,
            origin,
            direction,
            hits,
            0.01,
        )
        for on in (False, True)
    )
    torch.testing.assert_close(dark, torch.full((3, 1), 0.2))
    assert (lit > dark).all()


def test_pictures_have_eight_bits() -> None:
    light = torch.rand(3, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    picture = develop(np.random.default_rng(0), light)
    torch.testing.assert_close(picture * LEVELS, (picture * LEVELS).round(), rtol=0, atol=1e-4)
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture.std() > 0.01


@pytest.mark.parametrize("seed", range(5))
def test_a_camera_adapts_to_how_bright_it_is(seed: int) -> None:
    """A hundred times the light gives the same picture, but for rounding to 8 bits."""
    light = 0.01 + torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(seed))
    one, other = (develop(np.random.default_rng(seed), factor * light) for factor in (1.0, 100.0))
    torch.testing.assert_close(one, other, rtol=0, atol=1.01 / LEVELS)


def test_cameras_differ() -> None:
    light = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    means = torch.stack([develop(np.random.default_rng(seed), light).mean() for seed in range(20)])
    assert means.std() > 0.05
