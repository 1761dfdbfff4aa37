"""Rendered worlds keep the conventions of rooms, and pictures, depth, cameras and tracks fit each other."""

import pytest
import torch
from torch import Tensor

from tests.training.worlds.conftest import SIZE, VIEWS, WORLDS
from training.correspondence import project
from training.worlds import world_batch, world_scenes
from training.worlds.textures import Bank
from vggtkit.model.geometry import unproject


def test_points_are_those_of_depth_and_cameras(batch: dict[str, Tensor]) -> None:
    points = unproject(batch["depth"], batch["extrinsics"], batch["intrinsics"])
    torch.testing.assert_close(points, batch["world_points"], rtol=0, atol=2e-4)


def test_the_first_camera_is_the_world_and_lengths_are_of_size_one(batch: dict[str, Tensor]) -> None:
    assert torch.equal(batch["extrinsics"][:, 0], torch.eye(3, 4).expand(WORLDS, 3, 4))
    mean = batch["world_points"].norm(dim=-1).mean((1, 2, 3))
    torch.testing.assert_close(mean, torch.ones(WORLDS))
    assert batch["depth"].min() > 0.01


def test_other_views_see_the_same_points(batch: dict[str, Tensor]) -> None:
    """Points of the first view, where others see them: never behind what is there, mostly on it."""
    pixels, z = project(batch["world_points"][:, 0].flatten(1, 2), batch["extrinsics"], batch["intrinsics"])
    x, y = pixels.round().long().unbind(-1)
    inside = (x >= 0) & (y >= 0) & (x < SIZE[1]) & (y < SIZE[0]) & (z > 0.02)
    place = (y.clamp(0, SIZE[0] - 1) * SIZE[1] + x.clamp(0, SIZE[1] - 1)).long()
    surface = batch["depth"].flatten(2).gather(2, place)
    ratio = (surface / z)[inside]
    assert ((ratio - 1).abs() < 0.1).float().mean() > 0.75
    assert inside[:, 1:].float().mean() > 0.2


def test_tracks_are_projections_and_visible_where_depth_agrees(batch: dict[str, Tensor]) -> None:
    column, row = batch["query_points"].long().unbind(-1)
    which = torch.arange(WORLDS)[:, None]
    points = batch["world_points"][:, 0][which, row, column]
    pixels, z = project(points, batch["extrinsics"], batch["intrinsics"])
    ahead = z > 0.05
    torch.testing.assert_close(batch["tracks"][ahead], pixels[ahead], rtol=1e-3, atol=0.02)
    assert torch.equal(batch["tracks"][:, 0], batch["query_points"])
    assert batch["visible"][:, 0].all()
    x, y = batch["tracks"].round().long().unbind(-1)
    place = y.clamp(0, SIZE[0] - 1) * SIZE[1] + x.clamp(0, SIZE[1] - 1)
    deepest = torch.nn.functional.max_pool2d(batch["depth"], 3, 1, 1).flatten(2).gather(2, place)
    visible = batch["visible"]
    assert ((deepest / z)[visible] > 0.95).all()  # of the pixels around: seen is not behind all of them
    nearby = (x >= 0) & (y >= 0) & (x < SIZE[1]) & (y < SIZE[0])
    hidden = ahead & nearby & (deepest < 0.9 * z)
    assert hidden.any()
    assert not visible[hidden].any()


def test_neighbouring_views_have_the_colours_of_the_points(bank: Bank) -> None:
    """Where a track is visible, the picture there looks as it does at the query: more than at other places."""
    batch = world_batch(12, 2, (48, 48), seed=(4,), bank=bank, supersample=2)
    images, tracks = batch["images"], batch["tracks"]
    grid = (tracks + 0.5) / 48 * 2 - 1
    seen = [
        torch.nn.functional.grid_sample(images[:, i], grid[:, i, None], align_corners=False)[:, :, 0] for i in (0, 1)
    ]
    apart = (seen[0] - seen[1]).abs().mean(1)
    elsewhere = (seen[0] - seen[1].roll(7, -1)).abs().mean(1)
    visible = batch["visible"][:, 1]
    assert apart[visible].mean() < 0.6 * elsewhere[visible].mean()


def test_the_same_seed_gives_the_same_worlds_and_fewer_are_the_first(bank: Bank, batch: dict[str, Tensor]) -> None:
    fewer = world_batch(2, VIEWS, SIZE, seed=(11,), bank=bank)
    assert all(torch.equal(fewer[name], batch[name][:2]) for name in batch)
    other = world_batch(2, VIEWS, SIZE, seed=(12,), bank=bank)
    assert not torch.equal(other["depth"], fewer["depth"])


def test_splits_share_nothing() -> None:
    scenes = [world_scenes(1, 2, (16, 16), split=split, pictures=4)[0] for split in ("evaluation", "validation")]
    assert not torch.equal(scenes[0].images, scenes[1].images)
    assert scenes[0].images.min() >= 0
    assert scenes[0].images.max() <= 1
    assert scenes[0].truth is not None


def test_supersampling_changes_colours_alone(bank: Bank) -> None:
    one, two = (world_batch(2, 2, (16, 24), seed=(3,), bank=bank, supersample=each) for each in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one if name != "images")
    assert 0 < (one["images"] - two["images"]).abs().mean() < 0.15


@pytest.mark.parametrize("name", ["images", "depth", "world_points", "extrinsics", "intrinsics", "tracks"])
def test_everything_is_finite(batch: dict[str, Tensor], name: str) -> None:
    assert batch[name].isfinite().all()
    assert batch[name].dtype == torch.float32


def test_fields_of_view_are_those_of_real_cameras(bank: Bank) -> None:
    batch = world_batch(40, 1, (8, 16), seed=(1,), bank=bank)
    field = 2 * (16 / 2 / batch["intrinsics"][:, 0, 0, 0]).arctan().rad2deg()
    assert field.min() < 45
    assert field.max() > 80
    assert field.min() > 30
    assert field.max() < 97
