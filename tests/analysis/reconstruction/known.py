"""A place that is known: cameras on an arc around a wavy wall, and what a perfect network would say of it."""

import numpy as np
from scipy.spatial.transform import Rotation

from analysis.reconstruction.views import Views

HEIGHT, WIDTH = 12, 16


def known_views(count: int = 5, seed: int = 0) -> Views:
    """Cameras that look about along z, with depth and confidence by lot."""
    generator = np.random.default_rng(seed)
    extrinsics = np.zeros((count, 3, 4))
    for number in range(count):
        extrinsics[number, :, :3] = Rotation.from_rotvec(0.2 * generator.standard_normal(3)).as_matrix()
        extrinsics[number, :, 3] = 0.3 * generator.standard_normal(3)
    intrinsics = np.zeros((count, 3, 3))
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = 14 + generator.random(count), 15 + generator.random(count)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = WIDTH / 2, HEIGHT / 2, 1
    depth = (1 + generator.random((count, HEIGHT, WIDTH))).astype(np.float32)
    confidence = (1 + generator.random((count, HEIGHT, WIDTH))).astype(np.float32)
    return Views(depth, confidence, extrinsics, intrinsics)


def points_by_hand(views: Views, number: int) -> np.ndarray:
    """World points ``[H, W, 3]``, from the inverse of the camera's whole projection."""
    v, u = np.indices(views.depth.shape[1:], dtype=np.float64)
    seen = np.stack([u, v, np.ones_like(u)], -1) * views.depth[number][..., None]
    pose = np.vstack([views.extrinsics[number], [0, 0, 0, 1]])
    projection = np.linalg.inv(views.intrinsics[number])
    camera = seen @ projection.T
    return (np.concatenate([camera, np.ones_like(camera[..., :1])], -1) @ np.linalg.inv(pose).T)[..., :3]
