"""COLMAP models: text as many tools write it, and the binary files."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from vggtkit.core.errors import InputError
from vggtkit.scenes.colmap import read_text_model
from vggtkit.scenes.colmap_binary import read_binary_model
from vggtkit.scenes.eth3d import read_eth3d
from vggtkit.scenes.recording import Recording

SIZE = (56, 42)
FX, FY, CX, CY = 60.0, 58.0, 27.75, 22.0
COUNT = 6


def poses() -> list[tuple[list[float], list[float]]]:
    """Quaternion (w first) and translation of every picture."""
    xyzw = Rotation.random(COUNT, random_state=3).as_quat()
    return [([q[3], q[0], q[1], q[2]], [0.5 * index, -index, 2.0]) for index, q in enumerate(xyzw.tolist())]


def names(pattern: str) -> list[str]:
    return [pattern.format(index) for index in range(COUNT)]


def write_pictures(folder: Path, paths: list[str]) -> None:
    for index, path in enumerate(paths):
        (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, (index,) * 3).save(folder / "images" / path)


def write_text(folder: Path, paths: list[str], keypoints: Callable[[int], list[str]]) -> None:
    """``keypoints`` gives the lines that follow a picture's first."""
    write_pictures(folder, paths)
    (folder / "cameras.txt").write_text(f"1 PINHOLE {SIZE[0]} {SIZE[1]} {FX} {FY} {CX} {CY}\n")
    lines = []
    for index, (path, (quaternion, translation)) in enumerate(zip(paths, poses(), strict=True)):
        numbers = " ".join(map(str, [*quaternion, *translation]))
        lines += [f"{index + 1} {numbers} 1 {path}", *keypoints(index)]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")


def binary_cameras(model: int = 1, parameters: tuple[float, ...] = (FX, FY, CX, CY), count: int = 1) -> bytes:
    return struct.pack("<Q", count) + struct.pack(f"<iiQQ{len(parameters)}d", 5, model, *SIZE, *parameters)


def binary_images(paths: list[str], camera: int = 5) -> bytes:
    content = struct.pack("<Q", len(paths))
    for index, (path, (quaternion, translation)) in enumerate(zip(paths, poses(), strict=True)):
        content += struct.pack("<i7di", index, *quaternion, *translation, camera) + path.encode() + b"\0"
        content += struct.pack("<Q", index) + struct.pack("<ddq", 1.0, 2.0, -1) * index
    return content


def write_binary(folder: Path, cameras: bytes, images: bytes) -> None:
    (folder / "cameras.bin").write_bytes(cameras)
    (folder / "images.bin").write_bytes(images)


def assert_every_picture_has_its_pose(recording: Recording, paths: list[str]) -> None:
    assert [frame.image.as_posix().split("/images/")[1] for frame in recording.frames] == paths
    for frame, (quaternion, translation) in zip(recording.frames, poses(), strict=True):
        w, x, y, z = quaternion
        assert frame.extrinsics is not None and frame.intrinsics is not None
        np.testing.assert_allclose(frame.extrinsics[:3, :3], Rotation.from_quat([x, y, z, w]).as_matrix(), atol=1e-12)
        np.testing.assert_array_equal(frame.extrinsics[:3, 3], translation)
        np.testing.assert_array_equal(frame.intrinsics, [[FX, 0, CX - 0.5], [0, FY, CY - 0.5], [0, 0, 1]])


KEYPOINTS: dict[str, Callable[[int], list[str]]] = {
    "empty": lambda _: [""],
    "left-out": lambda _: [],
    "blank-lines-doubled": lambda _: ["", ""],
    "of-some": lambda index: ["1.5 2.5 -1 3.5 4.5 7" if index % 2 else ""],
    "of-some-the-others-left-out": lambda index: ["1.5 2.5 -1"] if index % 2 else [],
    "whole-numbers": lambda index: [" ".join(["12 7 -1"] * (4 + index))],
    "followed-by-blank-lines": lambda _: ["1.5 2.5 -1 3.5 4.5 7", "", ""],
    "comments-between": lambda _: ["# a comment", "", "# another"],
}


