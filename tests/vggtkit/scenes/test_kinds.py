"""A kind of scenes that is registered is known wherever kinds are named."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from vggtkit.core.errors import InputError
from vggtkit.scenes import (
    SCENE_KINDS,
    Scene,
    SceneKind,
    SceneSource,
    check_source,
    load_scenes,
    parse_scenes,
    picture_digests,
    pictures_of,
)
from vggtkit.scenes.recording import Frame, Recording


def read_two_halves(folder: Path) -> list[Recording]:
    """A layout of one's own: pictures called ``*.shot``."""
    return [Recording("mine", tuple(Frame(path) for path in sorted(folder.glob("*.shot"))), ("one was skipped",))]


def load_inputs(source: SceneSource, split: str, img_size: int, patch_size: int) -> list[Scene]:
    nothing = torch.zeros(0)
    name = f"{source.folder} {split} {img_size} {patch_size}"
    return [Scene(name, nothing, nothing, inputs=(torch.ones(3),)) for _ in range(source.count)]


@pytest.fixture
def own_kinds() -> Iterator[None]:
    SCENE_KINDS.register("shots", SceneKind("shots", "my own", 3, read_two_halves))
    SCENE_KINDS.register("calls", SceneKind("calls", "calls of a model", load=load_inputs, metavar="module:function"))
    yield
    SCENE_KINDS.unregister("shots")
    SCENE_KINDS.unregister("calls")


@pytest.mark.usefixtures("own_kinds")
def test_a_reader_of_ones_own_is_a_kind_like_the_others(tmp_path: Path) -> None:
    for index in range(6):
        Image.new("RGB", (56, 56), (index,) * 3).save(tmp_path / f"{index}.shot", "PNG")
    kind, folder = parse_scenes(f"shots:{tmp_path}")
    source = SceneSource(kind, folder)
    assert source.views == 3
    assert SceneSource.from_dict(source.to_dict()) == source
    check_source(source)
    lines: list[str] = []
    (scene,) = load_scenes(source, "evaluation", img_size=56, patch_size=14, say=lines.append)
    assert scene.name == "mine[3:6]" and scene.truth is None
    assert (scene.images[:, 0, 1, 1] * 255).round().tolist() == [3, 4, 5]
    assert lines == ["one was skipped"]
    assert {path.name for path in pictures_of(source, "evaluation")} == {"3.shot", "4.shot", "5.shot"}
    assert len(picture_digests(source, "evaluation")) == 3


@pytest.mark.usefixtures("own_kinds")
def test_a_loader_of_ones_own_gets_what_it_needs() -> None:
    kind, place = parse_scenes("calls:models:batches")
    assert (kind, place) == ("calls", "models:batches")
    source = SceneSource(kind, place, count=2)
    check_source(source)
    scenes = load_scenes(source, "calibration", img_size=56, patch_size=14)
    assert [scene.name for scene in scenes] == ["models:batches calibration 56 14"] * 2
    assert pictures_of(source, "calibration") == picture_digests(source, "calibration") == frozenset()


@pytest.mark.usefixtures("own_kinds")
@pytest.mark.parametrize("text", ["shots", "calls:", "Shots:a", "video:a"])
def test_messages_list_what_is_registered(text: str) -> None:
    with pytest.raises(InputError, match=r"shots:DIR|calls:module:function"):
        parse_scenes(text)
    with pytest.raises(InputError, match=r"synthetic or photos:DIR, .*shots:DIR, calls:module:function"):
        SceneSource("video", "a")


@pytest.mark.parametrize(
    "fields",
    [{}, {"read": read_two_halves, "load": load_inputs}, {"read": read_two_halves, "needs_folder": False}],
    ids=["neither", "both", "no-folder"],
)
def test_a_kind_that_cannot_work_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the scene kind 'odd'"):
        SceneKind("odd", "odd", **fields)  # type: ignore[arg-type]
