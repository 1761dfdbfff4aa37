"""A run folder -> the report of the experiment: five parts in Markdown, a page, and the evaluation shown again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from analysis.report.charts import comprehensive
from analysis.report.charts.fonts import wording_of_charts
from analysis.report.comparison import compare, comparison_values
from analysis.report.document import Table, Text
from analysis.report.experiment import Experiment
from analysis.report.page import page
from analysis.report.parts import REPORT_PARTS
from analysis.report.parts.outcome import illustrations_of
from analysis.report.renderers import RENDERERS
from analysis.report.wording import Wording
from analysis.steps.evaluation import evaluation_view, reports_of, worst_of
from analysis.steps.experiment import NO_FILE, read_evaluation, read_experiment
from analysis.steps.report_charts import redrawn
from analysis.steps.run_folder import REPORT, RESULTS, check_writable
from analysis.steps.view import View
from vggtkit.core.atomic import Write, of_text, remove_partials, replacing_all
from vggtkit.core.errors import InputError
from vggtkit.core.escaping import printable
from vggtkit.core.program import command, setting

COPIED = (RESULTS, REPORT)
"""Files of the run that the third part holds beside the charts, where they are there."""


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
    drawing, note = wording_of_charts(say)
    anew: dict[Path, Write] = {}
    if experiment.evaluation is not None and experiment.verdict is not None:
        anew = reports_of(experiment.evaluation, run, experiment.verdict)
    alone = _charts_alone(experiment, charts, drawing)
    written = write_parts(experiment, say, drawing, anew, alone)
    notes = [note] if note else _left_in_english(experiment, say)
    refused = [each for each in experiment.absent if each.file == RESULTS and each.reason != NO_FILE]
    if experiment.evaluation is None and refused:
        reason, remedy = refused[0].reason, refused[0].command
        made = "" if remedy in reason else f"; make it with `{remedy}`"
        raise InputError(f"{reason}{made}. All else of the run is reported in {written[0]}")
    if charts is not None and not alone:
        raise InputError(f"{setting('charts', charts)}: there is no evaluation to draw; {_remedy(experiment)}")
    return _view(experiment, written, notes)


def _charts_alone(experiment: Experiment, folder: Path | None, drawing: Wording) -> dict[Path, Write]:
    """The charts one by one, where they are asked for and there is something to draw."""
    if folder is None or experiment.evaluation is None:
        return {}
    return comprehensive.one_by_one(experiment.evaluation, folder, experiment.verdict, drawing)


def _remedy(experiment: Experiment) -> str:
    return f"make one with `{command('evaluate', '--run', experiment.run)}`"


def folder_name(language: str) -> str:
    """Where the parts lie in a run.

    >>> folder_name("en"), folder_name("zh")
    ('report', 'report.zh')
    """
    return "report" if language == "en" else f"report.{language}"


def write_parts(
    experiment: Experiment, say: Wording, drawing: Wording, anew: Mapping[Path, Write], alone: Mapping[Path, Write]
) -> list[Path]:
    """Write the page and the five parts, and beside the third the files that it shows; all change, or none.

    Args:
        experiment: what the run holds.
        say: the words of the report.
        drawing: those of its charts.
        anew: files of the run that are made anew with it, and how.
        alone: files elsewhere, and how.

    Returns:
        The files of the report, its page first, and those elsewhere.

    Raises:
        InputError: one cannot be written; all are as they were, the files of the run too.
    """
    folder = experiment.run / folder_name(say.language)
    for place in (folder, folder / "3_results"):
        remove_partials(place)
    experiment = replace(experiment, files={**experiment.files, **{path.name: 0 for path in anew}})
    without = () if experiment.evaluation else (RESULTS,)
    files = [name for name in COPIED if name in experiment.files and name not in without]
    copies = [*files, *illustrations_of(experiment, say)]
    documents = [folder.with_name(f"{folder.name}.html"), *(folder / name for name in REPORT_PARTS)]
    shown = [folder / "3_results" / name for name in copies]
    drawn = redrawn(experiment, drawing)
    paths = list(dict.fromkeys([*anew, *documents, *shown, *alone]))  # charts may be asked for in the run itself
    with replacing_all(paths) as temporaries:
        place_of = dict(zip(paths, temporaries, strict=True))
        for path, write in [*anew.items(), *alone.items()]:
            write(place_of[path])
        sizes = {path.name: place_of[path].stat().st_size for path in anew}
        experiment = replace(experiment, files={**experiment.files, **sizes})
        for path, text in zip(documents, _texts(experiment, say), strict=True):
            of_text(text)(place_of[path])
        for path in shown:
            source = experiment.run / path.name
            draw = drawn.get(path.name) or partial(shutil.copyfile, place_of.get(source, source))
            draw(place_of[path])
    return [*documents, *shown, *alone]


def _texts(experiment: Experiment, say: Wording) -> Iterator[str]:
    """The page, then the parts."""
    yield RENDERERS["html"].render(page(experiment, say))
    for part in REPORT_PARTS.values():
        yield RENDERERS["markdown"].render(part(experiment, say))


def _left_in_english(experiment: Experiment, say: Wording) -> list[str]:
    """Which charts are copied although the report is in another language."""
    left = sorted(illustrations_of(experiment, say).keys() - redrawn(experiment, say).keys())
    if say.language == "en" or not left:
        return []
    sentence = "These charts stay in English, as the run does not hold what they were drawn from: {names}."
    return [say(sentence, names=", ".join(left))]


def _view(experiment: Experiment, written: list[Path], notes: Sequence[str]) -> View:
    """What was written and what was not, below what the evaluation says."""
    names = [str(path) for path in written]
    absent = [each._asdict() for each in experiment.absent]
    lines = [f"not in this run: {each.file} ({printable(each.reason)}); {each.command}" for each in experiment.absent]
    lines += [*notes, f"written: {', '.join(names[:6])}"]
    if experiment.evaluation is None:
        return View({"written": names, "absent": absent}, (), lines)
    worst = None
    plan, evaluated = experiment.plan, experiment.evaluation.plan
    if plan is not None and evaluated is not None and plan.size_bytes == evaluated.size_bytes and experiment.profile:
        worst = worst_of(experiment.evaluation, plan, experiment.profile)
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
