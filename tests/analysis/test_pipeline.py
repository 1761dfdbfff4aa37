"""The steps of a run where no whole run is needed: choices of scenes and devices, all files or none."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from analysis import pipeline
from analysis.compare import OUTPUTS
from analysis.pipeline import evaluation_source, formats_view, pick_device, scene_source, show_evaluation, write_reports
from analysis.results import Evaluation, SchemeResult, from_json
from errors import InputError
from quant import CANDIDATES, FORMATS, UNIFORM_SCHEMES
from scenes import SceneSource

FILES = ("comprehensive_results.json", "comprehensive_report.txt", "comprehensive_visualizations.png")


def source(images: str | None = None, scenes: str | None = None, **numbers: int | None) -> SceneSource:
    defaults: dict[str, int | None] = {"count": 4, "views": 0, "seed": 0, "max_images": None}
    return scene_source(images, scenes, **(defaults | numbers))


def test_images_are_short_for_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As absolute paths, for the run may be evaluated from elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert source(images="a") == source(scenes="photos:a")
    assert source(images="a").folder == str(tmp_path / "a")
    assert source() == source(scenes="synthetic") == SceneSource("synthetic")


@pytest.mark.parametrize(
    ("numbers", "option"),
    [
        ({"count": 0}, "--num-scenes 0"),
        ({"views": -1}, "--views -1"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**32}, "--seed 4294967296"),
        ({"max_images": 0}, "--max-images 0"),
    ],
)
def test_numbers_out_of_range_are_named_by_their_option(numbers: dict[str, int], option: str) -> None:
    with pytest.raises(InputError, match=f"^{option}: give a whole number, [01]"):
        source(**numbers)


def test_empty_names_are_not_taken_for_no_choice() -> None:
    with pytest.raises(InputError, match="both given"):
        source(images="", scenes="synthetic")
    with pytest.raises(InputError, match="need a folder"):
        source(images="")


def test_evaluation_takes_the_other_half_of_what_was_profiled() -> None:
    profiled = SceneSource("rgbd", "recording", count=3, views=5, seed=7, max_images=40, stride=2, sampling="random")
    assert evaluation_source(profiled, None, None) == profiled
    changed = evaluation_source(profiled, None, None, count=9, views=2, max_images=10)
    assert changed == replace(profiled, count=9, views=2, max_images=10)


def test_evaluation_on_other_scenes_keeps_only_count_and_seed() -> None:
    profiled = SceneSource("rgbd", "recording", count=3, views=5, seed=7, max_images=40, stride=2)
    assert evaluation_source(profiled, None, "synthetic") == SceneSource("synthetic", count=3, seed=7)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_device(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == expected
    assert pick_device("cpu").type == "cpu"


def test_absent_and_unknown_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device cuda: this machine has none"):
        pick_device("cuda")
    with pytest.raises(InputError, match="--device tpu: not known; use auto, cuda"):
        pick_device("tpu")


def test_formats_view_lists_every_format() -> None:
    view = formats_view(FORMATS, UNIFORM_SCHEMES, CANDIDATES)
    assert list(view.values) == list(FORMATS)
    assert view.values["int4_group_128"]["bits_per_weight"] == 4.125
    assert view.tables[0].row_count == len(FORMATS)


def example(damage: float) -> Evaluation:
    results = tuple(
        SchemeResult(key, key, size, None, None, None, {}, value, (value,))
        for key, size, value in (("fp32", 40, 0.0), ("int4_group_128", 5, 0.5), ("plan", 5, damage))
    )
    return Evaluation({"seed": 0}, "tiny", "trained", ("room",), (), "nothing", results, {}, 0.25)


def test_reports_appear_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("no font")

    write_reports(example(0.25), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == set(FILES)
    monkeypatch.setattr(pipeline.plots, "draw", fail)
    with pytest.raises(RuntimeError):
        write_reports(example(0.125), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_report_is_made_again_from_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.plots, "draw", lambda _evaluation, path: path.touch())
    write_reports(example(0.25), tmp_path)
    text = (tmp_path / FILES[1]).read_text()
    (tmp_path / FILES[1]).write_text("lost")
    view = show_evaluation(tmp_path)
    assert (tmp_path / FILES[1]).read_text() == text
    assert view.values["holds"] is True
    assert from_json((tmp_path / FILES[0]).read_text()) == example(0.25)


def test_a_damage_that_is_no_number_can_still_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.plots, "draw", lambda _evaluation, path: path.touch())
    write_reports(example(math.nan), tmp_path)
    assert json.loads((tmp_path / FILES[0]).read_text())["results"][2]["damage"] is None
    assert show_evaluation(tmp_path).values["holds"] is False


def test_outputs_of_scores_and_of_reports_have_one_order() -> None:
    from sensitivity import OUTPUTS as SCORED

    assert SCORED == OUTPUTS