@pytest.mark.parametrize("pattern", ["{}.png", "left cam/{} 00.png", "7 8 {}.png"])
@pytest.mark.parametrize("keypoints", KEYPOINTS.values(), ids=KEYPOINTS)
def test_no_picture_is_lost_however_keypoints_are_written(
    tmp_path: Path, keypoints: Callable[[int], list[str]], pattern: str
) -> None:
    write_text(tmp_path, names(pattern), keypoints)
    (recording,) = read_eth3d(tmp_path)
    assert_every_picture_has_its_pose(recording, names(pattern))


@pytest.mark.parametrize("line", ["soon", "1 2", "1 0 0 0 0 0 0 1", "1.5 1 0 0 0 0 0 0 1 a.png"])
def test_a_line_that_is_neither_picture_nor_keypoints_is_refused(tmp_path: Path, line: str) -> None:
    write_text(tmp_path, names("{}.png"), lambda index: [line] if index == 2 else [""])
    with pytest.raises(InputError, match=r"images.txt' line 6 is no picture"):
        read_eth3d(tmp_path)


@pytest.mark.parametrize("place", [".", "sparse", "sparse/0"])
def test_binary_model_says_what_the_text_says(tmp_path: Path, place: str) -> None:
    write_pictures(tmp_path, names("cam/{}.png"))
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    write_binary(tmp_path / place, binary_cameras(), binary_images(names("cam/{}.png")))
    (recording,) = read_eth3d(tmp_path)
    assert_every_picture_has_its_pose(recording, names("cam/{}.png"))


def test_text_goes_before_binary(tmp_path: Path) -> None:
    write_text(tmp_path, names("{}.png"), lambda _: [""])
    write_binary(tmp_path, b"old", b"old")
    (recording,) = read_eth3d(tmp_path)
    assert_every_picture_has_its_pose(recording, names("{}.png"))


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin"])
def test_a_binary_file_cut_anywhere_names_the_conversion(tmp_path: Path, name: str) -> None:
    write_pictures(tmp_path, names("{}.png"))
    write_binary(tmp_path, binary_cameras(), binary_images(names("{}.png")))
    whole = (tmp_path / name).read_bytes()
    for length in {*range(0, len(whole), 7), *range(len(whole) - 30, len(whole))}:
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(InputError, match=f"{name}' is damaged") as caught:
            read_eth3d(tmp_path)
        assert f"colmap model_converter --input_path {tmp_path} --output_path {tmp_path} --output_type TXT" in str(
            caught.value
        )
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cameras", "images", "reason"),
    [
        (binary_cameras(model=99), None, "model number 99, known are 0 to 11"),
        (binary_cameras(model=-1), None, "model number -1"),
        (binary_cameras(count=2**60), None, "are left"),
        (binary_cameras() + b"more", None, "4 bytes are left at the end"),
        (binary_cameras(parameters=(np.nan, FY, CX, CY)), None, "nan"),
        (binary_cameras(4, (FX, FY, CX, CY, 0.1, 0, 0, 0)), None, r"distorted camera \(OPENCV\)"),
        (binary_cameras(), binary_images(names("{}.png"), camera=6), "camera 6, which cameras.bin does not list"),
        (binary_cameras(), struct.pack("<Q", 0), "lists no picture"),
        (binary_cameras(), struct.pack("<Qi7di", 1, 1, *[1.0] * 7, 5) + b"a" * 9000, "name at byte .* does not end"),
        (binary_cameras(), struct.pack("<Qi7di", 1, 1, *[1.0] * 7, 5) + b"a\0" + b"\xff" * 8, "are left"),
    ],
)
def test_faulty_binary_models_are_refused(tmp_path: Path, cameras: bytes, images: bytes | None, reason: str) -> None:
    write_pictures(tmp_path, names("{}.png"))
    write_binary(tmp_path, cameras, binary_images(names("{}.png")) if images is None else images)
    with pytest.raises(InputError, match=reason) as caught:
        read_eth3d(tmp_path)
    assert "\n" not in str(caught.value)


