"""The whole way to VGGT-1B's table, rehearsed with the tiniest network and rooms in the published layouts."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from analysis.report.renderers.terminal import rich_table
from analysis.reproduction.measuring import TestSet, by_group
from analysis.reproduction.published import Gate
from analysis.reproduction.table import tables
from analysis.reproduction.variants import Variant
from tests.analysis.commands.running import Ran, cli, the_json
from tests.analysis.reproduction.layouts import rooms, write_co3d, write_seven_scenes
from vggtkit.core.errors import InputError
from vggtkit.core.journal import Parts
from vggtkit.model import load_vggt
from vggtkit.quant import UNIFORM_SCHEMES
from vggtkit.scenes import draw_scenes
from vggtkit.scenes.co3d_split import read_co3d_test, read_co3d_train
from vggtkit.scenes.seven_scenes_split import read_seven_scenes_test, read_seven_scenes_train
from vggtkit.subject import subject_of

ROOT = Path(__file__).resolve().parents[3]
SEQUENCES = {
    "apple": {"a": "test", "b": "train", "c": "test", "blurred": "poor"},
    "bench": {"d": "test", "e": "train"},
}
OPTIONS = (
    "--frames", "2,3", "--budgets", "int4_group_128,0.1bpw", "--num-scenes", "1", "--least-frames", "3",
    "--seed", "1", "--json",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_co3d(folder / "co3d", SEQUENCES, views=4)
    write_seven_scenes(folder / "7scenes", sequences=2, views=3)
    return folder


@pytest.fixture(scope="module")
def rehearsed(
    data: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, object]]:
    """The script, run to the end."""
    run = tmp_path_factory.mktemp("runs") / "rehearsal"
    own = {"CO3D": str(data / "co3d"), "SEVEN_SCENES": str(data / "7scenes"), "ETH3D": str(data / "none")}
    ran = subprocess.run(
        ["sh", ROOT / "scripts" / "vggt_1b.sh", "--weights", model_folder, *OPTIONS, "--believe", "--run", run],
        env={**os.environ, **own, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "left out, not there: eth3d" in ran.stderr
    assert "5 scenes" not in ran.stderr
    return run, the_json(Ran(ran.returncode, ran.stdout, ran.stderr))


def again(data: Path, model_folder: Path, run: Path, *options: object) -> Ran:
    tests = ("--on", f"co3d-test:{data / 'co3d'}", "--on", f"7scenes-test:{data / '7scenes'}")
    return cli("reproduce", *tests, "--model", model_folder, *OPTIONS, "--run", run, *options)


@pytest.mark.slow
def test_the_script_measures_every_model_on_every_set(rehearsed: tuple[Path, dict[str, object]]) -> None:
    run, values = rehearsed
    rows = {(row["variant"], row["set"]): row for row in values["rows"]}
    sets = {"co3d-test-2": 3, "co3d-test-3": 3, "7scenes-test-2": 1, "7scenes-test-3": 1}
    variants = ("baseline", *UNIFORM_SCHEMES, "plan-int4_group_128")
    assert set(rows) == {(variant, key) for variant in variants for key in sets}
    assert {key: rows["baseline", key]["scenes"] for key in sets} == sets
    assert set(values["infeasible"]) == {"0.1bpw"}
    assert values["gate"]["said"].startswith("GATE NOT CHECKED")
    assert not values["gate"]["passed"]
    assert {row["auc30"] for row in values["published"]} == {89.5, 89.4, 86.9, 76.9, 54.6}
    plan, uniform = (rows[name, "7scenes-test-2"]["size_bytes"] for name in ("plan-int4_group_128", "int4_group_128"))
    assert plan <= uniform < rows["baseline", "7scenes-test-2"]["size_bytes"]
    report = (run / "reproduction.md").read_text()
    assert "GATE NOT CHECKED" in report
    assert json.loads((run / "reproduction.json").read_text())["rows"] == values["rows"]


@pytest.mark.slow
def test_figures_are_those_of_a_plain_run(
    rehearsed: tuple[Path, dict[str, object]], data: Path, model_folder: Path
) -> None:
    """The baseline, whole, on scenes that are drawn here; a category is a mean of its own."""
    subject = subject_of(load_vggt(str(model_folder)))
    drawn = draw_scenes(read_co3d_test(data / "co3d"), 3, least=3, seed=1)
    assert [scene.name for scene in drawn] == ["apple/a", "apple/c", "bench/d"]
    scenes = [scene.read(*subject.picture_sizes) for scene in drawn]
    a, c, d = (subject.figures(subject.predict(scene), scene)["auc30"] for scene in scenes)
    row = next(row for row in rehearsed[1]["rows"] if (row["variant"], row["set"]) == ("baseline", "co3d-test-3"))
    assert row["auc30_by_group"] == {"apple": pytest.approx(50 * (a + c)), "bench": pytest.approx(100 * d)}
    assert row["auc30"] == pytest.approx((50 * (a + c) + 100 * d) / 2)


@pytest.mark.slow
def test_what_was_measured_is_kept(
    rehearsed: tuple[Path, dict[str, object]], data: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some steps are lost; they alone are measured again, and the table is the same."""
    run, values = rehearsed
    lost = sorted((run / "reproduction.json.parts").glob("int4*.npz"))[::3]
    for path in lost:
        path.unlink()
    saved: list[str] = []
    save = Parts.save
    monkeypatch.setattr(Parts, "save", lambda own, step, arrays: (saved.append(step), save(own, step, arrays)))
    monkeypatch.setattr("analysis.steps.reproduction.make_profile", lambda *_, **__: pytest.fail("profiled again"))
    repeated = the_json(again(data, model_folder, run, "--believe"))
    assert sorted(saved) == sorted(path.stem for path in lost)
    assert repeated["rows"] == values["rows"]


