"""How scenes are chosen: the splits stay apart, agree in size, and refuse what cannot be."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vggtkit.core.errors import InputError
from vggtkit.scenes import (
    Scene,
    SceneSource,
    kinds,
    load_photos,
    load_scenes,
    parse_scenes,
    pictures_of,
    synthetic_scenes,
)
from vggtkit.scenes.sampling import split_pictures

Shelf = Callable[..., str]


def load_both(chosen: SceneSource, img_size: int = 56) -> tuple[list[Scene], list[Scene]]:
    return (
        load_scenes(chosen, "calibration", img_size=img_size, patch_size=14),
        load_scenes(chosen, "evaluation", img_size=img_size, patch_size=14),
    )


def shades(scenes: list[Scene]) -> list[list[int]]:
    """Which pictures the scenes show: picture i of a shelf has the shade i."""
    return [[round(view[:, 28, 28].mean().item() * 255) for view in scene.images] for scene in scenes]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A folder of 56 x 56 pictures, of which picture i is grey of shade i."""

    def fill(count: int) -> str:
        folder = tmp_path / "shelf"
        folder.mkdir()
        for index in range(count):
            Image.new("RGB", (56, 56), (index,) * 3).save(folder / f"{index:03}.png")
        return str(folder)

    return fill


@pytest.mark.parametrize(
    ("count", "options", "calibration", "evaluation"),
    [
        (8, {}, [[0, 1], [4, 5]], [[2, 3], [6, 7]]),
        (9, {}, [[0, 1], [4, 5]], [[2, 3], [6, 7]]),
        (6, {"views": 3}, [[0, 1, 2]], [[3, 4, 5]]),
        (5, {"views": 4}, [[0, 1]], [[2, 3]]),
        (3, {}, [[0], [2]], [[1]]),
        (2, {}, [[0]], [[1]]),
        (16, {"count": 2}, [[0, 1], [8, 9]], [[2, 3], [10, 11]]),
        (12, {"max_images": 4}, [[0, 3]], [[6, 9]]),
        (4, {"max_images": 100}, [[0, 1]], [[2, 3]]),
    ],
    ids=[
        "even",
        "left-over",
        "three-views",
        "shrunk",
        "one-view",
        "a-pair",
        "count",
        "max-images",
        "max-unreached",
    ],
)
def test_photographs_are_split_in_turn(
    shelf: Shelf,
    count: int,
    options: dict[str, int],
    calibration: list[list[int]],
    evaluation: list[list[int]],
) -> None:
    first, second = load_both(SceneSource("photos", shelf(count), **options))
    assert shades(first) == calibration
    assert shades(second) == evaluation


def test_scene_names_tell_the_pictures(shelf: Shelf) -> None:
    first, second = load_both(SceneSource("photos", shelf(8)))
    assert [scene.name for scene in first + second] == [
        "shelf[0:2]",
        "shelf[4:6]",
        "shelf[2:4]",
        "shelf[6:8]",
    ]
    assert all(scene.truth is None for scene in first + second)


@settings(max_examples=200)
@given(photos=st.integers(2, 60), views=st.integers(1, 9), count=st.integers(1, 9), most=st.integers(2, 70))
def test_splits_never_share_a_picture(photos: int, views: int, count: int, most: int) -> None:
    splits = split_pictures([photos], views=views, count=count, max_images=most)
    indices = [index for runs in splits.values() for _, run in runs for index in run]
    assert len(indices) == len(set(indices))
    lengths = {len(run) for runs in splits.values() for _, run in runs}
    assert len(lengths) == 1
    assert lengths <= set(range(1, views + 1))
    assert all(1 <= len(runs) <= count for runs in splits.values())


@pytest.mark.parametrize("sampling", ["runs", "random"])
def test_pictures_of_a_split_are_those_of_its_scenes(shelf: Shelf, sampling: str) -> None:
    chosen = SceneSource("photos", shelf(11), count=2, views=2, sampling=sampling)
    for split, scenes in zip(("calibration", "evaluation"), load_both(chosen), strict=True):
        shown = sorted(itertools.chain(*shades(scenes)))
        assert sorted(int(path.stem) for path in pictures_of(chosen, split)) == shown


def test_a_single_photograph_calibrates_but_does_not_evaluate(shelf: Shelf) -> None:
    chosen = SceneSource("photos", shelf(1))
    assert shades(load_scenes(chosen, "calibration", img_size=56, patch_size=14)) == [[0]]
    with pytest.raises(InputError, match=r"single photograph.*--images"):
        load_scenes(chosen, "evaluation", img_size=56, patch_size=14)


def test_max_images_of_one_is_what_the_error_names(shelf: Shelf) -> None:
    with pytest.raises(InputError, match=r"--max-images 1 leaves .* at least 2 of the 5"):
        load_both(SceneSource("photos", shelf(5), max_images=1))


