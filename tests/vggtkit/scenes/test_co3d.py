"""CO3Dv2 folders: PyTorch3D cameras against their projection, depth bits, what is refused."""

import gzip
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vggtkit.core.errors import InputError
from vggtkit.scenes import Scene, SceneSource, load_scenes
from vggtkit.scenes.co3d import read_co3d

SIZE = (56, 42)
CAMERA = np.array([[60.0, 0, 27.25], [0, 58.0, 21.5], [0, 0, 1]])  # pixel centres at whole numbers
UNITS = {"ndc_isotropic": (21.0, 21.0), "ndc_norm_image_bounds": (28.0, 21.0)}  # pixels in a unit of NDC
SCALE = 1.7


def load(folder: Path, split: str = "calibration", **options: object) -> list[Scene]:
    options = {"views": 3, "count": 1, **options}
    return load_scenes(SceneSource("co3d", str(folder), **options), split, img_size=56, patch_size=14)


def project(viewpoint: dict[str, Any], points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels as PyTorch3D's notes on cameras define them: row vectors, x left, y up, corners at the bounds."""
    local = points @ np.array(viewpoint["R"]) + np.array(viewpoint["T"])
    ndc = np.array(viewpoint["focal_length"]) * local[:, :2] / local[:, 2:] + viewpoint["principal_point"]
    half = np.array(size) / 2
    unit = half if viewpoint["intrinsics_format"] == "ndc_norm_image_bounds" else np.full(2, half.min())
    return half - ndc * unit - 0.5  # NDC 1 is the outer edge of the first pixel, half a pixel before its centre


def viewpoint(pose: np.ndarray, kind: str) -> dict[str, Any]:
    """What CO3D stores of a camera whose camera-to-world matrix in OpenCV axes is ``pose``.

    In PyTorch3D, world-to-camera acts on row vectors from the right, so its R is camera-to-world's rotation
    with the camera's own x and y (its columns) turned round.
    """
    turned = pose[:3, :3] * [-1, -1, 1]
    unit = np.array(UNITS[kind])
    return {
        "R": turned.tolist(),
        "T": (-pose[:3, 3] @ turned).tolist(),
        "focal_length": (CAMERA[[0, 1], [0, 1]] / unit).tolist(),
        "principal_point": ((np.array(SIZE) / 2 - 0.5 - CAMERA[:2, 2]) / unit).tolist(),
        "intrinsics_format": kind,
    }


def write_depth_bits(path: Path, depth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(depth.astype(np.float16).view(np.uint16)).save(path)


def write_annotations(folder: Path, frames: list[dict[str, Any]], sequences: list[str]) -> None:
    for name, entries in (
        ("frame_annotations.jgz", frames),
        ("sequence_annotations.jgz", [{"sequence_name": sequence, "category": "apple"} for sequence in sequences]),
    ):
        with gzip.open(folder / name, "wt") as file:
            json.dump(entries, file)


def write_category(folder: Path, world, shade: Callable, kind: str = "ndc_isotropic") -> list[dict[str, Any]]:
    """Sequences a (8 frames), b (4 frames) and c, which was not downloaded; frames in reverse order."""
    frames = []
    for sequence, count in (("a", 8), ("b", 4), ("c", 3)):
        for index in reversed(range(count)):
            stem = f"apple/{sequence}/{{}}/frame{index:06}"
            image, depth, mask = (stem.format(place) for place in ("images", "depths", "depth_masks"))
            frames.append(
                {
                    "sequence_name": sequence,
                    "frame_number": index,
                    "image": {"path": f"{image}.jpg", "size": [SIZE[1], SIZE[0]]},
                    "depth": {
                        "path": f"{depth}.jpg.geometric.png",
                        "scale_adjustment": SCALE,
                        "mask_path": f"{mask}.png",
                    },
                    "viewpoint": viewpoint(world.poses[index], kind),
                }
            )
            if sequence == "c":
                continue
            for place in ("images", "depth_masks"):
                (folder / "apple" / sequence / place).mkdir(parents=True, exist_ok=True)
            shade(index + 100 * (sequence == "b"), SIZE).save(folder / f"{image}.jpg", quality=100)
            values = world.depth(index, CAMERA, SIZE) / SCALE
            values[20, 20], values[21, 20] = np.nan, np.inf
            write_depth_bits(folder / f"{depth}.jpg.geometric.png", values)
            reliable = np.ones((SIZE[1], SIZE[0]), dtype=bool)
            reliable[5:15, 8:30] = False
            Image.fromarray(reliable).save(folder / f"{mask}.png")  # one bit a pixel
    write_annotations(folder / "apple", frames, ["a", "b", "c"])
    return frames


@pytest.mark.parametrize("kind", sorted(UNITS))
def test_cameras_project_as_pytorch3d_does(tmp_path: Path, plane_world, shade, kind: str) -> None:
    frames = write_category(tmp_path, plane_world, shade, kind)
    annotated = {(frame["sequence_name"], frame["frame_number"]): frame["viewpoint"] for frame in frames}
    points = plane_world.poses[0, :3, 3] + plane_world.normal * 3 + np.random.default_rng(0).normal(0, 0.5, (20, 3))
    recordings = read_co3d(tmp_path / "apple")
    assert [(recording.name, len(recording.frames)) for recording in recordings] == [("apple/a", 8), ("apple/b", 4)]
    for index, frame in enumerate(recordings[0].frames):
        local = points @ frame.extrinsics[:3, :3].T + frame.extrinsics[:3, 3]
        assert (local[:, 2] > 0).all()
        pixels = local @ frame.intrinsics.T
        expected = project(annotated["a", index], points, SIZE)
        np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], expected, atol=1e-9)
        np.testing.assert_allclose(frame.extrinsics, np.linalg.inv(plane_world.poses[index]), atol=1e-12)


