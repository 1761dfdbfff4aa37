"""How far point maps are from the truth, and from the depth maps of the same network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray
from torch import Tensor

from vggtkit.model.geometry import unproject

Points = NDArray[np.float64]  # [N, 3]
F_SCORE_DISTANCE = 0.05  # scenes have a mean distance of 1
QUERY_LIMIT = 20_000


class Similarity(NamedTuple):
    """The map ``x -> scale * rotation @ x + translation``.

    Attributes:
        scale: not negative.
        rotation: ``[3, 3]``, determinant 1.
        translation: ``[3]``.
    """

    scale: float
    rotation: Points
    translation: Points

    def apply(self, points: Points) -> Points:
        """Moved points ``[N, 3]``."""
        moved: Points = self.scale * points @ self.rotation.T + self.translation
        return moved


class CloudErrors(NamedTuple):
    """Distances between two clouds, in the unit of the second.

    Attributes:
        accuracy: mean distance of a predicted point to the nearest true one.
        completeness: mean distance of a true point to the nearest predicted one.
        chamfer: mean of the two, which VGGT calls overall.
        f_score: harmonic mean of precision and recall: the fractions of those distances below a limit.
    """

    accuracy: float
    completeness: float
    chamfer: float
    f_score: float


NO_CLOUD = CloudErrors(np.nan, np.nan, np.nan, np.nan)


def umeyama(source: Points, target: Points) -> Similarity:
    """The similarity that brings ``source`` closest to ``target``, point by point, in least squares.

    The rotation never reflects: where the best orthogonal matrix would, its least significant axis is turned around.
    If all source points coincide, any scale is as good as another, and it is 1.

    Args:
        source: ``[N, 3]``, N at least 1.
        target: ``[N, 3]``, the same points in the same order.

    Raises:
        ValueError: the shapes differ, are not ``[N, 3]``, N is 0, or a value is not finite.

    Source: Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", PAMI 13(4),
    1991, equations 39 to 43.

    >>> source = np.eye(3)
    >>> umeyama(source, 2 * source + 5).scale.__round__(6)
    2.0
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3 or not len(source):
        msg = f"expected two times [N, 3] with N > 0, got {source.shape} and {target.shape}"
        raise ValueError(msg)
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        msg = "cannot align points that are not finite"
        raise ValueError(msg)
    from_mean, to_mean = source.mean(0), target.mean(0)
    centred = source - from_mean
    u, singular, vt = np.linalg.svd((target - to_mean).T @ centred / len(source))
    signs = np.array([1.0, 1.0, -1.0 if np.linalg.det(u) * np.linalg.det(vt) < 0 else 1.0])
    rotation = u * signs @ vt
    variance = (centred * centred).sum() / len(source)
    scale = float((singular * signs).sum() / variance) if variance > 0 else 1.0
    return Similarity(scale, rotation, to_mean - scale * rotation @ from_mean)


def cloud_errors(
    predicted: Points,
    true: Points,
    *,
    f_score_distance: float = F_SCORE_DISTANCE,
    query_limit: int = QUERY_LIMIT,
    seed: int = 0,
) -> CloudErrors:
    """Accuracy, completeness, Chamfer distance and F-score of a cloud, compared as it lies.

    Args:
        predicted: ``[N, 3]``, aligned already.
        true: ``[M, 3]``.
        f_score_distance: limit of precision and recall, in the points' unit.
        query_limit: of a larger cloud, a seeded sample of this many points looks for its neighbours, among all points
            of the other cloud: the means stay unbiased.
        seed: of that sample.

    Returns:
        NaN throughout where a cloud is empty or not finite.

    Source: accuracy and completeness as in Aanæs et al., "Large-Scale Data for Multiple-View Stereopsis", IJCV 2016
    (DTU); precision, recall and F-score as in Knapitsch et al., "Tanks and Temples", ACM TOG 36(4), 2017.

    >>> cloud_errors(np.zeros((1, 3)), np.array([[0.0, 0, 0], [0, 0, 1]]))
    CloudErrors(accuracy=0.0, completeness=0.5, chamfer=0.25, f_score=0.6666666666666666)
    """
    if not (len(predicted) and len(true) and np.isfinite(predicted).all() and np.isfinite(true).all()):
        return NO_CLOUD
    generator = np.random.default_rng(seed)
    to_true = _nearest(predicted, true, query_limit, generator)
    to_predicted = _nearest(true, predicted, query_limit, generator)
    precision, recall = (float((d < f_score_distance).mean()) for d in (to_true, to_predicted))
    accuracy, completeness = float(to_true.mean()), float(to_predicted.mean())
    f_score = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return CloudErrors(accuracy, completeness, (accuracy + completeness) / 2, f_score)


