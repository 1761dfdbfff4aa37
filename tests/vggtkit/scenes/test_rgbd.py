"""RGB-D folders of the three layouts: truth against closed forms, and what is refused."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from vggtkit.core.errors import InputError
from vggtkit.scenes import Scene, SceneSource, load_scenes
from vggtkit.scenes.cameras import rotation_from_wxyz
from vggtkit.scenes.ground_truth import prepare_views
from vggtkit.scenes.recording import Frame
from vggtkit.scenes.rgbd import read_rgbd

SIZE = (56, 42)
CAMERA = np.array([[60.0, 0, 27.25], [0, 58.0, 21.5], [0, 0, 1]])


def load(folder: Path, split: str = "calibration", img_size: int = 56, **options: object) -> list[Scene]:
    return load_scenes(SceneSource("rgbd", str(folder), **options), split, img_size=img_size, patch_size=14)


def write_depth(path: Path, depth: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(depth.round().astype(np.uint16)).save(path)


def plain(folder: Path, world, shade, depths: np.ndarray) -> None:
    (folder / "images").mkdir()
    for index, depth in enumerate(depths):
        shade(index, SIZE).save(folder / f"images/{index:03}.png")
        write_depth(folder / f"depth/{index:03}.png", depth * 1000)
    np.savetxt(folder / "K.txt", CAMERA)
    np.savetxt(folder / "poses.txt", world.poses[: len(depths)].reshape(-1, 16), fmt="%.9f")


def world_to_camera(folder: Path, world, shade, depths: np.ndarray) -> None:
    """The other direction of poses, another unit, and the short form of the camera."""
    plain(folder, world, shade, depths)
    (folder / "poses.txt").unlink()
    inverted = np.linalg.inv(world.poses[: len(depths)])
    np.savetxt(folder / "poses_world_to_camera.txt", inverted.reshape(-1, 16), fmt="%.9f")
    for index, depth in enumerate(depths):
        write_depth(folder / f"depth/{index:03}.png", depth * 5000)
    (folder / "depth_scale.txt").write_text("5000\n")
    (folder / "K.txt").write_text("60 58 27.25 21.5\n")


def tum(folder: Path, world, shade, depths: np.ndarray) -> None:
    """Pictures every 0.1 s; depth 0.01 s late, poses 0.015 s early; one picture too many at the end."""
    (folder / "rgb").mkdir()
    colours, stored, path = ["# colour images"], ["# depth maps"], ["# timestamp tx ty tz qx qy qz qw"]
    for index, depth in enumerate(depths):
        time = 1305031102.0 + 0.1 * index
        shade(index, SIZE).save(folder / f"rgb/{time:.6f}.png")
        write_depth(folder / f"depth/{time + 0.01:.6f}.png", depth * 5000)
        colours.append(f"{time:.6f} rgb/{time:.6f}.png")
        stored.append(f"{time + 0.01:.6f} depth/{time + 0.01:.6f}.png")
        quaternion = Rotation.from_matrix(world.poses[index, :3, :3]).as_quat()  # xyzw
        numbers = " ".join(f"{value:.9f}" for value in [*world.poses[index, :3, 3], *quaternion])
        path += [f"{time - 0.015:.6f} {numbers}", f"{time + 0.05:.6f} 9 9 9 0 0 0 1"]
    colours.append("1305031202.000000 rgb/without-a-pose.png")
    for name, lines in (("rgb.txt", colours), ("depth.txt", stored), ("groundtruth.txt", path)):
        (folder / name).write_text("\n".join(lines) + "\n")
    np.savetxt(folder / "K.txt", CAMERA)


def seven_scenes(folder: Path, world, shade, depths: np.ndarray) -> None:
    for index, depth in enumerate(depths):
        shade(index, SIZE).save(folder / f"frame-{index:06}.color.png")
        write_depth(folder / f"frame-{index:06}.depth.png", np.where(depth > 0, depth * 1000, 65535))
        np.savetxt(folder / f"frame-{index:06}.pose.txt", world.poses[index])
    np.savetxt(folder / "K.txt", CAMERA)


LAYOUTS = [plain, world_to_camera, tum, seven_scenes]


@pytest.fixture
def depths(plane_world) -> np.ndarray:
    """Depth of all views with a hole in each."""
    found = np.stack([plane_world.depth(view, CAMERA, SIZE) for view in range(8)])
    found[:, 5:15, 8:30] = 0
    assert (found >= 0).all()
    return found


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_truth_equals_the_closed_form(tmp_path: Path, plane_world, shade, depths, write: Callable[..., None]) -> None:
    write(tmp_path, plane_world, shade, depths)
    for split, views in (("calibration", [0, 1, 2]), ("evaluation", [3, 4, 5])):
        (scene,) = load(tmp_path, split, views=3, count=1)
        assert scene.name == f"{tmp_path.name}[{views[0]}:{views[-1] + 1}]"
        shown = (scene.images[:, 0, 20, 20] * 255).round().int().tolist()
        assert shown == views
        points, extrinsics, scale = plane_world.first_frame(views, CAMERA, depths[views])
        truth = scene.truth
        assert truth is not None
        np.testing.assert_allclose(truth.intrinsics, np.broadcast_to(CAMERA, (3, 3, 3)), rtol=1e-6)
        np.testing.assert_allclose(truth.extrinsics, extrinsics[:, :3], atol=1e-3)
        assert torch.equal(truth.extrinsics[0], torch.eye(3, 4))
        np.testing.assert_allclose(truth.depth, depths[views] / scale, atol=1e-3)  # stored in millimetres
        np.testing.assert_allclose(truth.world_points, points, atol=2e-3)
        np.testing.assert_array_equal(truth.depth == 0, depths[views] == 0)
        assert (truth.world_points[truth.depth == 0] == 0).all()
        assert truth.world_points[truth.depth > 0].norm(dim=-1).mean().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("rgbd_dataset_freiburg1_desk", (517.3, 516.5, 318.6, 255.3)),
        ("rgbd_dataset_freiburg3_office", (535.4, 539.2, 320.1, 247.6)),
        ("elsewhere", (525.0, 525.0, 319.5, 239.5)),
    ],
)
def test_tum_cameras_follow_the_name(tmp_path: Path, plane_world, shade, depths, name, camera) -> None:
    folder = tmp_path / name
    folder.mkdir()
    tum(folder, plane_world, shade, depths)
    (folder / "K.txt").unlink()
    matrix = read_rgbd(folder)[0].frames[0].intrinsics
    assert matrix[[0, 1, 0, 1], [0, 1, 2, 2]].tolist() == list(camera)


def test_sequences_in_subfolders_are_recordings_of_their_own(tmp_path: Path, plane_world, shade, depths) -> None:
    for name in ("seq-01", "seq-02", "unrelated"):
        (tmp_path / name).mkdir()
    for name in ("seq-01", "seq-02"):
        seven_scenes(tmp_path / name, plane_world, shade, depths[:3])
        (tmp_path / name / "K.txt").unlink()
    recordings = read_rgbd(tmp_path)
    assert [(recording.name, len(recording.frames)) for recording in recordings] == [("seq-01", 3), ("seq-02", 3)]
    assert recordings[0].frames[0].intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]].tolist() == [585, 585, 320, 240]
    assert [load(tmp_path, split, views=3)[0].name for split in ("calibration", "evaluation")] == [
        "seq-01[0:3]",
        "seq-02[0:3]",
    ]


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("size", [(80, 60), (60, 80), (97, 41), (41, 97)], ids=str)
def test_intrinsics_and_depth_move_with_the_picture(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    """A bright blob: its centroid in the prepared picture is where the new intrinsics put the old one.

    The depth is 2 on the blob and 1 elsewhere, so it must turn up under the blob too, and nowhere on the white.
    """
    spot = np.array([size[0] // 2 - 6, size[1] // 2 + 5])
    stored = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    stored[spot[1] - 4 : spot[1] + 5, spot[0] - 4 : spot[0] + 5] = 255
    Image.fromarray(stored).save(tmp_path / "a.png")
    camera = np.array([[90.0, 0, 30], [0, 80.0, 33], [0, 0, 1]])

    def depth(x: np.ndarray, y: np.ndarray, picture: tuple[int, int]) -> np.ndarray:
        assert picture == size
        assert (x > -0.5).all() and (y > -0.5).all() and (x < size[0] - 0.5).all() and (y < size[1] - 0.5).all()
        return np.where((abs(x - spot[0]) < 4.5) & (abs(y - spot[1]) < 4.5), 2.0, 1.0)

    frame = Frame(tmp_path / "a.png", camera, np.eye(4), depth)
    canvas = (70, 70)  # as beside a square picture
    images, truth = prepare_views([frame], canvas, mode=mode, target_size=70, patch_size=14)
    assert images.shape == (1, 3, canvas[1], canvas[0])
    expected = (truth.intrinsics[0].double().numpy() @ np.linalg.inv(camera) @ [*spot, 1])[:2]
    y, x = np.mgrid[: canvas[1], : canvas[0]]
    white = truth.depth[0].numpy() == 0
    assert (images[0, 0].numpy()[white] == 1).all()
    assert images[0, 0].numpy()[~white].mean() < 0.5
    light = np.where(white, 0, images[0, 0].numpy())
    centroid = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
    np.testing.assert_allclose(centroid, expected, atol=0.05)  # 8-bit rounding shifts it by 0.03
    near = truth.depth[0].numpy() > truth.depth[0].numpy()[~white].min() * 1.5
    assert ((light > 0.5) == near).mean() > 0.99
    np.testing.assert_allclose([x[near].mean(), y[near].mean()], expected, atol=0.5)


def test_without_depth_the_cameras_set_the_scale(tmp_path: Path) -> None:
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, :3, :3] = Rotation.random(3, random_state=0).as_matrix()
    poses[:, :3, 3] = [[1, 1, 1], [4, 1, 1], [1, 1, 6]]
    frames = [Frame(tmp_path / "a.png", CAMERA, np.linalg.inv(pose)) for pose in poses]
    _, truth = prepare_views(frames, SIZE, mode="crop", target_size=56, patch_size=14)
    rotation, translation = truth.extrinsics[..., :3], truth.extrinsics[..., 3]
    centres = -(rotation.transpose(1, 2) @ translation[..., None])[..., 0]
    np.testing.assert_allclose(centres.norm(dim=-1), [0, 3 / 4, 5 / 4], atol=1e-6)
    assert not truth.depth.any() and not truth.world_points.any()


@pytest.mark.parametrize("seed", range(3))
def test_quaternions_against_scipy(seed: int) -> None:
    x, y, z, w = Rotation.random(random_state=seed).as_quat()
    ours = rotation_from_wxyz(3 * w, 3 * x, 3 * y, 3 * z)
    np.testing.assert_allclose(ours, Rotation.from_quat([x, y, z, w]).as_matrix(), atol=1e-12)


def test_stride_and_random_sampling_reach_the_frames(tmp_path: Path, plane_world, shade, depths) -> None:
    plain(tmp_path, plane_world, shade, depths)
    (scene,) = load(tmp_path, "evaluation", views=2, stride=2)
    assert (scene.images[:, 0, 0, 0] * 255).round().int().tolist() == [4, 6]
    assert scene.name.endswith("[4:7:2]")
    drawn = [load(tmp_path, split, views=2, sampling="random", seed=5) for split in ("calibration", "evaluation")]
    shown = [(view[0, 0, 0] * 255).round().int().item() for part in drawn for scene in part for view in scene.images]
    assert sorted(shown) == list(range(8)) != shown


def edit_poses(change: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        poses = np.loadtxt(folder / "poses.txt")
        change(poses)
        np.savetxt(folder / "poses.txt", poses)

    return spoil


def put(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def truncate(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-30])


def eight_bits(folder: Path) -> None:
    Image.new("L", SIZE).save(folder / "depth/002.png")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (edit_poses(lambda poses: poses.fill(np.nan)), r"no frame with .*poses.txt' line 1.*: .* not finite"),
        (edit_poses(lambda poses: np.multiply(poses, 2, out=poses)), r"line 1: the last row"),
        (edit_poses(lambda poses: poses[1].put([0, 1, 2], [1, 0, 0])), r"line 2: .* not a rotation"),
        (edit_poses(lambda poses: np.negative(poses[:, [0, 4, 8]], out=poses[:, :3])), r"not a rotation"),
        (lambda folder: shutil.copy(folder / "K.txt", folder / "poses.txt"), "3 poses for 8 pictures"),
        (put("poses.txt", "1 0 0\n" * 8), "line 1 has 3 numbers: a pose has 16"),
        (put("poses.txt", "1 0 zero 0\n"), "line 1 is not all numbers"),
        (lambda folder: (folder / "poses.txt").unlink(), "poses.txt' is missing"),
        (lambda folder: (folder / "K.txt").unlink(), "K.txt' is missing"),
        (put("K.txt", "1 2 3"), "has 3 numbers"),
        (put("K.txt", "-5 5 3 3"), "no pinhole camera"),
        (put("K.txt", "nan 5 3 3"), "no pinhole camera"),
        (put("depth_scale.txt", "0"), "one positive number"),
        (lambda folder: (folder / "depth/003.png").unlink(), "8 pictures but 7 depth"),
        (lambda folder: (folder / "depth/003.png").rename(folder / "depth/x.png"), "003.png' has no depth"),
        (lambda folder: shutil.rmtree(folder / "images"), "no folder images"),
        (lambda folder: write_depth(folder / "depth/002.png", np.ones((21, 28))), r"is 28x21 pixels, .* 56x42"),
        (eight_bits, "pixels of kind L"),
        (put("depth/002.png", "no png"), "002.png' cannot be read"),
        (put("images/002.png", "no png"), "cannot read the photograph"),
        (truncate("depth/002.png"), "depth/002.png' cannot be read"),
        (truncate("images/002.png"), "images/002.png'"),
        (lambda folder: (folder / "depth/002.png").write_bytes(b""), "depth/002.png' cannot be read"),
    ],
)
def test_faulty_recordings_are_refused(
    tmp_path: Path, plane_world, shade, depths, spoil: Callable[[Path], object], reason: str
) -> None:
    plain(tmp_path, plane_world, shade, depths)
    spoil(tmp_path)
    with pytest.raises(InputError, match=reason) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("groundtruth.txt", None, "camera path .* is missing"),
        ("depth.txt", None, "list of depth pictures .* is missing"),
        ("rgb.txt", None, "list of pictures .* is missing"),
        ("rgb.txt", "soon rgb/a.png\n", "rgb.txt' line 1 is not a time and a file"),
        ("groundtruth.txt", "1305031102.0 1 2 3\n", "line 1 is not a time and tx"),
        ("groundtruth.txt", "1305031102.0 1 2 3 0 0 0 0\n", "near time 1305031102.000000: .* not finite"),
        ("groundtruth.txt", "1305031102.0 1 2 3 0 0 0 w\n", "not all numbers"),
        ("groundtruth.txt", "1305031102.0 1 nan 3 0 0 0 1\n", "near time 1305031102.000000: .* not finite"),
        ("groundtruth.txt", "5.0 1 2 3 0 0 0 1\n", "no frame with a picture, depth and a pose"),
        ("rgb.txt", "1305031102.0 rgb/lost.png\n", "picture .*lost.png' is missing"),
        ("depth.txt", "1305031102.0 depth/lost.png\n", "depth picture .*lost.png' is missing"),
    ],
)
def test_faulty_tum_sequences_are_refused(tmp_path: Path, plane_world, shade, depths, name, text, reason) -> None:
    tum(tmp_path, plane_world, shade, depths)
    (tmp_path / name).unlink() if text is None else (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_seven_scenes_frames_without_depth_are_refused(tmp_path: Path, plane_world, shade, depths) -> None:
    seven_scenes(tmp_path, plane_world, shade, depths)
    (tmp_path / "frame-000002.depth.png").unlink()
    with pytest.raises(InputError, match=r"frame-000002.depth.png' is missing"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 0 0 0", "has 4 numbers"),
        ("a" * 9, "not all numbers"),
    ],
)
def test_faulty_seven_scenes_poses_are_refused(tmp_path: Path, plane_world, shade, depths, text, reason) -> None:
    seven_scenes(tmp_path, plane_world, shade, depths)
    (tmp_path / "frame-000002.pose.txt").write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("apart", "kept"), [(0.019, 8), (0.021, 0)])
def test_tum_pairs_what_is_near_in_time(tmp_path: Path, plane_world, shade, depths, apart: float, kept: int) -> None:
    """The limit is 0.02 s, of depth and of poses."""
    tum(tmp_path, plane_world, shade, depths)
    for name in ("depth.txt", "groundtruth.txt"):
        rows = [line.split() for line in (tmp_path / name).read_text().splitlines()[1:]]
        rows = [row for row in rows if "9" not in row]  # poses between the pictures
        whole = [[f"{1305031102.0 + 0.1 * index + apart:.6f}", *row[1:]] for index, row in enumerate(rows)]
        (tmp_path / name).write_text("\n".join(" ".join(row) for row in whole))
    if kept:
        assert len(read_rgbd(tmp_path)[0].frames) == kept
    else:
        with pytest.raises(InputError, match="no frame with a picture, depth and a pose"):
            read_rgbd(tmp_path)


def test_turned_pictures_are_refused(tmp_path: Path, plane_world, shade, depths) -> None:
    plain(tmp_path, plane_world, shade, depths)
    exif = Image.Exif()
    exif[0x0112] = 6
    shade(1, SIZE).save(tmp_path / "images/001.png", exif=exif)
    with pytest.raises(InputError, match="turned by its orientation tag"):
        load(tmp_path)


@pytest.mark.parametrize("make", [Path.exists, Path.mkdir, Path.touch], ids=["missing", "empty", "file"])
def test_folders_without_a_recording_are_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "x")
    with pytest.raises(InputError, match=r"does not exist|has no RGB-D recording|is a file"):
        load(tmp_path / "x")


def reprojection_errors(scene: Scene, source: int, target: int) -> np.ndarray:
    """|warped z / depth there - 1| of the points of one view in another, in plain numpy."""
    truth = scene.truth
    assert truth is not None
    points = truth.world_points[source][truth.depth[source] > 0].double().numpy()
    local = points @ truth.extrinsics[target, :, :3].double().numpy().T + truth.extrinsics[target, :, 3].numpy()
    local = local[local[:, 2] > 0]
    pixels = local @ truth.intrinsics[target].double().numpy().T
    column, row = (pixels[:, :2] / pixels[:, 2:]).round().astype(int).T
    there = truth.depth[target].numpy()
    inside = (column >= 0) & (row >= 0) & (column < there.shape[1]) & (row < there.shape[0])
    found = there[row[inside], column[inside]]
    return np.abs(local[inside, 2][found > 0] / found[found > 0] - 1)


def test_real_depth_agrees_between_views(shared_dir: Path) -> None:
    """Half of the points must fall within 1% of the other view's depth; wrong poses or axes miss by far."""
    scenes = load(shared_dir / "data/hololens", views=4, img_size=140)
    assert len(scenes) == 3 and all(scene.images.shape == (4, 3, 98, 140) for scene in scenes)
    pairs = itertools.product(scenes, itertools.permutations(range(4), 2))
    errors = np.concatenate([reprojection_errors(scene, *pair) for scene, pair in pairs])
    assert len(errors) > 100_000
    assert np.median(errors) < 0.01  # 0.0035 measured