@pytest.mark.parametrize("place", ["apple", "."], ids=["category", "parent"])
def test_truth_equals_the_closed_form(tmp_path: Path, plane_world, shade, place: str) -> None:
    write_category(tmp_path, plane_world, shade)
    (scene,) = load(tmp_path / place, "evaluation")
    assert scene.name == "apple/a[3:6]"
    assert (scene.images[:, 0, 1, 1] * 255).round().int().tolist() == [3, 4, 5]
    depths = np.stack([plane_world.depth(view, CAMERA, SIZE) for view in (3, 4, 5)])
    depths[:, 5:15, 8:30] = depths[:, 20:22, 20] = 0
    points, extrinsics, scale = plane_world.first_frame([3, 4, 5], CAMERA, depths)
    assert scene.truth is not None
    np.testing.assert_array_equal(scene.truth.depth == 0, depths == 0)
    np.testing.assert_allclose(scene.truth.intrinsics, np.broadcast_to(CAMERA, (3, 3, 3)), rtol=1e-6)
    np.testing.assert_allclose(scene.truth.extrinsics, extrinsics[:, :3], atol=1e-3)
    np.testing.assert_allclose(scene.truth.depth, depths / scale, rtol=1e-3)  # float16 has 11 bits
    np.testing.assert_allclose(scene.truth.world_points, points, atol=2e-3)


def test_scenes_never_mix_sequences(tmp_path: Path, plane_world, shade) -> None:
    write_category(tmp_path, plane_world, shade)
    options = {"views": 2, "count": 9, "sampling": "random"}
    scenes = load(tmp_path, **options) + load(tmp_path, "evaluation", **options)
    shown = [(scene.images[:, 0, 1, 1] * 255).round().int().tolist() for scene in scenes]
    assert sorted(itertools.chain(*shown)) == [*range(8), *range(100, 104)]
    assert all((first >= 100) == (second >= 100) for first, second in shown)


def test_renamed_categories_and_missing_depth_are_understood(tmp_path: Path, plane_world, shade) -> None:
    write_category(tmp_path, plane_world, shade)
    (tmp_path / "apple").rename(tmp_path / "fruit")
    shutil.rmtree(tmp_path / "fruit/a/depths")
    shutil.rmtree(tmp_path / "fruit/b/depth_masks")
    truths = {
        scene.name: scene.truth for split in ("calibration", "evaluation") for scene in load(tmp_path, split, count=9)
    }
    without, unmasked = truths["fruit/a[0:3]"], truths["fruit/b[0:3]"]
    assert without is not None and not without.depth.any()
    assert unmasked is not None and unmasked.depth[:, 5:15, 8:30].all()