def point_errors(predicted: Tensor, true: Tensor, *, query_limit: int = QUERY_LIMIT, seed: int = 0) -> CloudErrors:
    """`cloud_errors` of points that belong together, after Umeyama alignment.

    Args:
        predicted: ``[N, 3]``, in any frame and scale.
        true: ``[N, 3]``, the same points; in scene units, whose mean distance is 1.
        query_limit: as for `cloud_errors`.
        seed: of the samples of large clouds.

    Returns:
        NaN throughout where there are no points or one is not finite.

    >>> import torch
    >>> true = torch.eye(3)
    >>> round(point_errors(3 * true - 1, true).chamfer, 6)
    0.0
    """
    source, target = _points(predicted), _points(true)
    if not (len(source) and np.isfinite(source).all() and np.isfinite(target).all()):
        return NO_CLOUD
    return cloud_errors(umeyama(source, target).apply(source), target, query_limit=query_limit, seed=seed)


def scaled_distance(predicted: Tensor, true: Tensor) -> float:
    """Mean distance of points ``[N, 3]`` to their true places, after multiplying by the ratio of median norms.

    Unlike `point_errors` it knows which point belongs where, and leaves the world frame as predicted. NaN where there
    are no points, one is not finite, or the predicted median is 0.

    >>> import torch
    >>> scaled_distance(torch.tensor([[0.0, 0, 2]]), torch.tensor([[0.0, 0, 1]]))
    0.0
    """
    source, target = _points(predicted), _points(true)
    if not (len(source) and np.isfinite(source).all() and np.isfinite(target).all()):
        return np.nan
    median = float(np.median(np.linalg.norm(source, axis=-1)))
    if not median:
        return np.nan
    scale = float(np.median(np.linalg.norm(target, axis=-1))) / median
    return float(np.linalg.norm(scale * source - target, axis=-1).mean())


def agreement(world_points: Tensor, depth: Tensor, extrinsics: Tensor, intrinsics: Tensor) -> float:
    """How well a network's point map agrees with its own depth and cameras; needs no truth.

    The median over all pixels of ``|X - U| / |U - c|``: X from the point map, U the depth unprojected with the
    predicted camera, c that camera's centre. 0 is perfect agreement, which is necessary, not sufficient, for being
    right.

    Args:
        world_points: ``[S, H, W, 3]``.
        depth: ``[S, H, W]``.
        extrinsics: predicted, world-to-camera ``[S, 3, 4]``.
        intrinsics: predicted, ``[S, 3, 3]`` in pixels.

    Returns:
        A fraction; pixels unprojected into the camera's centre do not count. NaN where none is left or anything is
        not finite.

    >>> import torch
    >>> camera, lens = torch.eye(3, 4)[None], torch.eye(3)[None]
    >>> depth = torch.full((1, 2, 2), 2.0)
    >>> agreement(1.25 * unproject(depth, camera, lens), depth, camera, lens)
    0.25
    """
    extrinsics = extrinsics.double()
    unprojected = unproject(depth.double(), extrinsics, intrinsics.double())
    centres = -(extrinsics[..., :3].mT @ extrinsics[..., 3:])[..., 0]
    distances = (unprojected - centres[:, None, None]).norm(dim=-1)
    gaps = (world_points.double() - unprojected).norm(dim=-1)
    gap, distance = (x.detach().cpu().numpy() for x in (gaps, distances))
    if not (np.isfinite(gap).all() and np.isfinite(distance).all() and (distance > 0).any()):
        return np.nan
    return float(np.median(gap[distance > 0] / distance[distance > 0]))


def _nearest(queries: Points, cloud: Points, limit: int, generator: np.random.Generator) -> Points:
    if len(queries) > limit:
        queries = queries[generator.choice(len(queries), limit, replace=False)]
    # Trees of millions of points for a few queries: quick to build counts for more than quick to search.
    distances: Points = scipy.spatial.cKDTree(cloud, compact_nodes=False, balanced_tree=False).query(queries)[0]
    return distances


def _points(points: Tensor) -> Points:
    array: Points = points.detach().cpu().double().numpy()
    return array
