"""A run folder -> the report of the experiment: five parts in Markdown, a page, and the evaluation shown again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.evaluation.results import Evaluation
from analysis.report.charts import comprehensive
from analysis.report.charts.difference_charts import draw_differences
from analysis.report.charts.fonts import wording_of_charts
from analysis.report.charts.pareto_chart import draw_pareto
from analysis.report.comparison import compare, comparison_values
from analysis.report.document import Table, Text
from analysis.report.experiment import Experiment
from analysis.report.page import page
from analysis.report.parts import REPORT_PARTS
from analysis.report.parts.outcome import CHARTS as PICTURES
from analysis.report.renderers import RENDERERS
from analysis.report.wording import Wording
from analysis.steps.evaluation import differences_of, evaluation_view, worst_of, write_reports
from analysis.steps.experiment import NO_FILE, read_evaluation, read_experiment
from analysis.steps.run_folder import CHARTS, REPORT, RESULTS, check_writable
from analysis.steps.view import View
from vggtkit.core.arrays import Map
from vggtkit.core.atomic import remove_partials, replacing_all
from vggtkit.core.errors import InputError
from vggtkit.core.escaping import printable
from vggtkit.core.program import command, setting

PARETO_CHART = "pareto.png"
COPIED = (RESULTS, REPORT, *PICTURES)
"""Files of the run that the third part holds, where they are there."""


def make_report(run: Path, language: str = "en", charts: Path | None = None) -> View:
    """Write the report of an experiment from the files of its run; text and charts of the evaluation are drawn anew.

    Args:
        run: the folder.
        language: of the report, ``en`` or ``zh``.
        charts: a folder for the six charts one by one, as PNG, PDF and SVG.

    Returns:
        What the evaluation says, and what was written.

    Raises:
        InputError: nothing of a run can be read, its results are damaged or foreign (the report is then written
            without them), the folder cannot be written to, or the language is none that reports are written in.
    """
    say = Wording(language)
    check_writable(run)
    experiment = read_experiment(run)
    if experiment.evaluation is not None:
        write_reports(experiment.evaluation, run, answer=experiment.verdict)
        experiment = replace(experiment, files=read_experiment(run, experiment.evaluation).files)
    drawing, note = wording_of_charts(say)
    written = write_parts(experiment, say, drawing)
    refused = [each for each in experiment.absent if each.file == RESULTS and each.reason != NO_FILE]
    if experiment.evaluation is None and refused:
        reason, remedy = refused[0].reason, refused[0].command
        made = "" if remedy in reason else f"; make it with `{remedy}`"
        raise InputError(f"{reason}{made}. All else of the run is reported in {written[0]}")
    if charts is not None:
        if experiment.evaluation is None:
            raise InputError(f"{setting('charts', charts)}: there is no evaluation to draw; {_remedy(experiment)}")
        written += comprehensive.draw_each(experiment.evaluation, charts, experiment.verdict, drawing)
    return _view(experiment, written, [note] if note else [])


def _remedy(experiment: Experiment) -> str:
    return f"make one with `{command('evaluate', '--run', experiment.run)}`"


def folder_name(language: str) -> str:
    """Where the parts lie in a run.

    >>> folder_name("en"), folder_name("zh")
    ('report', 'report.zh')
    """
    return "report" if language == "en" else f"report.{language}"


def write_parts(experiment: Experiment, say: Wording, drawing: Wording) -> list[Path]:
    """Write the page and the five parts, and beside the third the files that it shows; all change, or none.

    Args:
        experiment: what the run holds.
        say: the words of the report.
        drawing: those of its charts.
    """
    folder = experiment.run / folder_name(say.language)
    for place in (folder, folder / "3_results"):
        remove_partials(place)
    without = () if experiment.evaluation else (RESULTS,)
    copies = [name for name in COPIED if name in experiment.files and name not in without]
    texts = {folder / name: RENDERERS["markdown"].render(part(experiment, say)) for name, part in REPORT_PARTS.items()}
    texts = {folder.with_name(f"{folder.name}.html"): RENDERERS["html"].render(page(experiment, say)), **texts}
    paths = [*texts, *(folder / "3_results" / name for name in copies)]
    drawn = _drawn(experiment, drawing)
    with replacing_all(paths) as temporaries:
        for temporary, text in zip(temporaries, texts.values(), strict=False):
            temporary.write_text(text, encoding="utf-8")
        for temporary, name in zip(temporaries[len(texts) :], copies, strict=True):
            if name in drawn:
                drawn[name](temporary)
            else:
                shutil.copyfile(experiment.run / name, temporary)
    return paths


def _drawn(experiment: Experiment, say: Wording) -> dict[str, Callable[[Path], None]]:
    """Charts that are drawn in the words of the report rather than copied, by name; none in English."""
    evaluation, answer, maps = experiment.evaluation, experiment.verdict, experiment.maps
    if say.language == "en":
        return {}
    front = experiment.pareto.whole if experiment.pareto else None
    traced: dict[str, Callable[[Path], None]] = {}
    if front is not None:
        traced[PARETO_CHART] = lambda path: draw_pareto(front, path, say)
    if evaluation is None:
        return traced
    pictures = differences_of(maps, say) if maps else {}
    drawn: dict[str, Callable[[Path], None]] = {
        name: partial(_draw_differences, shares, maps.pictures[0], evaluation, title, say)
        for name, (title, shares) in pictures.items()
        if maps
    }
    return traced | drawn | {CHARTS: lambda path: comprehensive.draw(evaluation, path, answer, say)}


def _draw_differences(
    shares: Mapping[str, Map], picture: NDArray[np.uint8], evaluation: Evaluation, title: str, say: Wording, path: Path
) -> None:
    draw_differences(shares, picture, evaluation, title, path, say)


def _view(experiment: Experiment, written: list[Path], notes: Sequence[str]) -> View:
    """What was written and what was not, below what the evaluation says."""
    names = [str(path) for path in written]
    absent = [each._asdict() for each in experiment.absent]
    lines = [f"not in this run: {each.file} ({printable(each.reason)}); {each.command}" for each in experiment.absent]
    lines += [*notes, f"written: {', '.join(names[:6])}"]
    if experiment.evaluation is None:
        return View({"written": names, "absent": absent}, (), lines)
    worst = None
    if experiment.plan is not None and experiment.profile is not None and experiment.evaluation.plan is not None:
        worst = worst_of(experiment.evaluation, experiment.plan, experiment.profile)
    assert experiment.verdict is not None
    view = evaluation_view(experiment.evaluation, experiment.run, experiment.verdict, worst, lines)
    return View({**view.values, "written": names, "absent": absent}, view.tables, view.lines)


COMPARISON = "comparison"
"""Name of the files of a comparison, without their suffixes."""


def make_comparison(run: Path, others: Sequence[Path], language: str = "en") -> View:
    """Compare the evaluations of several runs; writes ``comparison.md`` and ``comparison.html`` beside the first.

    Args:
        run: the run that the others are compared with; the files are written there.
        others: at least one.
        language: of the files.

    Raises:
        InputError: fewer than two runs, a run without an evaluation, or as `make_report`.
    """
    say = Wording(language)
    if not others:
        example = command("report", "--compare", "runs/rooms", "runs/photos")
        raise InputError(f"{setting('compare')}: one run is compared with nothing; name two or more, say `{example}`")
    check_writable(run)
    evaluations = [(each, read_evaluation(each)) for each in (run, *others)]
    document = compare(evaluations, say)
    suffix = "" if language == "en" else f".{language}"
    paths = [run / f"{COMPARISON}{suffix}{RENDERERS[key].suffix}" for key in ("markdown", "html")]
    with replacing_all(paths) as temporaries:
        for temporary, key in zip(temporaries, ("markdown", "html"), strict=True):
            temporary.write_text(RENDERERS[key].render(document), encoding="utf-8")
    tables = [block for block in document.blocks() if isinstance(block, Table)]
    warned = [line for block in document.blocks() if isinstance(block, Text) for line in block.lines]
    names = [str(path) for path in paths]
    answer = {
        "runs": [str(each) for each, _ in evaluations],
        "differences": comparison_values(evaluations),
        "written": names,
    }
    return View(answer, tables, [*warned, f"written: {', '.join(names)}"])