def change(key: str, value: object, part: str | None = None) -> Callable[[Path, list[dict[str, Any]]], None]:
    """Sets a field of frame 2 of sequence a."""

    def spoil(folder: Path, frames: list[dict[str, Any]]) -> None:
        entry = frames[5] if part is None else frames[5][part]
        entry[key] = value
        write_annotations(folder, frames, ["a", "b", "c"])

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change("R", [[1, 0], [0, 1]], "viewpoint"), "a frame 2: R .* not 3x3 finite"),
        (change("R", (2 * np.eye(3)).tolist(), "viewpoint"), "a frame 2: .* not a rotation"),
        (change("T", [1, 2], "viewpoint"), "a frame 2: T .* not 3 finite"),
        (change("focal_length", [0, 0], "viewpoint"), "focal length is 0"),
        (change("intrinsics_format", "pixels", "viewpoint"), "unknown intrinsics_format 'pixels'"),
        (change("viewpoint", []), "has no viewpoint"),
        (change("size", [10, 10], "image"), "is 56x42 pixels, its camera is for 10x10"),
        (change("scale_adjustment", "big", "depth"), "scale_adjustment"),
        (change("scale_adjustment", -1.0, "depth"), "scale_adjustment is -1, it must be above 0"),
        (change("sequence_name", "d"), "frames of 'd', which sequence_annotations.jgz does not list"),
        (lambda folder, _: (folder / "sequence_annotations.jgz").unlink(), "sequence_annotations.jgz' are missing"),
        (lambda folder, _: (folder / "frame_annotations.jgz").unlink(), "frame_annotations.jgz' are missing"),
        (lambda folder, _: (folder / "frame_annotations.jgz").write_bytes(b"[]"), "are damaged"),
        (lambda folder, _: (folder / "frame_annotations.jgz").write_bytes(gzip.compress(b"[{")), "are damaged"),
        (lambda folder, _: (folder / "frame_annotations.jgz").write_bytes(gzip.compress(b"{}")), "no list of"),
        (lambda folder, _: [shutil.rmtree(folder / name) for name in "ab"], "none of the 3 sequences"),
        (lambda folder, _: (folder / "a/images/frame000002.jpg").unlink(), "frame000002.jpg' does not exist"),
        (lambda folder, _: write_depth_bits(folder / "a/depths/frame000002.jpg.geometric.png", np.ones((4, 4))), "4x4"),
        (lambda folder, _: Image.new("1", (4, 4)).save(folder / "a/depth_masks/frame000002.png"), "4x4"),
        (lambda folder, _: (folder / "a/depth_masks/frame000002.png").write_text("x"), "cannot read the depth mask"),
    ],
)
def test_faulty_categories_are_refused(tmp_path: Path, plane_world, shade, spoil, reason: str) -> None:
    frames = write_category(tmp_path, plane_world, shade)
    spoil(tmp_path / "apple", frames)
    with pytest.raises(InputError, match=reason) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change("viewpoint", None), "it has no viewpoint"),
        (change("R", np.full((3, 3), np.nan).tolist(), "viewpoint"), "not finite"),
        (change("T", [None, 0, 0], "viewpoint"), "not finite"),
    ],
)
def test_frames_without_a_viewpoint_are_left_out_and_counted(
    tmp_path: Path, plane_world, shade, spoil, reason: str
) -> None:
    frames = write_category(tmp_path, plane_world, shade)
    spoil(tmp_path / "apple", frames)
    first, second = read_co3d(tmp_path)
    assert [frame.image.stem for frame in first.frames] == [f"frame{index:06}" for index in range(8) if index != 2]
    (note,) = first.notes
    assert "1 of 8 frames is left out" in note and reason in note and "a frame 2" in note
    assert second.notes == ()


def test_folders_without_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no CO3D category"):
        read_co3d(tmp_path)
