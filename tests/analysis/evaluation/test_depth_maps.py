"""Depth kept while an evaluation runs: what was seen, on the right scene, of this evaluation alone."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.evaluation.depth_maps import MOST_PIXELS, DepthMaps, DepthWatch, load_maps, save_maps
from analysis.report.charts.difference_charts import depth_shares, draw_differences
from tests.analysis.example import example_evaluation, with_plan
from vggtkit.core.errors import InputError
from vggtkit.scenes import Scene


def watched(height: int, width: int, views: int = 3) -> tuple[DepthWatch, dict[str, torch.Tensor], Scene]:
    generator = torch.Generator().manual_seed(0)
    scene = Scene("room", torch.rand(views, 3, height, width, generator=generator), torch.zeros(1, 2))
    watch = DepthWatch([scene])
    depth = {
        result.key: torch.rand(1, views, height, width, 1, generator=generator)
        for result in example_evaluation().results
    }
    for key, values in depth.items():
        watch(key, 0, {"depth": values, "track": values})
        watch(key, 1, {"depth": values + 1})  # another scene does not count
    return watch, depth, scene


def kept(watch: DepthWatch) -> DepthMaps:
    maps = watch.maps(example_evaluation())
    assert maps is not None
    return maps


def test_depth_of_the_first_scene_comes_back_from_its_file(tmp_path: Path) -> None:
    watch, depth, scene = watched(6, 8)
    save_maps(kept(watch), tmp_path / "maps.npz")
    read = load_maps(tmp_path / "maps.npz", example_evaluation())
    assert read.keys == tuple(depth)
    np.testing.assert_array_equal(read.depth, np.stack([depth[key][0, :2, ..., 0].numpy() for key in depth]))
    seen = scene.images[:2].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(read.pictures / 255, seen, atol=0.5 / 255 + 1e-6)


def test_large_maps_are_averaged_down() -> None:
    watch, depth, _ = watched(2 * MOST_PIXELS, MOST_PIXELS, views=1)
    maps = kept(watch)
    assert maps.depth.shape[-2:] == (MOST_PIXELS, MOST_PIXELS // 2)
    blocks = depth["plan"][0, 0, ..., 0].reshape(MOST_PIXELS, 2, MOST_PIXELS // 2, 2).mean((1, 3))
    np.testing.assert_allclose(maps.depth[-1, 0], blocks.numpy(), rtol=1e-5)


def test_points_are_compared_with_those_of_fp32(tmp_path: Path) -> None:
    """A scheme that moves all points of the first view by a tenth of their spread; one that breaks is said to."""
    scene = Scene("room", torch.rand(2, 3, 6, 8), torch.zeros(1, 2))
    watch, evaluation = DepthWatch([scene]), example_evaluation()
    points = torch.randn(1, 2, 6, 8, 3, generator=torch.Generator().manual_seed(0))
    spread = (points[0, 0] - points[0, 0].mean((0, 1))).norm(dim=-1).mean()
    for result in evaluation.results:
        moved = points + (0 if result.key == "fp32" else 0.1 * spread) * torch.tensor([0.0, 0.6, 0.8])
        broken = torch.full_like(points, torch.nan) if result.key == "int4_group_32" else moved
        watch(result.key, 0, {"depth": torch.ones(1, 2, 6, 8, 1), "world_points": broken})
    maps = watch.maps(evaluation)
    assert set(maps.points) == {result.key for result in evaluation.quantized}
    np.testing.assert_allclose(maps.points["plan"], 0.1, rtol=1e-4)
    again = DepthWatch([scene])
    again.restore("plan", watch.kept("plan"))
    np.testing.assert_array_equal(again.kept("plan")["points"], maps.points["plan"])
    draw_differences(maps.points, maps.pictures[0], evaluation, "Points", tmp_path / "points.png")
    with Image.open(tmp_path / "points.png") as drawn:
        assert drawn.size[0] > 900


def test_shares_of_depth_are_of_the_median() -> None:
    maps = kept(watched(6, 8)[0])
    expected = np.abs(maps.depth[3, 0] - maps.depth[0, 0]) / np.median(maps.depth[0, 0])
    np.testing.assert_allclose(depth_shares(maps)[maps.keys[3]], expected, rtol=1e-6)


def test_without_depth_nothing_is_kept() -> None:
    scene = Scene("room", torch.rand(1, 3, 4, 4), torch.zeros(1, 2))
    watch = DepthWatch([scene])
    for result in example_evaluation().results:
        watch(result.key, 0, {"logits": torch.rand(1, 5)})
    assert watch.maps(example_evaluation()) is None


@pytest.mark.parametrize("damage", ["another evaluation", "cut", "another shape", "objects", "bomb"])
def test_other_files_are_refused(tmp_path: Path, damage: str) -> None:
    path, evaluation = tmp_path / "maps.npz", example_evaluation()
    maps = kept(watched(6, 8)[0])
    save_maps(replace(maps, depth=maps.depth[:3]) if damage == "another shape" else maps, path)
    if damage == "another evaluation":
        evaluation = with_plan(evaluation, damage=1.0)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    if damage == "objects":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("scene.npy", b"\x80\x04.")
    if damage == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("depth.npy", "w") as entry:
            for _ in range(130):
                entry.write(bytes(2**20))
    with pytest.raises(InputError, match=r"maps\.npz: "):
        load_maps(path, evaluation)


def test_a_byte_that_changed_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """Anywhere in the archive: every library that reads it fails in ways of its own."""
    path, evaluation = tmp_path / "maps.npz", example_evaluation()
    save_maps(kept(watched(6, 8)[0]), path)
    sound, right = path.read_bytes(), load_maps(path, evaluation)
    for place in range(0, len(sound), len(sound) // 200 + 1):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 0x55]) + sound[place + 1 :])
        try:
            read = load_maps(path, evaluation)
        except InputError:
            continue
        np.testing.assert_array_equal(read.depth, right.depth)
        np.testing.assert_array_equal(read.pictures, right.pictures)
