"""Correspondences against the renderer's own tracks, which are told by ray casting."""

import pytest
import torch
from torch import Tensor

from training.correspondence import UNSEEN, displacement_to_first, matching_patches, project
from vggtkit.scenes.synthetic import render_batch

SIZE, PATCH = (32, 48), 8


@pytest.fixture(scope="module")
def truth() -> dict[str, Tensor]:
    return render_batch(3, 3, SIZE, generator_seed=11, tracks=768, supersample=1)


def test_projected_points_are_the_pixels_they_came_from(truth: dict[str, Tensor]) -> None:
    """The points of view 0 fall on its own grid, and their depth is the depth map."""
    pixels, z = project(truth["world_points"][:, 0].flatten(1, 2), truth["extrinsics"], truth["intrinsics"])
    v, u = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    grid = torch.stack([u, v], -1).flatten(0, 1).float().expand(3, -1, -1)
    torch.testing.assert_close(pixels[:, 0], grid, atol=1e-3, rtol=0)
    torch.testing.assert_close(z[:, 0], truth["depth"][:, 0].flatten(1), atol=1e-4, rtol=1e-4)


def test_patches_match_where_tracks_lead(truth: dict[str, Tensor]) -> None:
    """Tracks that start in the middle of a patch of view 0 end in the patch it is matched with, or are hidden."""
    target = matching_patches(truth, PATCH)
    columns = SIZE[1] // PATCH
    compared = agreeing = 0
    for b, n in (truth["query_points"] % PATCH == PATCH // 2).all(-1).nonzero().tolist():
        x, y = truth["query_points"][b, n].long().tolist()
        for view in (1, 2):
            to = truth["tracks"][b, view, n].round().long()
            where = (to[1] // PATCH * columns + to[0] // PATCH).item() if truth["visible"][b, view, n] else UNSEEN
            compared += 1
            agreeing += int(target[b, 0, view, y // PATCH * columns + x // PATCH] == where)
    assert compared > 10
    assert agreeing >= 0.9 * compared  # the two tell grazing occlusions by different tolerances


def test_a_patch_matches_itself(truth: dict[str, Tensor]) -> None:
    target = matching_patches(truth, PATCH)
    own = torch.arange(target.shape[-1]).expand(3, -1)
    assert all(torch.equal(target[:, view, view], own) for view in range(3))


def test_displacements_lead_to_the_first_view(truth: dict[str, Tensor]) -> None:
    """None within the first view; from others, to where the point projects, in a plain loop."""
    shift, near = displacement_to_first(truth, 4)
    torch.testing.assert_close(shift[:, 0], torch.zeros_like(shift[:, 0]), atol=1e-3, rtol=0)
    assert near[:, 0].all()
    for b, view, row, column in ((0, 1, 2, 3), (1, 2, 5, 0), (2, 1, 7, 11)):
        v, u = 2 + 4 * row, 2 + 4 * column
        point = truth["intrinsics"][b, 0] @ truth["world_points"][b, view, v, u]
        expected = point[:2] / point[2] - torch.tensor([u, v])
        torch.testing.assert_close(shift[b, view, row, column], expected, atol=1e-3, rtol=1e-4)
