"""Where things, cameras and walls are, for many seeds."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from training.worlds.furniture import THINGS, Part, placed
from training.worlds.layout import MOST_PARTS, NEAREST_PART, Layout, lay_out
from training.worlds.motion import CLEARANCE, looking
from training.worlds.solids import distance_to_boxes

SEEDS = range(60)


@pytest.fixture(scope="module")
def layouts() -> list[Layout]:
    return [lay_out(np.random.default_rng(seed), 4, 30, 6) for seed in SEEDS]


def corners(part: Part) -> np.ndarray:
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    return part.centre + (signs * part.half) @ part.axes


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__name__)
def test_things_have_turned_boxes_of_some_size(thing) -> None:
    for seed in range(20):
        for part in thing(np.random.default_rng(seed)):
            np.testing.assert_allclose(part.axes @ part.axes.T, np.eye(3), atol=1e-9)
            assert part.half.min() > 0.01
            assert part.centre[1] <= 0.02  # it stands on the floor, y points down


def test_placing_turns_scales_and_moves_all_corners() -> None:
    parts = THINGS[0](np.random.default_rng(1))
    turn, place = Rotation.from_euler("y", 0.7).as_matrix(), np.array([1.0, 2, 3])
    for part, moved in zip(parts, placed(parts, place, 0.7, 1.5), strict=True):
        np.testing.assert_allclose(corners(moved), place + 1.5 * corners(part) @ turn.T, atol=1e-9)


def test_cameras_are_inside_the_walls_and_outside_of_all_parts(layouts: list[Layout]) -> None:
    for layout in layouts:
        centre = torch.from_numpy(layout.path.centre).float()
        room = layout.world.wall_offset - centre @ layout.world.wall_normal.T
        assert room.min() > min(0.1, CLEARANCE)
        assert len(layout.world.half) <= MOST_PARTS
        assert (distance_to_boxes(layout.world, centre) > NEAREST_PART).all()
        assert len(layout.looks.picture) == layout.world.walls + len(layout.world.half)
        assert layout.looks.picture.max() < 30


def test_rotations_are_rotations_and_cameras_upright(layouts: list[Layout]) -> None:
    for layout in layouts:
        rotation = layout.path.rotation
        np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3)[None].repeat(4, 0), atol=1e-9)
        assert (np.linalg.det(rotation) > 0).all()
        assert (rotation[:, 1, 1] > 0.2).all()  # the picture's lower edge is below


def test_baselines_are_narrow_and_wide(layouts: list[Layout]) -> None:
    """In metres between neighbours; a tenth is five times as wide as another tenth, and no camera stands still."""
    steps = np.concatenate([np.linalg.norm(np.diff(layout.path.centre, axis=0), axis=1) for layout in layouts])
    assert steps.min() > 1e-3
    assert np.quantile(steps, 0.9) > 5 * np.quantile(steps, 0.1)


def test_some_walk_and_some_do_not(layouts: list[Layout]) -> None:
    """Share of a step that is along the line of sight: all kinds are there."""
    ahead = []
    for layout in layouts:
        step = layout.path.centre[1] - layout.path.centre[0]
        ahead.append(abs(layout.path.rotation[0, 2] @ step) / np.linalg.norm(step))
    assert np.mean(np.array(ahead) > 0.8) > 0.1
    assert np.mean(np.array(ahead) < 0.4) > 0.2


def test_looking_rolls_about_the_line_of_sight() -> None:
    forward = np.array([[0.3, 0.2, 0.9]])
    straight, rolled = (looking(forward, np.array([roll]))[0] for roll in (0.0, 25.0))
    np.testing.assert_allclose(straight[2], forward[0] / np.linalg.norm(forward[0]))
    assert straight[0, 1] == 0  # right is level
    turn = Rotation.from_matrix(rolled @ straight.T).as_rotvec(degrees=True)
    np.testing.assert_allclose(turn, [0, 0, 25], atol=1e-9)