@pytest.mark.slow
def test_nothing_else_is_measured_unless_the_baseline_is_believed(
    data: Path, model_folder: Path, tmp_path: Path
) -> None:
    ran = again(data, model_folder, tmp_path / "run")
    assert ran.code == 2
    assert "GATE NOT CHECKED" in ran.err.splitlines()[-1]
    assert "--believe" in ran.err.splitlines()[-1]
    assert "models = 80 passes" in ran.err
    assert not (tmp_path / "run" / "profile.h5").exists()


@pytest.mark.parametrize(("auc30", "passed"), [(89.5, True), (88.0, True), (87.9, False), (91.1, False), (None, False)])
def test_the_gate(auc30: float | None, passed: bool) -> None:
    gate = Gate(auc30)
    assert gate.passed is passed
    assert gate.said().startswith("Gate passed" if passed else "GATE ")


def test_sequences_of_poor_quality_and_of_the_other_list_are_left_out(data: Path) -> None:
    assert [recording.name for recording in read_co3d_test(data / "co3d")] == ["apple/a", "apple/c", "bench/d"]
    assert [recording.name for recording in read_co3d_train(data / "co3d")] == ["apple/b", "bench/e"]


def test_seven_scenes_are_read_by_their_split(data: Path, tmp_path: Path) -> None:
    """The whole set or one scene; a list that is damaged, or of nothing that is there, is told."""
    folder = data / "7scenes"
    for place in (folder, folder / "chess"):
        assert [recording.name for recording in read_seven_scenes_test(place)] == ["chess/seq-02"]
        assert [recording.name for recording in read_seven_scenes_train(place)] == ["chess/seq-01"]
    assert len(read_seven_scenes_test(folder)[0].frames) == 3
    with pytest.raises(InputError, match=r"no scene with a TestSplit.txt in .* rgbd:DIR"):
        read_seven_scenes_test(tmp_path)
    (tmp_path / "TestSplit.txt").write_text("sequence7\n")
    with pytest.raises(InputError, match=r"none of the sequences that TestSplit\.txt lists"):
        read_seven_scenes_test(tmp_path)
    (tmp_path / "TestSplit.txt").write_text("<html>\n")
    with pytest.raises(InputError, match=r"has the line '<html>', not as sequence3"):
        read_seven_scenes_test(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_seven_scenes_test(tmp_path / "none")


def test_the_layout_has_the_cameras_of_the_rooms(data: Path) -> None:
    """The first sequence of the first category is the first room; relative poses as it was rendered."""
    scene = draw_scenes(read_co3d_test(data / "co3d"), 2, seed=3)[0]
    first, second = (int(frame.image.stem.removeprefix("frame")) for frame in scene.frames)
    truth = rooms(6, 4)[0].truth
    assert truth is not None
    whole = [np.vstack([truth.extrinsics[view].numpy(), [0, 0, 0, 1]]) for view in (first, second)]
    read = [frame.extrinsics for frame in scene.frames]
    relative = [poses[1] @ np.linalg.inv(poses[0]) for poses in (whole, read)]
    np.testing.assert_allclose(relative[1][:3, :3], relative[0][:3, :3], atol=1e-5)


def test_a_mean_over_categories_is_no_mean_over_scenes() -> None:
    scenes = draw_scenes(
        [type("R", (), {"name": name, "frames": (1, 2)})() for name in ("a/1", "a/2", "b/3")],
        2,  # type: ignore[list-item]
    )
    figures = [{"auc30": value} for value in (0.0, 0.5, 1.0)]
    assert by_group(scenes, figures, "auc30") == {"a": 25.0, "b": 100.0}


def test_every_row_of_the_whole_table_can_be_told_from_the_others_in_a_terminal() -> None:
    """Three test sets with two numbers of frames, 120 columns: no name is cut, and the sizes are there."""
    scene = draw_scenes([type("R", (), {"name": "a/1", "frames": tuple(range(20))})()], 10)[0]  # type: ignore[list-item]
    sets = [
        TestSet(f"{kind}-{frames}", f"50 scenes of {frames} frames", (scene,))
        for kind in ("co3d-test", "7scenes-test", "eth3d")
        for frames in (10, 20)
    ]
    variants = [
        Variant("baseline", "baseline, bfloat16", 2_513_000_000),
        Variant("plan-600MB", "plan 600MB, gptq", 6 * 10**8),
    ]
    results = {(variant.name, each.key): [{"auc30": 0.5}] for variant in variants for each in sets}
    console = Console(file=io.StringIO(), record=True, width=120)
    console.print(rich_table(tables(variants, sets, results)[0]))
    shown = console.export_text()
    for words in (
        "QuantVGGT W8A8",
        "QuantVGGT W4A4",
        "baseline, bfloat16",
        " MB ",
        " 2513 ",
        "7scenes-test-20",
        "eth3d-20",
    ):
        assert words in shown
    assert shown.count("50.0") == 12


def test_variants_of_other_weights_have_other_keys() -> None:
    one, other, rounded = (
        Variant("p", "", 1, {"a": "fp16"}),
        Variant("p", "", 1, {"a": "fp32"}),
        Variant("p", "", 1, {"a": "fp16"}, digest="1"),
    )
    assert len({one.key, other.key, rounded.key}) == 3
