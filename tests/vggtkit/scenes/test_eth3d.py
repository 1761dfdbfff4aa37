"""ETH3D and COLMAP text models: cameras, depth of undistorted and of distorted pictures, what is refused."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import root
from scipy.spatial.transform import Rotation

from vggtkit.core.errors import InputError
from vggtkit.scenes import Scene, SceneSource, load_scenes
from vggtkit.scenes.eth3d import read_eth3d, thin_prism_fisheye

SIZE = (56, 42)
CAMERA = np.array([[60.0, 0, 27.25], [0, 58.0, 21.5], [0, 0, 1]])  # pixel centres at whole numbers
PINHOLE = "PINHOLE 56 42 60 58 27.75 22"  # the same, the centre of the first pixel at (0.5, 0.5)
LENS_SIZE = (64, 48)
LENS = (60.0, 59.0, 31.0, 24.5, 0.12, -0.05, 0.003, -0.002, 0.02, 0.01, 0.004, -0.003)


def load(folder: Path, split: str = "calibration", **options: object) -> list[Scene]:
    options = {"views": 3, "count": 1, **options}
    return load_scenes(SceneSource("eth3d", str(folder), **options), split, img_size=56, patch_size=14)


def write_model(folder: Path, camera: str, prefix: str, poses: np.ndarray) -> None:
    """Pictures in reverse order, as COLMAP does not sort them; every other one has keypoints."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(f"# Camera list\n1 PINHOLE 10 10 5 5 5 5\n7 {camera}\n")
    lines = ["# Image list with two lines of data per image:", "# IMAGE_ID, QW, QX, ..."]
    for index in reversed(range(len(poses))):
        inverted = np.linalg.inv(poses[index])
        x, y, z, w = Rotation.from_matrix(inverted[:3, :3]).as_quat()
        numbers = " ".join(f"{value:.12f}" for value in [w, x, y, z, *inverted[:3, 3]])
        lines += [f"{index + 1} {numbers} 7 {prefix}DSC_{index:04}.JPG", "3.5 4.5 -1" if index % 2 else ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")


def write_pictures(folder: Path, shade: Callable, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        shade(index, SIZE).save(folder / f"DSC_{index:04}.JPG", quality=100)


def simple(folder: Path, world, shade) -> None:
    write_model(folder, PINHOLE, "", world.poses)
    write_pictures(folder / "images", shade, 8)


def official(folder: Path, world, shade) -> None:
    """As the archives of ETH3D unpack."""
    write_model(folder / "dslr_calibration_undistorted", PINHOLE, "dslr_images_undistorted/", world.poses)
    write_pictures(folder / "images/dslr_images_undistorted", shade, 8)


@pytest.mark.parametrize("write", [simple, official])
@pytest.mark.parametrize("kind", ["by-name", "by-stem"])
def test_truth_equals_the_closed_form(tmp_path: Path, plane_world, shade, write, kind: str) -> None:
    write(tmp_path, plane_world, shade)
    depths = np.stack([plane_world.depth(view, CAMERA, SIZE) for view in range(8)])
    (tmp_path / "depth").mkdir()
    for view in range(8):
        holes = depths[view].copy()
        holes[5:15, 8:30] = np.inf
        holes[20, 20] = 0
        name = f"DSC_{view:04}.{'JPG' if kind == 'by-name' else 'bin'}"
        (tmp_path / "depth" / name).write_bytes(holes.astype("<f4").tobytes())
    depths[:, 5:15, 8:30] = depths[:, 20, 20] = 0
    (scene,) = load(tmp_path, "evaluation")
    assert (scene.images[:, 0, 1, 1] * 255).round().int().tolist() == [3, 4, 5]
    points, extrinsics, scale = plane_world.first_frame([3, 4, 5], CAMERA, depths[3:6])
    assert scene.truth is not None
    np.testing.assert_allclose(scene.truth.intrinsics, np.broadcast_to(CAMERA, (3, 3, 3)), rtol=1e-6)
    np.testing.assert_allclose(scene.truth.extrinsics, extrinsics[:, :3], atol=1e-6)
    np.testing.assert_allclose(scene.truth.depth, depths[3:6] / scale, atol=1e-6)
    np.testing.assert_allclose(scene.truth.world_points, points, atol=1e-5)


def test_scenes_without_depth_have_cameras(tmp_path: Path, plane_world, shade) -> None:
    for name in ("courtyard", "facade"):
        official(tmp_path / name, plane_world, shade)
    assert [recording.name for recording in read_eth3d(tmp_path)] == ["courtyard", "facade"]
    scenes = load(tmp_path, count=5)
    assert [scene.name for scene in scenes] == ["courtyard[0:3]", "facade[0:3]"]
    truth = scenes[0].truth
    assert truth is not None and not truth.depth.any()
    relative = np.linalg.inv(plane_world.poses[1]) @ plane_world.poses[0]
    np.testing.assert_allclose(truth.extrinsics[1, :, :3], relative[:3, :3], atol=1e-6)
    translation = truth.extrinsics[1, :, 3].double().numpy()
    np.testing.assert_allclose(np.cross(translation, relative[:3, 3]), 0, atol=1e-6)
    assert translation @ relative[:3, 3] > 0


def scalar_lens(u: float, v: float) -> tuple[float, float]:
    """The lens model as ETH3D's documentation has it, one ray at a time, by angles."""
    fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1 = LENS
    theta, phi = math.atan2(math.sqrt(u * u + v * v), 1), math.atan2(v, u)
    u, v = theta * math.cos(phi), theta * math.sin(phi)
    radial = 1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8
    x = u * radial + 2 * p1 * u * v + p2 * (theta**2 + 2 * u**2) + sx1 * theta**2
    y = v * radial + 2 * p2 * u * v + p1 * (theta**2 + 2 * v**2) + sy1 * theta**2
    return fx * x + cx, fy * y + cy


def test_lens_model_against_its_scalar_definition() -> None:
    rays = np.random.default_rng(0).uniform(-0.8, 0.8, (50, 2))
    ours = np.stack(thin_prism_fisheye(rays[:, 0], rays[:, 1], LENS), -1)
    np.testing.assert_allclose(ours, [scalar_lens(u, v) for u, v in rays], rtol=1e-12)


def test_official_depth_is_looked_up_through_the_lens(tmp_path: Path, plane_world, shade) -> None:
    """Depth is rendered for the distorted picture, whose rays scipy finds; the truth must fit the undistorted one."""
    official(tmp_path, plane_world, shade)
    lens = "THIN_PRISM_FISHEYE 64 48 " + " ".join(map(str, LENS))
    write_model(tmp_path / "dslr_calibration_jpg", lens, "dslr_images/", plane_world.poses)
    rays = np.ones((LENS_SIZE[1], LENS_SIZE[0], 3))
    for v, u in np.ndindex(rays.shape[:2]):
        seen = (u + 0.5, v + 0.5)
        start = [(seen[0] - LENS[2]) / LENS[0], (seen[1] - LENS[3]) / LENS[1]]
        rays[v, u, :2] = root(lambda ray, seen=seen: np.subtract(scalar_lens(*ray), seen), start).x
    (tmp_path / "ground_truth_depth/dslr_images").mkdir(parents=True)
    for view in range(3):
        distorted = plane_world.depth_along(view, rays)
        distorted[:4] = np.inf
        name = f"ground_truth_depth/dslr_images/DSC_{view:04}.JPG"
        (tmp_path / name).write_bytes(distorted.astype("<f4").tobytes())
    (scene,) = load(tmp_path)
    assert scene.truth is not None
    expected = np.stack([plane_world.depth(view, CAMERA, SIZE) for view in range(3)])
    depth = scene.truth.depth.numpy()
    found = depth > 0
    assert 0.9 < found.mean() < 1 and not found[:, 0, 28].any()
    ratio = depth[found] / expected[found]
    assert abs(ratio / np.median(ratio) - 1).max() < 0.004  # half a pixel on this plane
    assert abs(ratio / np.median(ratio) - 1).mean() < 0.0015


def put(name: str, text: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "cameras.txt").unlink(), "list of cameras .* is missing"),
        (lambda folder: (folder / "images.txt").unlink(), "list of pictures .* is missing"),
        (lambda folder: (folder / "images/DSC_0002.JPG").unlink(), "DSC_0002.JPG' is missing"),
        (put("cameras.txt", "7 PINHOLE 56 42 60 58 28"), "line 1: a PINHOLE camera has 4"),
        (put("cameras.txt", "7 PINHOLE 56 wide"), "line 1 is no camera"),
        (put("cameras.txt", "7 PINHOLE 56 42 -60 58 28 22"), "focal lengths -60 and 58"),
        (put("cameras.txt", "7 OPENCV 56 42 60 58 28 22 0 0 0 0"), r"distorted camera \(OPENCV\)"),
        (put("cameras.txt", "8 " + PINHOLE), "camera 7, which cameras.txt does not list"),
        (put("cameras.txt", "7 PINHOLE 112 84 60 58 28 22"), "is 56x42 pixels, its camera is for 112x84"),
        (put("images.txt", "# nothing\n"), "lists no picture"),
        (put("images.txt", "1 1 0 0 0 0 0 0\n\n"), "line 1 is no picture"),
        (put("images.txt", "\n1 0 0 0 0 0 0 0 7 DSC_0000.JPG\n\n"), "line 2: .* not finite"),
        (put("depth/DSC_0000.JPG", "short"), "has 5 bytes, 56x42 pixels of float32 have 9408"),
        (put("ground_truth_depth/dslr_images/DSC_0000.JPG", "x"), "belongs to the distorted pictures: add"),
    ],
)
def test_faulty_scenes_are_refused(tmp_path: Path, plane_world, shade, spoil, reason: str) -> None:
    simple(tmp_path, plane_world, shade)
    spoil(tmp_path)
    with pytest.raises(InputError, match=reason) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_official_depth_needs_the_lens_of_its_own_picture(tmp_path: Path, plane_world, shade) -> None:
    official(tmp_path, plane_world, shade)
    put("ground_truth_depth/dslr_images/DSC_0005.JPG", "x")(tmp_path)
    write_model(tmp_path / "dslr_calibration_jpg", PINHOLE, "dslr_images/", plane_world.poses)
    with pytest.raises(InputError, match=r"the camera model PINHOLE for 'DSC_0005.JPG'"):
        read_eth3d(tmp_path)
    write_model(tmp_path / "dslr_calibration_jpg", PINHOLE, "dslr_images/", plane_world.poses[:2])
    with pytest.raises(InputError, match=r"no camera for 'DSC_0005.JPG'"):
        read_eth3d(tmp_path)


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no COLMAP text model"):
        read_eth3d(tmp_path)
