"""Every picture of a run is in its report, and in a Chinese report drawn in Chinese from the run's files."""

import json
import shutil
from pathlib import Path

import matplotlib.text
import pytest
from matplotlib.figure import Figure

from analysis.report.charts import comprehensive
from analysis.steps import report
from analysis.steps.experiment import read_experiment
from sensitivity import open_profile
from tests.analysis.commands.running import Ran, cli, the_json
from tests.analysis.english import english_in
from vggtkit.core.seal import sealed

pytestmark = pytest.mark.slow

LAYER = "aggregator.frame_blocks.0.mlp.fc1"
DRAWN = {
    "comprehensive_visualizations.png", "depth_differences.png", "point_differences.png", "pareto.png",
    "pareto_time.png", "transfer.png", "plan.png", f"layer-{LAYER}.png",
}  # fmt: skip
TIMED = {"budget_bytes": 9000, "size_bytes": 8000, "seconds": 0.5, "damage": 1e-4, "bound": 1e-5, "executions": {}}
whole = comprehensive.draw


@pytest.fixture(scope="module")
def drawn(finished: tuple[Path, dict[str, Ran]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all pictures but those of an audit; the front over time is made up, as kernels take long to time."""
    folder = tmp_path_factory.mktemp("drawn")
    run, copied = (Path(shutil.copytree(finished[0], folder / name)) for name in ("run", "copy"))
    assert cli("plan", "--run", run, "--draw").code == 0
    assert cli("inspect", LAYER, "--run", run).code == 0
    assert cli("audit", "--transfer", run, copied).code == 0
    assert cli("pareto", "--run", run, "--points", 3, "--measure", 0).code == 0
    pareto = json.loads((run / "pareto.json").read_text())
    (run / "pareto.json").write_text(json.dumps(sealed(pareto | {"time_front": [TIMED], "fp32_seconds": 0.6})))
    (run / "pareto_time.png").write_bytes(b"png")
    return run


@pytest.fixture
def drawn_run(drawn: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(drawn, tmp_path / "run"))


def test_every_chart_of_a_chinese_report_is_in_chinese(drawn_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: dict[str, str] = {}

    def saved(figure: Figure, path: Path, **_: object) -> None:
        lines = [" ".join(each.get_text().split()) for each in figure.findobj(matplotlib.text.Text)]
        texts[Path(path).name] = "\n".join(lines)
        Path(path).write_bytes(b"drawn")

    monkeypatch.setattr(Figure, "savefig", saved)
    monkeypatch.setattr(comprehensive, "draw", whole)
    monkeypatch.setattr(report, "reports_of", lambda *_: {})  # those are in English
    monkeypatch.setattr(report, "wording_of_charts", lambda say: (say, ""))
    values = the_json(cli("report", "--run", drawn_run, "--lang", "zh", "--json"))
    folder = drawn_run / "report.zh" / "3_results"
    assert {path.name for path in folder.glob("*.png")} == DRAWN
    assert {path.name for path in folder.glob("*.png") if path.read_bytes() == b"drawn"} == DRAWN
    assert {Path(each).name for each in values["written"]} >= DRAWN
    profile = open_profile(drawn_run)
    names = {part for layer in profile.layers for part in layer.block.replace(".", " ").split()}
    names |= {"run", "copy", drawn_run.parent.name, str(profile.facts["model"]), "evaluation", "copy/run"}
    assert len(texts) == len(DRAWN)
    left = {name: english_in(text, names) for name, text in texts.items()}
    assert {name: words for name, words in left.items() if words} == {}


def test_what_is_drawn_from_is_read_back(drawn_run: Path) -> None:
    read = read_experiment(drawn_run)
    assert not [each for each in read.absent if each.file != "score_audit.json"]
    (inspection,) = read.inspections
    profile = open_profile(drawn_run)
    row = [layer.name for layer in profile.layers].index(LAYER)
    assert inspection.layer == profile.layers[row]
    assert [each.total for each in inspection.formats] == pytest.approx(profile.total_damage[row].tolist())
    assert read.transfer is not None
    assert [move.regret for move in read.transfer.moved] == pytest.approx([1.0, 1.0])
    assert read.pareto is not None and read.pareto.timed is not None
    assert read.pareto.timed.points[0].seconds == TIMED["seconds"]


def test_a_layer_of_another_model_is_named_and_left_out(drawn_run: Path) -> None:
    path = drawn_run / f"layer-{LAYER}.json"
    values = json.loads(path.read_text())
    values["provenance"]["model_fingerprint"] = "f" * 16
    path.write_text(json.dumps(sealed(values)))
    (drawn_run / "transfer.json").write_text("[]")
    absent = {each.file: each.command for each in read_experiment(drawn_run).absent}
    assert absent[path.name] == f"python cli.py inspect {LAYER} --run {drawn_run}"
    assert absent["transfer.json"] == f"python cli.py audit --transfer {drawn_run} OTHER_RUN"
    assert cli("report", "--run", drawn_run).code == 0


def test_a_drawing_of_an_earlier_plan_is_drawn_anew(drawn_run: Path) -> None:
    (drawn_run / "plan.png").write_bytes(b"of an earlier plan")
    assert cli("report", "--run", drawn_run).code == 0
    assert (drawn_run / "report" / "3_results" / "plan.png").read_bytes().startswith(b"\x89PNG")
