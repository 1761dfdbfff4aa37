"""The three reports of an evaluation: all or none, and made again from the results."""

import json
import math
from pathlib import Path

import pytest

from analysis.evaluation.results import Evaluation, SchemeResult
from analysis.evaluation.results_file import from_json
from analysis.report.charts import comprehensive as charts
from analysis.steps import show_evaluation
from analysis.steps.evaluation import write_reports
from vggtkit.metrics.outputs import OUTPUTS

FILES = ("comprehensive_results.json", "comprehensive_report.txt", "comprehensive_visualizations.png")


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
    monkeypatch.setattr(charts, "draw", fail)
    with pytest.raises(RuntimeError):
        write_reports(example(0.125), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_report_is_made_again_from_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "draw", lambda _evaluation, path, *_: path.touch())
    write_reports(example(0.25), tmp_path)
    text = (tmp_path / FILES[1]).read_text()
    (tmp_path / FILES[1]).write_text("lost")
    view = show_evaluation(tmp_path)
    assert (tmp_path / FILES[1]).read_text() == text
    assert view.values["holds"] is True
    assert from_json((tmp_path / FILES[0]).read_text()) == example(0.25)


def test_a_damage_that_is_no_number_can_still_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "draw", lambda _evaluation, path, *_: path.touch())
    write_reports(example(math.nan), tmp_path)
    assert json.loads((tmp_path / FILES[0]).read_text())["results"][2]["damage"] is None
    assert show_evaluation(tmp_path).values["holds"] is False


def test_outputs_of_scores_and_of_reports_have_one_order() -> None:
    from sensitivity import OUTPUTS as SCORED

    assert SCORED == OUTPUTS
