"""Chunks come into one frame, on places whose answer is known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from analysis.reconstruction.joining import frame_change, join, moved
from analysis.reconstruction.views import Views
from tests.analysis.reconstruction.known import known_views, points_by_hand
from vggtkit.core.errors import InputError
from vggtkit.metrics.points import Similarity, umeyama


def similarity(seed: int) -> Similarity:
    generator = np.random.default_rng(seed)
    rotation = Rotation.random(rng=generator).as_matrix()
    return Similarity(float(np.exp(generator.normal())), rotation, generator.normal(size=3))


def other_frame(views: Views, seed: int) -> Views:
    """The same views as a pass with another frame and unit has them, made from the points and centres alone."""
    change = similarity(seed)
    turned = views.extrinsics[:, :, :3] @ change.rotation.T
    centres = change.apply(views.centres)
    extrinsics = np.concatenate([turned, -(turned @ centres[..., None])], -1)
    return Views((change.scale * views.depth).astype(np.float32), views.confidence, extrinsics, views.intrinsics)


@pytest.mark.parametrize("seed", range(5))
def test_chunks_of_any_frame_and_unit_come_together_again(seed: int) -> None:
    whole = known_views(9, seed)
    chunks = [slice(0, 4), slice(3, 7), slice(6, 9)]
    parts = [whole.of(chunks[0]), *(other_frame(whole.of(chunk), seed + 10) for chunk in chunks[1:])]
    joined, scales = join(parts)
    np.testing.assert_allclose(joined.extrinsics, whole.extrinsics, atol=1e-6)
    np.testing.assert_allclose(joined.depth, whole.depth, rtol=1e-5)
    np.testing.assert_allclose(scales, 1 / similarity(seed + 10).scale, rtol=1e-6)
    for number in range(len(whole)):
        np.testing.assert_allclose(joined.points(number), points_by_hand(whole, number), atol=1e-5)


def test_the_change_is_the_one_that_least_squares_over_the_points_finds(views: Views) -> None:
    other = other_frame(views, 3)
    change = frame_change(views.of(slice(2, 3)), other.of(slice(2, 3)))
    expected = umeyama(other.points(2).reshape(-1, 3), views.points(2).reshape(-1, 3))
    assert change.scale == pytest.approx(expected.scale, rel=1e-6)
    np.testing.assert_allclose(change.rotation, expected.rotation, atol=1e-6)
    np.testing.assert_allclose(change.translation, expected.translation, atol=1e-5)


def test_moved_cameras_see_moved_points(views: Views) -> None:
    change = similarity(1)
    there = moved(views, change)
    for number in range(len(views)):
        expected = change.apply(points_by_hand(views, number).reshape(-1, 3))
        np.testing.assert_allclose(there.points(number).reshape(-1, 3), expected, atol=1e-5)


def test_wrong_depth_of_unsure_pixels_does_not_decide_the_scale(views: Views) -> None:
    shared = views.of(slice(0, 1))
    unsure = shared.confidence < np.median(shared.confidence)
    wild = Views(np.where(unsure, 50 * shared.depth, 2 * shared.depth), *vars_of(shared))
    assert frame_change(shared, wild).scale == pytest.approx(0.5, rel=1e-6)


def vars_of(views: Views) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return views.confidence, views.extrinsics, views.intrinsics


def test_no_depth_at_all_is_said(views: Views) -> None:
    shared = views.of(slice(0, 1))
    empty = Views(np.zeros_like(shared.depth), *vars_of(shared))
    with pytest.raises(InputError, match="their common picture has no depth"):
        frame_change(shared, empty)
