"""The six charts: drawn whole from complete, incomplete and broken evaluations."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.report.charts.comprehensive import ALL_CHARTS, PANELS, PICTURE_KINDS, _alone, draw, one_by_one
from analysis.report.charts.cost_panels import spaced
from analysis.report.text import Evaluation
from tests.analysis.example import BROKEN, EXACT, example_evaluation
from vggtkit.core.atomic import write_all
from vggtkit.core.errors import InputError

PIXELS = (1980, 1265)


def broken_evaluation() -> Evaluation:
    """Nothing timed, one scheme broken, one exact, names that would be formulas and of no letters."""
    fp32, *schemes = (
        replace(each, seconds=None, seconds_spread=None, speed_ratio=None) for each in example_evaluation().results
    )
    broken = {name: replace(BROKEN, ssim=each.ssim and math.nan) for name, each in schemes[0].outputs.items()}
    schemes[0] = replace(schemes[0], damage=math.nan, outputs=broken)
    broken["$x_{ \x1b[2J"] = BROKEN
    exact = {name: replace(EXACT, ssim=None if each.ssim is None else 1.0) for name, each in schemes[1].outputs.items()}
    schemes[1] = replace(schemes[1], damage=0.0, outputs=exact)
    schemes[2] = replace(schemes[2], damage=math.inf)
    return replace(
        example_evaluation(),
        results=(fp32, *schemes),
        scenes=("$x_{", *(f"scene-{index}" for index in range(40))),
        weights_note="RANDOM WEIGHTS: numbers say nothing about a trained VGGT",
    )


def without_outputs() -> Evaluation:
    return replace(example_evaluation(), results=tuple(replace(r, outputs={}) for r in example_evaluation().results))


@pytest.mark.parametrize(
    "evaluation",
    [
        example_evaluation(),
        broken_evaluation(),
        without_outputs(),
        replace(example_evaluation(), results=example_evaluation().results[:1]),
    ],
    ids=["complete", "broken", "no outputs", "fp32 only"],
)
def test_the_png_has_its_size_and_six_charts(evaluation: Evaluation, tmp_path: Path) -> None:
    draw(evaluation, tmp_path / "charts.png")
    with Image.open(tmp_path / "charts.png") as image:
        assert image.size == PIXELS
        ink = np.asarray(image.convert("L")) < 250
    parts = [part for half in np.split(ink[: PIXELS[1] // 2 * 2], 2) for part in np.split(half, 3, axis=1)]
    assert all(part.mean() > 0.003 for part in parts)
    assert [path.name for path in tmp_path.iterdir()] == ["charts.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "charts.png"
    path.write_bytes(b"old")

    def refused(*_: object) -> None:
        raise OSError("in use")

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(InputError, match=r"cannot write .*charts\.png: in use"):
        draw(example_evaluation(), path)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("charts.png", b"old")]


def test_charts_one_by_one_are_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "analysis.report.charts.comprehensive.PANELS", {name: PANELS[name] for name in ("1-file-size", "3-psnr")}
    )
    fewer = replace(example_evaluation(), results=example_evaluation().results[:3])
    monkeypatch.setattr(
        "analysis.report.charts.comprehensive._whole", lambda evaluation, _, say: _alone(evaluation, "1-file-size", say)
    )
    first, again = (one_by_one(fewer, tmp_path / name) for name in ("first", "again"))
    write_all(first)
    write_all(again)
    assert {path.name for path in first} == {
        f"{name}.{kind}" for name in (ALL_CHARTS, "1-file-size", "3-psnr") for kind in PICTURE_KINDS
    }
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
        starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
        assert one.read_bytes().startswith(starts[one.suffix[1:]])


@pytest.mark.parametrize("seed", range(5))
def test_labels_keep_their_distance_and_order(seed: int) -> None:
    heights = np.random.default_rng(seed).uniform(0, 1, 9).tolist()
    placed = np.array(spaced(heights, gap=0.06, low=0.05, high=0.95))
    by_height = placed[np.argsort(heights)]
    assert (np.diff(by_height) > 0.06 - 1e-9).all()
    assert by_height[0] >= 0.05 - 1e-9
    assert by_height[-1] <= 0.95 + 1e-9
