"""Where things, cameras and walls are, for many seeds."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from training.worlds.furniture import THINGS, Part, placed
from training.worlds.layout import MOST_PARTS, NEAREST_PART, Layout, lay_out
from training.worlds.motion import CLEARANCE, MOVES, looking
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


def test_cameras_look_about(layouts: list[Layout]) -> None:
    """Degrees between neighbours: a tenth hardly turn, and a tenth see mostly something else."""
    ahead = np.stack([layout.path.rotation[:, 2] for layout in layouts])
    turns = np.degrees(np.arccos((ahead[:, 1:] * ahead[:, :-1]).sum(-1).clip(-1, 1)))
    assert np.quantile(turns, 0.1) < 4
    assert np.quantile(turns, 0.9) > 20


@pytest.mark.parametrize("kind", [kind for kind, _ in MOVES], ids=lambda kind: kind.__name__)
def test_cameras_move_as_their_kind_says(kind) -> None:
    """Medians of 100 paths: level share of a step along the line of sight; degrees off the target, of turns; steps."""
    start, target, step = np.array([0.2, -1.5, 0.1]), np.array([2.2, -0.7, 2.9]), 0.4
    along, off, turns, steps = [], [], [], []
    for seed in range(100):
        centre, forward = kind(np.random.default_rng(seed), 4, start, target, step)
        forward = forward / np.linalg.norm(forward, axis=1, keepdims=True)
        moves = np.diff(centre, axis=0)
        steps.append(np.linalg.norm(moves, axis=1).mean())
        level = moves[0] * [1, 0, 1] / np.linalg.norm(moves[0])
        ahead = forward[0] * [1, 0, 1] / np.linalg.norm(forward[0] * [1, 0, 1])
        along.append(abs(level @ ahead))
        to_target = (target - centre) / np.linalg.norm(target - centre, axis=1, keepdims=True)
        off.append(np.degrees(np.arccos((to_target * forward).sum(1).clip(-1, 1))).mean())
        turns.append(np.degrees(np.arccos((forward[1:] * forward[:-1]).sum(1).clip(-1, 1))).mean())
    found = {"along": np.median(along), "off": np.median(off), "turns": np.median(turns), "steps": np.median(steps)}
    limits = {
        "walk": {"along": (0.85, 1.0), "steps": (0.3, 0.5)},
        "sideways": {"along": (0.0, 0.3), "turns": (0, 5), "steps": (0.3, 0.5)},
        "turn": {"turns": (6, 20)},
        "around": {"off": (0, 12), "along": (0.0, 0.4), "steps": (0.3, 0.6)},
        "anywhere": {"off": (0, 15), "along": (0.3, 0.9)},
    }
    for name, (low, high) in limits[kind.__name__].items():
        assert low <= found[name] <= high, found


def test_looking_rolls_about_the_line_of_sight() -> None:
    forward = np.array([[0.3, 0.2, 0.9]])
    straight, rolled = (looking(forward, np.array([roll]))[0] for roll in (0.0, 25.0))
    np.testing.assert_allclose(straight[2], forward[0] / np.linalg.norm(forward[0]))
    assert straight[0, 1] == 0  # right is level
    turn = Rotation.from_matrix(rolled @ straight.T).as_rotvec(degrees=True)
    np.testing.assert_allclose(turn, [0, 0, 25], atol=1e-9)
