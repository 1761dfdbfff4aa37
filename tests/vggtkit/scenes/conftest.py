"""A world of which everything is known in closed form, for the readers of recordings."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PlaneWorld:
    """A tilted plane seen by ``len(poses)`` cameras, ``poses`` being camera-to-world ``[S, 4, 4]``."""

    poses: Array
    normal: Array
    offset: float

    def depth(self, view: int, intrinsics: Array, size: tuple[int, int]) -> Array:
        """z-depth ``[H, W]`` at the pixel centres: the t of ``normal . (centre + t ray) = offset``."""
        y, x = np.mgrid[: size[1], : size[0]]
        rays = np.stack([x, y, np.ones(x.shape)], -1) @ np.linalg.inv(intrinsics).T
        return self.depth_along(view, rays)

    def depth_along(self, view: int, rays: Array) -> Array:
        rotation, centre = self.poses[view, :3, :3], self.poses[view, :3, 3]
        return (self.offset - self.normal @ centre) / (rays @ rotation.T @ self.normal)

    def first_frame(self, views: list[int], intrinsics: Array, depths: Array) -> tuple[Array, Array, Array]:
        """Points ``[S, H, W, 3]`` and world-to-camera ``[S, 4, 4]`` in the first view's frame, and their scale.

        Pixel by pixel from camera-to-world matrices, as the definition goes.
        """
        to_first = np.linalg.inv(self.poses[views[0]])
        points = np.zeros((*depths.shape, 3))
        for slot, view in enumerate(views):
            for v, u in np.argwhere(depths[slot] > 0):
                z = depths[slot, v, u]
                fx, fy, cx, cy = intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
                local = np.array([(u - cx) / fx * z, (v - cy) / fy * z, z, 1.0])
                points[slot, v, u] = (to_first @ self.poses[view] @ local)[:3]
        scale = float(np.mean([np.linalg.norm(point) for point in points[depths > 0]]))
        extrinsics = np.stack([np.linalg.inv(to_first @ self.poses[view]) for view in views])
        extrinsics[:, :3, 3] /= scale
        return points / scale, extrinsics, np.array(scale)


@pytest.fixture
def plane_world() -> PlaneWorld:
    generator = np.random.default_rng(4)
    poses = np.tile(np.eye(4), (8, 1, 1))
    start = Rotation.from_rotvec([0.3, -0.7, 0.2])  # so that no camera is the world's own frame
    turns = Rotation.from_rotvec(generator.normal(0, 0.08, (8, 3)))
    poses[:, :3, :3] = (start * turns).as_matrix()
    poses[:, :3, 3] = generator.normal([2.0, -1.0, 0.5], 0.3, (8, 3))
    normal = start.apply([0.15, -0.1, 1.0])
    return PlaneWorld(poses, normal, float(normal @ poses[0, :3, 3]) + 3.0)


@pytest.fixture
def shade() -> Callable[[int, tuple[int, int]], Image.Image]:
    """Picture i is grey of shade i, so that a scene tells which pictures it shows."""
    return lambda index, size: Image.new("RGB", size, (index,) * 3)


@pytest.fixture(autouse=True)
def _messages_name_options(spoken_in_options: None) -> None:
    """As the command line names them; how Python callers see them is tested with `setting`."""
