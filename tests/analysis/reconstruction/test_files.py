"""Files are read back by others: Pillow, numpy, COLMAP, trimesh."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.reconstruction.cloud import Cloud, cloud_of, write_ply
from analysis.reconstruction.colmap import write_model
from analysis.reconstruction.depth_files import write_archive, write_depth_pictures
from analysis.reconstruction.pictures import PlacedPicture
from analysis.reconstruction.views import Views
from tests.analysis.reconstruction.known import HEIGHT, WIDTH, points_by_hand
from vggtkit.scenes.colmap import read_text_model

SHOWN = np.ones((5, HEIGHT, WIDTH), dtype=np.bool_)
SHOWN[:, :, :2] = False
PICTURES = [PlacedPicture(f"photo {number}.jpg", (64, 40), (WIDTH, 10), (0, 1)) for number in range(5)]


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def cloud(views: Views) -> Cloud:
    return cloud_of(views, images(), SHOWN, 30)


def test_depth_pictures_hold_depth_within_half_a_step(views: Views, tmp_path: Path) -> None:
    depth = np.where(SHOWN, views.depth, 0).astype(np.float32)
    step = write_depth_pictures(depth, ["a", "b", "c", "d", "e"], tmp_path)
    for values, name in zip(depth, "abcde", strict=True):
        stored = np.asarray(Image.open(tmp_path / f"{name}.png"))
        assert stored.dtype == np.uint16
        assert np.abs(stored * step - values).max() <= step / 2 * (1 + 1e-5)
        np.testing.assert_array_equal(stored == 0, values == 0)
    assert step == pytest.approx(depth.max() / 65535)


def test_the_cloud_is_the_surest_pixels(views: Views, cloud: Cloud) -> None:
    """By hand: the pixels sorted by confidence, all pictures together, the first 30 % left out."""
    shown = views.confidence[SHOWN]
    expected = np.sort(shown)[int(np.ceil(0.3 * (shown.size - 1))) :]
    np.testing.assert_array_equal(np.sort(cloud.confidence), expected)
    for number, (column, row), point, colour in zip(
        cloud.views, cloud.pixels, cloud.points, cloud.colours, strict=True
    ):
        np.testing.assert_allclose(point, points_by_hand(views, number)[row, column], atol=1e-5)
        np.testing.assert_array_equal(colour, images()[number, row, column])


def test_the_archive_holds_everything(views: Views, tmp_path: Path) -> None:
    write_archive(views, [picture.name for picture in PICTURES], SHOWN, tmp_path / "views.npz")
    with np.load(tmp_path / "views.npz") as file:
        for name in ("depth", "confidence", "extrinsics", "intrinsics"):
            np.testing.assert_array_equal(file[name], getattr(views, name))
        assert list(file["names"]) == [picture.name for picture in PICTURES]


def test_ply_is_read_by_trimesh(cloud: Cloud, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh", reason="trimesh comes with viser, the extra 'view'")
    write_ply(cloud, tmp_path / "points.ply")
    read = trimesh.load(tmp_path / "points.ply")
    np.testing.assert_array_equal(read.vertices.astype(np.float32), cloud.points)
    np.testing.assert_array_equal(read.colors[:, :3], cloud.colours)


def test_colmap_reads_cameras_and_points(views: Views, cloud: Cloud, tmp_path: Path) -> None:
    """Points fall where they were seen, in pixels of the file, when COLMAP projects them."""
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is in the extra 'dev', and has no wheel here")
    assert write_model(views, PICTURES, cloud, tmp_path) == len(cloud)
    model = pycolmap.Reconstruction(str(tmp_path))
    assert [model.images[number + 1].name for number in range(5)] == [f"photo_{number}.jpg" for number in range(5)]
    assert len(model.points3D) == len(cloud)
    for number in range(5):
        image = model.images[number + 1]
        np.testing.assert_allclose(image.cam_from_world().matrix(), views.extrinsics[number], atol=1e-9)
        own = np.flatnonzero(cloud.views == number)
        assert image.num_points3D == len(own)
        for index, seen in zip(own, image.points2D, strict=True):
            assert seen.point3D_id == index + 1
            column, row = cloud.pixels[index]
            np.testing.assert_allclose(seen.xy, [(column + 0.5) * 4, (row - 1 + 0.5) * 4], atol=0.006)
            projected = image.project_point(model.points3D[seen.point3D_id].xyz)
            np.testing.assert_allclose(projected, seen.xy, atol=0.01)


def test_our_own_reader_takes_the_model(views: Views, cloud: Cloud, tmp_path: Path) -> None:
    write_model(views, PICTURES, cloud, tmp_path)
    read = read_text_model(tmp_path)
    assert [picture.name for picture in read] == [f"photo_{number}.jpg" for number in range(5)]
    for picture, extrinsics in zip(read, views.extrinsics, strict=True):
        np.testing.assert_allclose(picture.pose, extrinsics, atol=1e-9)


def test_a_model_of_many_points_has_an_even_choice(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.reconstruction.colmap.MOST_POINTS", 50)
    whole = cloud_of(views, images(), SHOWN, 0)
    assert write_model(views, PICTURES, whole, tmp_path) == 50
    lines = (tmp_path / "points3D.txt").read_text().splitlines()[1:]
    seen = [int(line.split()[8]) for line in lines]
    assert [seen.count(number) for number in range(1, 6)] == [10] * 5
