"""The commands ``audit`` and ``inspect`` on a finished run."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from analysis.audit import Audit, plans, ranks, stability, truth
from analysis.report.charts.audit_charts import _attribution, _scores
from analysis.report.page_charts import audit_pairs
from analysis.report.wording import Wording
from analysis.steps import audit_view, make_audit
from analysis.steps.experiment import read_experiment
from sensitivity import open_profile
from tests.analysis.commands.running import Ran, assert_refused, cli, the_json
from tests.analysis.english import english_in


@pytest.fixture(scope="module")
def audited(
    finished: tuple[Path, dict[str, Ran]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Audit]]:
    """A copy of the finished run with an audit on one scene; the slow repetitions are few."""
    run = Path(shutil.copytree(finished[0], tmp_path_factory.mktemp("runs") / "audited"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "RESAMPLES", 3)
        patch.setattr(truth, "GEOMETRY_SCENES", 0)
        patch.setattr(stability, "REPEATS", 2)
        patch.setattr(stability, "VIEWS", (1, 2))
        patch.setattr(stability, "OTHER_SCENES", 1)
        patch.setattr(plans, "SPREAD", (1.1, 1.4))
        patch.setattr("analysis.audit.run.DEFAULT_PROBES", 2)
        patch.setattr("analysis.audit.run.STABILITY_SCENES", 2)
        patch.setattr("analysis.steps.audit.JUDGES", 1)
        yield run, make_audit(run, with_stability=True, device="cpu")


@pytest.mark.slow
def test_audit_compares_every_score_with_the_truth(audited: tuple[Path, Audit]) -> None:
    run, found = audited
    values = audit_view(found, run).values
    scores = values["scores"]
    assert len(scores) == 12 + 4
    assert not scores["joint"]["agreement"]  # a way to plan from the sketch, not another score
    assert scores["joint"]["passes"] == scores["sketch"]["passes"]
    assert values["default"] == {"score": "sketch", "plan": "joint"}
    ways = values["additivity"]["all outputs"]
    assert list(ways) == [
        "sum of true damages", "sum of sketches", "sketch of all together", "response of summed sketches"
    ]  # fmt: skip
    agreements = {key: score["agreement"] for key, score in scores.items() if score["agreement"]}
    local = {key: each["camera, depth, points"]["spearman"]["value"] for key, each in agreements.items()}
    assert local["sketch"] > 0.9
    assert local["inverted"] < -0.9
    assert max(local[key] for key in local if key.startswith(("isolated", "accumulated", "weight"))) < local["sketch"]
    assert values["favoured"] in ("joint", "sketch", "response", "fisher")
    assert min(score["regret"] for score in scores.values()) >= 1
    assert all(len(score["budgets"]) == 3 for score in scores.values())
    assert set(values["stability"]["views"]) == {1, 2}
    assert values["judges"]
    assert not set(values["judges"]) & {*values["scenes"], *values["calibration_scenes"]}


def test_its_files(audited: tuple[Path, Audit]) -> None:
    run = audited[0]
    document = json.loads((run / "score_audit.json").read_text())
    profile = open_profile(run)
    assert np.shape(document["measured"]["damage"]["depth"]) == (len(profile.layers), len(profile.schemes))
    assert document["provenance"]["scene_fingerprint"] != profile.facts["scene_fingerprint"]
    for name in ("score_audit.png", "who_pays.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")


def test_it_is_read_back_and_drawn_in_the_readers_language(audited: tuple[Path, Audit]) -> None:
    run, found = audited
    summary = read_experiment(run).audit
    assert summary is not None
    read = summary.whole
    assert read is not None
    assert read.layers == list(found.layers)
    assert [(score.key, score.title) for score in read.scores] == [(score.key, score.title) for score in found.scores]
    for name, values in found.damage.items():
        np.testing.assert_allclose(read.damage[name], values, rtol=1e-3)
    assert read.additivity()["all outputs"].keys() == found.additivity()["all outputs"].keys()
    assert read.favoured.key == found.favoured.key
    names = {part for layer in found.layers for part in layer.block.replace(".", " ").split()}
    for draw in (_scores, _attribution):
        lines = [" ".join(each.get_text().split()) for each in draw(read, Wording("zh")).findobj(Text)]
        assert english_in("\n".join(lines), names) == set()


def test_its_pairs_stand_on_the_page(audited: tuple[Path, Audit]) -> None:
    """Sketched and true damage of every layer and format, mean over camera, depth and points."""
    run, found = audited
    summary, local = (
        read_experiment(run).audit,
        ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf"),
    )
    assert summary is not None
    (chart,) = audit_pairs(summary, Wording("en"))
    pairs = [
        (sum(found.sketched[name][row, column] for name in local) / 5,
         sum(found.damage[name][row, column] for name in local) / 5)
        for column in range(len(found.schemes)) for row in range(len(found.layers))
    ]  # fmt: skip
    drawn = [(point.x, point.y) for point in chart.points]
    np.testing.assert_allclose(drawn, [pair for pair in pairs if min(pair) > 0], rtol=1e-3)
    assert chart.line == "equal"
    assert audit_pairs(summary._replace(whole=None), Wording("en")) == []


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["tables", "json"])
def test_the_command_shows_it(
    audited: tuple[Path, Audit], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr("analysis.commands.audit.make_audit", lambda *_, **__: audited[1])
    shown = cli("audit", "--run", audited[0], *options)
    if options:
        assert the_json(shown)["layers"] == len(audited[1].layers)
        return
    assert shown.code == 0
    for title in ("Scores against true damage", "Plans made from every score", "Who pays", "Which tokens", "stable"):
        assert title in shown.out
    assert max(len(line) for line in shown.out.splitlines() if line.startswith("─")) <= 120


@pytest.mark.parametrize(
    "option", [("--stride", "2"), ("--sampling", "random"), ("--max-images", "3")], ids=lambda o: o[0]
)
def test_rooms_are_rendered_and_not_chosen_from(audited: tuple[Path, Audit], option: tuple[str, str]) -> None:
    shown = cli("audit", "--run", audited[0], *option)
    assert shown.code == 2
    assert f"{option[0]} chooses among pictures" in shown.err


def test_inspect_shows_one_layer(run: Path) -> None:
    name = "aggregator.frame_blocks.0.mlp.fc1"
    values = the_json(cli("inspect", "frame_blocks.0.mlp.fc1", "--run", run, "--json"))
    profile = open_profile(run)
    row = [layer.name for layer in profile.layers].index(name)
    assert values["layer"]["name"] == name
    assert [found["size_bytes"] for found in values["formats"]] == profile.size_bytes[row].tolist()
    assert sum(values["weight"]["histogram"]) == profile.layers[row].weights
    assert (run / f"layer-{name}.png").read_bytes().startswith(b"\x89PNG")
    shown = cli("inspect", name, "--run", run)
    assert shown.code == 0
    assert "What every format does" in shown.out


def test_what_cannot_be_shown_is_refused(run: Path, tmp_path: Path) -> None:
    assert_refused(cli("inspect", "mlp.fc1", "--run", run), "layers end so", "frame_blocks.0.mlp.fc1")
    assert_refused(cli("audit", "--run", tmp_path), "no such file", "profile")
    assert_refused(cli("audit", "--run", run, "--num-scenes", -1), "--num-scenes")


def test_plans_are_moved_from_run_to_run(run: Path, tmp_path: Path) -> None:
    """To a copy, where they are those that are made there."""
    copied = Path(shutil.copytree(run, tmp_path / "copy"))
    values = the_json(cli("audit", "--transfer", run, copied, "--json"))
    assert values["places"] == ["run", "copy"]
    moved = [row for row in values["rows"] if row["calibration"] in values["places"]]
    assert [row["regret"] for row in moved] == pytest.approx([1.0] * 4)
    assert [row["correlation"] for row in moved] == pytest.approx([1.0] * 4)
    assert json.loads((run / "transfer.json").read_text())["rows"] == values["rows"]
    assert (run / "transfer.png").read_bytes().startswith(b"\x89PNG")
    assert_refused(cli("audit", "--transfer", run), "--transfer", "two runs or more")
    assert_refused(cli("audit", run), "--transfer", "--run")


@pytest.mark.slow
def test_scenes_in_the_place_of_a_run_are_profiled_once(run: Path, photo_folder: Path, tmp_path: Path) -> None:
    """Rendered rooms against photographs, by their names alone; the second time nothing is profiled."""
    photos = f"photos:{photo_folder}"
    ran = [cli("audit", "--transfer", run, photos, "--num-scenes", 1, "--json") for _ in range(2)]
    first, second = map(the_json, ran)
    assert first["places"] == ["run", photos]
    assert "profiling" in ran[0].err
    assert "profiling" not in ran[1].err
    assert first["rows"] == second["rows"]
    (folder,) = (run / "transfer").iterdir()
    known = open_profile(folder / "profile.h5").facts
    assert known["scene_source"]["folder"] == str(photo_folder)
    assert known["model_fingerprint"] == open_profile(run / "profile.h5").facts["model_fingerprint"]
    assert first["scenes"]["run"] != first["scenes"][photos]
    alone = ("audit", "--transfer", photos, "synthetic", "--run", tmp_path / "none")
    assert_refused(cli(*alone), f"--transfer {photos}", "--model")
