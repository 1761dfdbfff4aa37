"""The scenes that options ask for."""

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.commands.options import evaluation_source, scene_source
from vggtkit.core.errors import InputError
from vggtkit.scenes import SceneSource


def source(images: str | None = None, scenes: str | None = None, **options: int | str | None) -> SceneSource:
    return scene_source(images, scenes, **({"count": 4} | options))


def test_images_are_short_for_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As absolute paths, for the run may be evaluated from elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert source(images="a") == source(scenes="photos:a")
    assert source(images="a").folder == str(tmp_path / "a")
    assert source() == source(scenes="synthetic") == SceneSource("synthetic")


@pytest.mark.usefixtures("spoken_in_options")
@pytest.mark.parametrize(
    ("numbers", "option"),
    [
        ({"count": 0}, "--num-scenes 0"),
        ({"views": -1}, "--views -1"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**32}, "--seed 4294967296"),
        ({"max_images": 0}, "--max-images 0"),
        ({"stride": 0}, "--stride 0"),
    ],
)
def test_numbers_out_of_range_are_named_by_their_option(numbers: dict[str, int], option: str) -> None:
    with pytest.raises(InputError, match=f"^{option}: give a whole number, [01]"):
        source(images="a", **numbers)


@pytest.mark.usefixtures("spoken_in_options")
@pytest.mark.parametrize(
    ("option", "name"),
    [({"max_images": 9}, "--max-images"), ({"stride": 2}, "--stride"), ({"sampling": "runs"}, "--sampling")],
)
def test_rendered_rooms_have_no_pictures_to_choose(option: dict[str, int | str], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name} chooses among pictures"):
        source(**option)
    with pytest.raises(InputError, match=f"^{name} chooses among pictures"):
        evaluation_source(SceneSource("synthetic"), None, None, **option)


def test_frames_are_chosen_as_asked() -> None:
    asked = source(scenes="rgbd:/recording", views=5, stride=3, sampling="random", max_images=40, seed=7)
    chosen = {"views": 5, "stride": 3, "sampling": "random", "max_images": 40, "seed": 7}
    assert asked == SceneSource("rgbd", "/recording", **chosen)
    with pytest.raises(InputError, match="unknown sampling 'some': choose runs or random"):
        source(scenes="rgbd:/recording", sampling="some")


def test_empty_names_are_not_taken_for_no_choice() -> None:
    with pytest.raises(InputError, match="both given"):
        source(images="", scenes="synthetic")
    with pytest.raises(InputError, match="need a folder"):
        source(images="")


def test_evaluation_takes_the_other_half_of_what_was_profiled() -> None:
    profiled = SceneSource("rgbd", "recording", count=3, views=5, seed=7, max_images=40, stride=2, sampling="random")
    assert evaluation_source(profiled, None, None) == profiled
    changed: dict[str, int | str] = {"count": 9, "views": 2, "max_images": 10, "stride": 1, "sampling": "runs"}
    assert evaluation_source(profiled, None, None, **changed) == replace(profiled, **changed)


def test_evaluation_on_other_scenes_keeps_only_count_and_seed() -> None:
    profiled = SceneSource("rgbd", "recording", count=3, views=5, seed=7, max_images=40, stride=2)
    assert evaluation_source(profiled, None, "synthetic") == SceneSource("synthetic", count=3, seed=7)
