"""The renderer against closed forms, and its ground truth against itself."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vggtkit.core.errors import InputError
from vggtkit.scenes.layout import draws_needed, lay_out
from vggtkit.scenes.raycast import Solids, cast
from vggtkit.scenes.scene import Scene, fingerprint
from vggtkit.scenes.synthetic import render_batch, render_scene, split_seed, synthetic_scenes
from vggtkit.scenes.textures import SURFACE_DRAWS, surface_table

SIZE = (48, 64)


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    return render_batch(6, 3, SIZE, generator_seed=11, tracks=64, supersample=1)


def _project(batch: dict[str, Tensor], points: Tensor, view: int) -> tuple[Tensor, Tensor]:
    """Pixel coordinates (centre of pixel 0 at 0) and z of points ``[B, M, 3]``, in float64."""
    extrinsics, intrinsics = batch["extrinsics"][:, view].double(), batch["intrinsics"][:, view].double()
    local = points.double() @ extrinsics[:, :, :3].mT + extrinsics[:, None, :, 3]
    image = local @ intrinsics.mT
    return image[..., :2] / image[..., 2:], local[..., 2]


def _solids(**changes: Tensor) -> Solids:
    """A room of 8 x 4 x 8 units with nothing in it, unless changed."""
    empty = Solids(
        room=torch.tensor([[4.0, 2.0, 4.0]]),
        box_centre=torch.zeros(1, 0, 3),
        box_half=torch.zeros(1, 0, 3),
        box_yaw=torch.zeros(1, 0),
        sphere_centre=torch.zeros(1, 0, 3),
        sphere_radius=torch.zeros(1, 0),
    )
    return dataclasses.replace(empty, **changes)


def _cast_one(solids: Solids, origin: list[float], direction: list[float]) -> tuple[float, int]:
    rays = torch.tensor(direction)[:, None]
    hits = cast(solids, torch.tensor([[origin]]), torch.eye(3).expand(1, 1, 3, 3), rays)
    return hits.t.item(), int(hits.surface.item())


@pytest.mark.parametrize(
    ("origin", "direction", "t", "face"),
    [
        ([0.0, 0.0, 0.0], [0.0, 0.0, 1.0], 4.0, 5),
        ([1.0, 0.0, 0.0], [3.0, 0.5, 1.0], 1.0, 1),
        ([1.0, 0.0, 0.0], [-2.5, 0.5, 1.0], 2.0, 0),
        ([0.0, 1.0, 0.0], [0.0, 2.0, 1.0], 0.5, 3),
        ([0.0, 1.0, 0.0], [0.1, -6.0, 1.0], 0.5, 2),
    ],
)
def test_ray_leaves_the_room_where_geometry_says(
    origin: list[float], direction: list[float], t: float, face: int
) -> None:
    assert _cast_one(_solids(), origin, direction) == (pytest.approx(t), face)


def test_ray_meets_a_sphere_at_the_nearer_root() -> None:
    """Along z at impact parameter 0.3 a sphere of radius 0.5 at z = 2 is met at 2 - sqrt(.25 - .09) = 1.6."""
    solids = _solids(sphere_centre=torch.tensor([[[0.3, 0.0, 2.0]]]), sphere_radius=torch.tensor([[0.5]]))
    assert _cast_one(solids, [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]) == (pytest.approx(1.6), 6)
    assert _cast_one(solids, [-0.3, 0.0, 0.0], [0.0, 0.0, 1.0])[1] == 5, "a miss goes on to the wall"


def test_ray_does_not_meet_what_is_behind_it() -> None:
    solids = _solids(
        sphere_centre=torch.tensor([[[0.0, 0.0, -2.0]]]),
        sphere_radius=torch.tensor([[0.5]]),
        box_centre=torch.tensor([[[0.0, 0.0, -3.0]]]),
        box_half=torch.full((1, 1, 3), 0.5),
        box_yaw=torch.zeros(1, 1),
    )
    assert _cast_one(solids, [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]) == (pytest.approx(4.0), 5)


@pytest.mark.parametrize(("yaw", "t"), [(0.0, 1.5), (math.pi / 4, 2 - math.sqrt(0.5)), (math.pi / 2, 1.5)])
def test_ray_meets_a_turned_cube_at_its_face_or_edge(yaw: float, t: float) -> None:
    """A cube of side 1 at z = 2 begins at 1.5; turned by 45 degrees, its edge begins at 2 - sqrt(1/2)."""
    solids = _solids(
        box_centre=torch.tensor([[[0.0, 0.0, 2.0]]]),
        box_half=torch.full((1, 1, 3), 0.5),
        box_yaw=torch.tensor([[yaw]]),
    )
    got, surface = _cast_one(solids, [0.0, 0.0, 0.0], [1e-5, 0.0, 1.0])
    assert got == pytest.approx(t, abs=1e-4)
    assert 6 <= surface < 12


def test_yaw_turns_a_long_box_the_right_way() -> None:
    """Half extents (1, .5, .25) turned by +90 degrees about y (down): the long side then lies along z."""
    solids = _solids(
        box_centre=torch.tensor([[[0.0, 0.0, 2.0]]]),
        box_half=torch.tensor([[[1.0, 0.5, 0.25]]]),
        box_yaw=torch.tensor([[math.pi / 2]]),
    )
    assert _cast_one(solids, [0.01, 0.0, 0.0], [0.0, 0.0, 1.0])[0] == pytest.approx(1.0, abs=1e-5)


def test_normals_face_the_camera() -> None:
    """Holds for every first hit of a solid, and fails if geometry and shading disagree about a rotation."""
    draws = torch.rand(20, draws_needed(2), generator=torch.Generator().manual_seed(4))
    layout = lay_out(draws, 2, 1.0)
    rays = torch.cat([torch.rand(2, 500, generator=torch.Generator().manual_seed(5)) - 0.5, torch.ones(1, 500)])
    hits = cast(layout.solids, layout.cameras.centre, layout.cameras.rotation.mT, rays)
    table = surface_table(layout.solids, torch.zeros(20, layout.solids.surfaces, SURFACE_DRAWS))
    columns = table[:4, torch.arange(20)[:, None, None], hits.surface]
    points = layout.cameras.centre[..., None] + hits.direction * hits.t[:, :, None]
    normals = columns[:3] + columns[3] * points.permute(2, 0, 1, 3)
    assert_close(normals.norm(dim=0), torch.ones_like(hits.t), rtol=0, atol=1e-4)
    assert ((normals * hits.direction.permute(2, 0, 1, 3)).sum(0) < 1e-4).all()
    assert (hits.surface >= 6).float().mean() > 0.1, "objects must be among what is seen"


def test_everything_is_finite_and_in_range(batch: dict[str, Tensor]) -> None:
    assert all(value.isfinite().all() for value in batch.values())
    assert batch["images"].amin() >= 0
    assert batch["images"].amax() <= 1
    assert (batch["depth"] > 0).all()


def test_images_have_texture_in_every_view(batch: dict[str, Tensor]) -> None:
    assert (batch["images"].std(dim=(-1, -2)).mean(2) > 0.03).all()


def test_first_camera_is_the_world(batch: dict[str, Tensor]) -> None:
    expected = torch.eye(4)[:3].expand_as(batch["extrinsics"][:, 0])
    assert_close(batch["extrinsics"][:, 0], expected, rtol=0, atol=0)


def test_rotations_are_rotations(batch: dict[str, Tensor]) -> None:
    rotation = batch["extrinsics"][..., :3]
    assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), rtol=0, atol=1e-5)
    assert_close(torch.linalg.det(rotation), torch.ones(rotation.shape[:2]))


def test_mean_distance_is_one(batch: dict[str, Tensor]) -> None:
    assert_close(batch["world_points"].norm(dim=-1).mean((1, 2, 3)), torch.ones(6), rtol=0, atol=1e-5)


@pytest.mark.parametrize("view", [0, 1, 2])
def test_world_points_project_onto_their_pixel_centres(batch: dict[str, Tensor], view: int) -> None:
    pixels, z = _project(batch, batch["world_points"][:, view].flatten(1, 2), view)
    v, u = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    expected = torch.stack([u, v], -1).flatten(0, 1).double().expand_as(pixels)
    assert_close(pixels, expected, rtol=0, atol=1e-3)
    assert_close(z, batch["depth"][:, view].flatten(1).double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("view", [0, 1, 2])
def test_tracks_are_projections_of_the_queried_points(batch: dict[str, Tensor], view: int) -> None:
    x, y = batch["query_points"].long().unbind(-1)
    points = batch["world_points"][torch.arange(6)[:, None], 0, y, x]
    pixels, z = _project(batch, points, view)
    ahead = z > 0.1
    assert_close(batch["tracks"][:, view].double()[ahead], pixels[ahead], rtol=1e-4, atol=2e-3)


def test_queries_are_distinct_pixels_seen_in_the_first_view(batch: dict[str, Tensor]) -> None:
    queries = batch["query_points"]
    assert_close(queries, queries.round())
    assert_close(batch["tracks"][:, 0], queries)
    assert batch["visible"][:, 0].all()
    assert all(len(points.unique(dim=0)) > 60 for points in queries)


def test_visible_tracks_agree_with_the_depth_around_them(batch: dict[str, Tensor]) -> None:
    """The depth of a visible point lies within its 3 x 3 neighbourhood."""
    x, y = batch["query_points"].long().unbind(-1)
    points = batch["world_points"][torch.arange(6)[:, None], 0, y, x]
    for view in (1, 2):
        _, z = _project(batch, points, view)
        depth = batch["depth"][:, view : view + 1]
        near = -torch.nn.functional.max_pool2d(-depth, 3, 1, 1)[:, 0]
        far = torch.nn.functional.max_pool2d(depth, 3, 1, 1)[:, 0]
        for scene, point in batch["visible"][:, view].nonzero().tolist():
            column, row = batch["tracks"][scene, view, point].round().long().tolist()
            row, column = min(max(row, 0), SIZE[0] - 1), min(max(column, 0), SIZE[1] - 1)
            assert near[scene, row, column] * 0.97 <= z[scene, point] <= far[scene, row, column] * 1.03


def test_hidden_points_are_outside_or_behind_something(batch: dict[str, Tensor]) -> None:
    x, y = batch["query_points"].long().unbind(-1)
    points = batch["world_points"][torch.arange(6)[:, None], 0, y, x]
    occluded = 0
    for view in (1, 2):
        pixels, z = _project(batch, points, view)
        limit = torch.tensor([SIZE[1], SIZE[0]])
        inside = ((pixels >= 0) & (pixels < limit)).all(-1) & (z > 0)
        for scene, point in (inside & ~batch["visible"][:, view]).nonzero().tolist():
            column, row = pixels[scene, point].floor().long().tolist()
            window = batch["depth"][scene, view, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            assert window.min() < z[scene, point]
            occluded += 1
    assert occluded > 0, "the scenes should contain occlusions"


def test_views_overlap(batch: dict[str, Tensor]) -> None:
    assert batch["visible"][:, 1:].float().mean() > 0.4


def test_colours_follow_the_tracks_on_average(batch: dict[str, Tensor]) -> None:
    """Textures move with the surfaces: visible points look alike in both views, arbitrary ones do not."""
    images = batch["images"]
    scene, point = batch["visible"][:, 1].nonzero(as_tuple=True)
    x0, y0 = batch["query_points"][scene, point].long().unbind(-1)
    x1, y1 = batch["tracks"][scene, 1, point].round().long().unbind(-1)
    x1, y1 = x1.clamp(0, SIZE[1] - 1), y1.clamp(0, SIZE[0] - 1)
    matched = (images[scene, 0, :, y0, x0] - images[scene, 1, :, y1, x1]).abs().mean()
    unmatched = (images[scene, 0, :, y0, x0] - images[scene, 1, :, y1.roll(7), x1.roll(7)]).abs().mean()
    assert matched < 0.5 * unmatched


@pytest.mark.parametrize("baseline", [0.0, 1.0, 4.0])
def test_cameras_are_in_the_room_and_outside_every_object(baseline: float) -> None:
    draws = torch.rand(200, draws_needed(4), generator=torch.Generator().manual_seed(3))
    layout = lay_out(draws, 4, baseline)
    centre, solids = layout.cameras.centre, layout.solids
    assert (centre.abs() < solids.room[:, None]).all()
    spheres = (centre[:, :, None] - solids.sphere_centre[:, None]).norm(dim=-1) - solids.sphere_radius[:, None]
    corner = solids.box_half[..., [0, 2]].norm(dim=-1)[:, None]
    boxes = (centre[:, :, None] - solids.box_centre[:, None])[..., [0, 2]].norm(dim=-1) - corner
    assert spheres.min() > 0.2
    assert boxes.min() > 0.2
    objects = (solids.box_centre[..., 1] < 100).sum(1) + (solids.sphere_centre[..., 1] < 100).sum(1)
    assert objects.amax() <= 6
    assert (objects >= 2).float().mean() > 0.95


def test_baseline_scales_the_distance_between_cameras() -> None:
    def spread(baseline: float) -> Tensor:
        scenes = render_batch(8, 2, (8, 8), generator_seed=5, baseline=baseline, supersample=1)
        return scenes["extrinsics"][:, 1, :, 3].norm(dim=-1).mean()

    assert spread(0.25) < 0.5 * spread(1.0)


def test_same_seed_gives_the_same_bytes_whatever_the_global_generator_does() -> None:
    first = render_scene(21, views=2, size=(32, 32))
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = render_scene(21, views=2, size=(32, 32))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert fingerprint([first]) == fingerprint([again])
    assert fingerprint([first]) != fingerprint([render_scene(22, views=2, size=(32, 32))])


def test_fewer_scenes_are_the_first_of_more() -> None:
    two = synthetic_scenes(2, 2, (16, 16), seed=1, split="calibration")
    three = synthetic_scenes(3, 2, (16, 16), seed=1, split="calibration")
    assert [scene.name for scene in two] == [scene.name for scene in three[:2]]
    assert fingerprint(two) == fingerprint(three[:2])


def test_batch_and_single_scene_agree() -> None:
    one, many = render_scene(6, 2, (24, 24)), render_batch(3, 2, (24, 24), generator_seed=6)
    assert one.truth is not None
    assert_close(one.truth.depth, many["depth"][0], rtol=1e-4, atol=1e-5)
    assert (one.images - many["images"][0]).abs().mean() < 1e-3


def test_geometry_does_not_depend_on_how_rays_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = render_batch(2, 2, (20, 28), generator_seed=4)
    monkeypatch.setattr("vggtkit.scenes.synthetic.CHUNK_RAYS", 100)
    pieces = render_batch(2, 2, (20, 28), generator_seed=4)
    assert_close(pieces["depth"], whole["depth"], rtol=1e-5, atol=1e-5)
    assert_close(pieces["images"], whole["images"], rtol=0, atol=1e-2)


def test_splits_never_share_a_stream() -> None:
    """Their seeds differ in the top two of the 32 bits that torch's generator uses; 0 is everyone's."""
    splits = ("calibration", "evaluation", "training")
    prefixes = [{split_seed(split, seed) >> 30 for seed in range(500)} for split in splits]
    assert prefixes == [{1}, {2}, {3}]
    calibration = synthetic_scenes(1, 1, (16, 16), seed=0, split="calibration")
    assert fingerprint(calibration) != fingerprint(synthetic_scenes(1, 1, (16, 16), split="evaluation"))


def test_supersampling_changes_colours_only() -> None:
    plain = render_batch(1, 2, (32, 32), generator_seed=8, supersample=1)
    fine = render_batch(1, 2, (32, 32), generator_seed=8, supersample=3)
    assert not torch.equal(plain["images"], fine["images"])
    assert all(torch.equal(plain[key], fine[key]) for key in plain if key != "images")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count of at least 1, got 0"),
        ({"size": (0, 8)}, "height of at least 1, got 0"),
        ({"baseline": -1.0}, "baseline"),
        ({"generator_seed": -1}, "generator_seed is -1"),
        ({"generator_seed": 2**30}, "between 0 and 1073741823"),
    ],
)
def test_wrong_input_is_refused_by_name(arguments: dict[str, object], message: str) -> None:
    valid: dict[str, object] = {"count": 1, "views": 1, "size": (8, 8), "generator_seed": 0}
    with pytest.raises(InputError, match=message):
        render_batch(**(valid | arguments))  # type: ignore[arg-type]


def test_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown split 'test'.*calibration, evaluation, training"):
        synthetic_scenes(1, 1, (8, 8), split="test")  # type: ignore[arg-type]


def test_no_query_points_is_fine() -> None:
    scene: Scene = render_scene(0, views=2, size=(8, 8), tracks=0)
    assert scene.query_points.shape == (0, 2)