def test_mixed_sizes_come_to_one_size_over_both_splits(tmp_path: Path) -> None:
    """Only the last picture, which is in the evaluation split, is tall: calibration grows with it."""
    for index, height in enumerate([28, 28, 28, 56]):
        Image.new("RGB", (56, height), (index,) * 3).save(tmp_path / f"{index}.png")
    first, second = load_both(SceneSource("photos", str(tmp_path)))
    assert first[0].images.shape == second[0].images.shape == (2, 3, 56, 56)
    together = load_photos(sorted(tmp_path.iterdir()), target_size=56)
    torch.testing.assert_close(torch.cat([first[0].images, second[0].images]), together)


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("size", [(56, 28), (28, 56), (56, 56)], ids=["wide", "tall", "square"])
def test_query_points_lie_on_the_picture_not_on_the_white(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    """On a black picture the pixel at every query point is black, and the grid has the picture's middle."""
    for index in range(2):
        Image.new("RGB", size).save(tmp_path / f"{index}.png")
    scene = load_both(SceneSource("photos", str(tmp_path), mode=mode))[0][0]
    columns, rows = scene.query_points.round().long().T
    assert len(set(zip(columns.tolist(), rows.tolist(), strict=True))) == 16
    assert (scene.images[0, :, rows, columns] == 0).all()
    height, width = scene.images.shape[2:]
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    torch.testing.assert_close(scene.query_points.mean(dim=0), middle)


@pytest.mark.parametrize("folder", ["kitchen", "room", "hololens"])
def test_real_folders_load(shared_dir: Path, folder: str) -> None:
    first, second = load_both(SceneSource("photos", str(shared_dir / "data" / folder)), img_size=112)
    assert first[0].name == f"{folder}[0:2]"
    assert {scene.images.shape for scene in first + second} == {first[0].images.shape}


def test_synthetic_scenes_are_those_of_the_renderer() -> None:
    chosen = SceneSource(count=2, views=2, seed=3)
    scenes = load_scenes(chosen, "evaluation", img_size=28, patch_size=14)
    expected = synthetic_scenes(2, 2, (28, 28), seed=3, split="evaluation")
    for scene, other in zip(scenes, expected, strict=True):
        assert scene.name == other.name
        torch.testing.assert_close(scene.images, other.images, rtol=0, atol=0)
        assert scene.truth is not None


def nan_pixel(scene: Scene) -> Scene:
    images = scene.images.clone()
    images[0, 0, 0, 0] = np.nan
    return dataclasses.replace(scene, images=images)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nan_pixel, "not float32 in"),
        (lambda scene: dataclasses.replace(scene, images=scene.images * 255), "not float32 in"),
        (lambda scene: dataclasses.replace(scene, images=scene.images.double()), "not float32 in"),
        (lambda scene: dataclasses.replace(scene, images=scene.images[..., :-1]), "no whole patches"),
        (lambda scene: dataclasses.replace(scene, images=scene.images[:, :1]), "do not suit"),
        (lambda scene: dataclasses.replace(scene, query_points=scene.query_points[0]), "query points"),
        (lambda scene: dataclasses.replace(scene, query_points=scene.query_points * np.inf), "query points"),
    ],
    ids=["nan", "range", "dtype", "ragged", "channels", "points-shape", "points-inf"],
)
def test_broken_scenes_do_not_leave(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Scene], Scene], reason: str
) -> None:
    broken = spoil(Scene("s", torch.rand(2, 3, 28, 28), torch.ones(16, 2)))
    monkeypatch.setattr(kinds, "synthetic_scenes", lambda *_, **__: [broken])
    with pytest.raises(ValueError, match=reason) as caught:
        load_scenes(SceneSource(), "calibration", img_size=28, patch_size=14)
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    "chosen",
    [SceneSource(), SceneSource("photos", "a", count=3, views=5, seed=9, mode="pad", max_images=7)],
    ids=["defaults", "all-set"],
)
def test_a_source_survives_json(chosen: SceneSource) -> None:
    assert SceneSource.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "video"}, "unknown kind of scenes 'video': choose synthetic or photos"),
        ({"kind": "photos"}, "need a folder"),
        ({"folder": "a"}, "take no folder, got 'a'"),
        ({"kind": "photos", "folder": 5}, "folder of the scenes is 5"),
        ({"count": 0}, "count of the scenes is 0.* 1 or more"),
        ({"count": True}, "count of the scenes is True"),
        ({"views": -1}, "views of the scenes is -1"),
        ({"seed": "x"}, "seed of the scenes is 'x'"),
        ({"max_images": 0}, "max_images of the scenes is 0"),
        ({"mode": "stretch"}, "choose crop or pad"),
        ({"colour": "red"}, "unknown fields colour"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        SceneSource.from_dict(fields)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("synthetic", ("synthetic", None)),
        ("photos:a/b", ("photos", "a/b")),
        ("photos:C:\\pictures", ("photos", "C:\\pictures")),
    ],
)
def test_scenes_option_is_parsed(text: str, parsed: tuple[str, str | None]) -> None:
    assert parse_scenes(text) == parsed


@pytest.mark.parametrize("text", ["", "video:a", "photos", "photos:", "synthetic:a", "Photos:a", ":a"])
def test_bad_scenes_option_lists_the_kinds_or_the_way_out(text: str) -> None:
    with pytest.raises(InputError, match="photos:") as caught:
        parse_scenes(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["calibration", "evaluation"])
def test_a_resolution_of_its_own_takes_the_place_of_the_models(tmp_path: Path, split: str) -> None:
    for index in range(4):
        Image.new("RGB", (80, 60)).save(tmp_path / f"{index}.png")
    source = SceneSource("photos", str(tmp_path), resolution=28)
    assert SceneSource.from_dict(source.to_dict()) == source
    (scene,) = load_scenes(source, split, img_size=56, patch_size=14)
    assert scene.images.shape == (2, 3, 28, 28)
    assert load_scenes(SceneSource(resolution=28, count=1), split, img_size=56, patch_size=14)[0].images.shape[-1] == 28
    with pytest.raises(InputError, match="--resolution 30 is no multiple of the patch size 14: give 28"):
        load_scenes(SceneSource("photos", str(tmp_path), resolution=30), split, img_size=56, patch_size=14)