def test_half_a_binary_model_names_the_missing_file(tmp_path: Path) -> None:
    (tmp_path / "cameras.bin").write_bytes(binary_cameras())
    with pytest.raises(InputError, match=r"images.bin' is missing"):
        read_eth3d(tmp_path)


def depth_of(recording: Recording) -> list[float]:
    read = [frame.depth(np.zeros(1), np.zeros(1), SIZE) for frame in recording.frames if frame.depth]
    return [float(values[0]) for values in read]


def write_depth(folder: Path, name: str, value: float) -> None:
    (folder / "depth" / name).parent.mkdir(parents=True, exist_ok=True)
    np.full(SIZE[::-1], value, "<f4").tofile(folder / "depth" / name)


def test_two_cameras_of_one_number_are_refused(tmp_path: Path) -> None:
    """In text and in binary; the same camera twice is one."""
    write_text(tmp_path, names("{}.png"), lambda _: [""])
    cameras = (tmp_path / "cameras.txt").read_text()
    (tmp_path / "cameras.txt").write_text(cameras * 2)
    assert len(read_text_model(tmp_path)) == COUNT
    (tmp_path / "cameras.txt").write_text(cameras + cameras.replace("60.0", "61.0"))
    with pytest.raises(InputError, match=r"line 2: camera 1 is there twice with other values"):
        read_text_model(tmp_path)
    twice = binary_cameras(count=2) + binary_cameras(parameters=(FX + 1, FY, CX, CY))[8:]
    write_binary(tmp_path, twice, binary_images(names("{}.png")))
    with pytest.raises(InputError, match=r"camera 5 is there twice with other values"):
        read_binary_model(tmp_path)


@pytest.mark.parametrize("ending", [".bin", ".BIN", ".png"])
def test_pictures_of_one_name_in_two_folders_have_depth_of_their_own(tmp_path: Path, ending: str) -> None:
    paths = sorted(f"cam{camera}/{index}.png" for camera in (0, 1) for index in range(3))
    write_text(tmp_path, paths, lambda _: [""])
    for value, path in enumerate(paths):
        write_depth(tmp_path, str(Path(path).with_suffix(ending)), 1.0 + value)
    assert depth_of(read_eth3d(tmp_path)[0]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("shared", ["0.bin", "0.BIN", "0.png"])
def test_one_depth_for_two_pictures_is_refused(tmp_path: Path, shared: str) -> None:
    paths = sorted(f"cam{camera}/{index}.png" for camera in (0, 1) for index in range(3))
    write_text(tmp_path, paths, lambda _: [""])
    write_depth(tmp_path, shared, 1.0)
    with pytest.raises(InputError, match=r"'cam0/0.png' and 'cam1/0.png' would share .* like depth/cam1/0.bin"):
        read_eth3d(tmp_path)


def test_a_picture_listed_twice_is_refused(tmp_path: Path) -> None:
    """Else it could be in both halves."""
    write_text(tmp_path, names("{}.png"), lambda _: [""])
    with (tmp_path / "images.txt").open("a") as file:
        file.write("9 1 0 0 0 0 0 0 1 3.png\n\n")
    with pytest.raises(InputError, match=r"3.png' twice"):
        read_eth3d(tmp_path)


@pytest.mark.parametrize("quaternion", ["nan 0 0 0", "0 0 0 0", "-nan(ind) 0 0 0", "inf 0 0 0"])
def test_pictures_without_a_pose_are_left_out_and_counted(tmp_path: Path, quaternion: str) -> None:
    write_text(tmp_path, names("{}.png"), lambda _: [""])
    lines = (tmp_path / "images.txt").read_text().splitlines()
    lines[4] = f"3 {quaternion} 0 0 0 1 2.png"
    (tmp_path / "images.txt").write_text("\n".join(lines) + "\n")
    (recording,) = read_eth3d(tmp_path)
    assert [frame.image.name for frame in recording.frames] == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    (note,) = recording.notes
    assert "1 of 6 frames is left out" in note and "images.txt' line 5" in note
