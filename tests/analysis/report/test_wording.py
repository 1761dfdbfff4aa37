"""Every sentence of a report has its translation, about the same values."""

import ast
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import analysis.report
from analysis.audit.attribution import ClassShares
from analysis.evaluation.verdict import verdict
from analysis.report.document import Table, Text
from analysis.report.experiment import (
    Absent,
    AuditSummary,
    Experiment,
    ParetoPoint,
    ParetoSummary,
    ScoreSummary,
)
from analysis.report.page import page
from analysis.report.parts import REPORT_PARTS
from analysis.report.parts.findings import by_tokens
from analysis.report.renderers import RENDERERS
from analysis.report.wording import LANGUAGES, Wording, catalogue, fields_of
from tests.analysis.english import english_in
from tests.analysis.example import example_evaluation
from vggtkit.core.command_log import LoggedCommand
from vggtkit.quant import UNIFORM_SCHEMES

FOLDER = Path(analysis.report.__file__).parent
OTHERS = [language for language in LANGUAGES if language != "en"]


def said_in_code() -> Iterator[str]:
    """What stands as a literal in a call of ``say``, in modules and in templates."""
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_said = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say" and node.args
            if is_said and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value
    for path in FOLDER.rglob("*.j2"):
        yield from (match[2] for match in re.finditer(r"say\((['\"])(.*?)\1", path.read_text(encoding="utf-8")))


class Listening(Wording):
    """Remembers what it was asked to say."""

    def __init__(self) -> None:
        super().__init__("en")
        self.said: set[str] = set()

    def __call__(self, sentence: str, **values: object) -> str:
        self.said.add(sentence)
        return super().__call__(sentence, **values)


def experiments() -> Iterator[Experiment]:
    """Runs that went more or less far."""
    evaluation, run = example_evaluation(), Path("runs/default")
    whole = Experiment(
        run, evaluation=evaluation, verdict=verdict(evaluation),
        pareto=ParetoSummary((ParetoPoint("plan", "plan", 5, 1e-4, 1e-4),), ()),
        audit=AuditSummary(
            1, ("int4_group_128",), "sketch", (ScoreSummary("sketch", 1.0, 0.9, 1.0, 1.0, 1.1),),
            (ClassShares("frame", "int4_group_128", {"camera": 0.25, "patch": math.nan}, 0.5),),
        ),
        commands=(LoggedCommand("plan", "2026-01-01", 1.0, 2, "error: no", ("a note",), {"torch": "2"}),),
        files={"pareto.png": 1},
    )  # fmt: skip
    yield whole
    yield Experiment(run, absent=(Absent("plan.json", "no such file", "plan"),))
    yield replace(whole, pareto=ParetoSummary((), ("INT4",)), commands=())


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_is_translated(language: str) -> None:
    say = Listening()
    for experiment in experiments():
        for part in (*REPORT_PARTS.values(), page):
            part(experiment, say)
    wanted = say.said | set(said_in_code())
    assert len(wanted) > 150
    assert wanted - catalogue(language).keys() == set()


def test_which_tokens_carry_the_damage_stands_on_the_page() -> None:
    """The audit's shares as they are; without them the command that measures them."""
    whole, *_ = experiments()
    table = by_tokens(whole, Wording("en"))
    assert isinstance(table, Table)
    assert table.columns == ("stack", "format", "camera", "patch", "whole / sum")
    assert table.texts == [("frame", "INT4 g128", "25.0%", "n/a", "0.50")]
    without = by_tokens(replace(whole, audit=None), Wording("en"))
    assert isinstance(without, Text)
    assert without.lines[1].endswith("audit --run runs/default")


@pytest.mark.parametrize("language", OTHERS)
def test_translations_are_about_the_same_values(language: str) -> None:
    assert {key for key, value in catalogue(language).items() if fields_of(key) != fields_of(value)} == set()
    assert all(catalogue(language).values())


def test_a_verdict_and_a_table_that_were_made_elsewhere_are_translated() -> None:
    say = Wording("zh")
    answer = verdict(example_evaluation())
    sentences = [say.translated(one) for one in (*answer.sentences, answer.comparison)]
    assert all(one != other for one, other in zip(sentences, (*answer.sentences, answer.comparison), strict=True))
    assert "5.67 MB" in sentences[0]
    assert "2.30e-4" in sentences[-1]
    table = say.table(Table("Ratings", ("metric", "layer-7"), [("MAE", "n/a")], words=("metric",)))
    assert table.title == catalogue("zh")["Ratings"]
    assert table.columns == (catalogue("zh")["metric"], "layer-7")
    assert table.texts == [("MAE", "n/a")]


def test_a_long_text_is_left_as_it_is() -> None:
    text = "The plan (" * 10**5
    assert Wording("zh").translated(text) == text


@pytest.mark.parametrize("name", [*REPORT_PARTS, "page"])
def test_no_english_is_left_in_a_chinese_report(name: str) -> None:
    """But names, and what commands said, which is quoted."""
    say, example = Wording("zh"), example_evaluation()
    names = {
        *example.scenes,
        "a note",
        "error: no",
        "default",
        example.executed,
        example.weights_note,
        "tiny",
        "torch",
        *UNIFORM_SCHEMES,
    }
    for experiment in experiments():
        text = RENDERERS["markdown"].render({**REPORT_PARTS, "page": page}[name](experiment, say))
        assert english_in(text, names) == set()
