"""The command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import DEFAULT_RUN, OutputOptions, RunDir
from analysis.commands.screen import session
from analysis.steps import make_comparison, make_report
from vggtkit.core.errors import InputError

EXAMPLES = (
    "report",
    "report --run runs/photos --lang zh",
    "report --charts charts/",
    "report --compare runs/rooms runs/photos",
)

Language = Annotated[str, typer.Option("--lang", metavar="NAME", help="Language of the report: en or zh.")]


Charts = Annotated[
    Path | None, typer.Option("--charts", metavar="DIR", help="Also draw the six charts one by one: PNG, PDF and SVG.")
]


Compare = Annotated[
    bool, typer.Option("--compare", help="Compare the named runs instead; the first is what the others stand beside.")
]
Runs = Annotated[list[Path] | None, typer.Argument(metavar="RUN", help="Runs to compare, with --compare.")]


def report(
    *,
    runs: Runs = None,
    compare: Compare = False,
    run: RunDir = DEFAULT_RUN,
    lang: Language = "en",
    charts: Charts = None,
    output: OutputOptions,
) -> None:
    """Write the report of the experiment, and show its evaluation again.

    report.html is a page that needs nothing else; the folder report has five parts
    in Markdown: design, process, results, analysis, conclusions. Every figure is
    from the run's files. The evaluation's text report and charts are drawn anew.
    What the run lacks is named with the command that makes it.

    With --compare several runs stand side by side (other scenes, views, models,
    plans): comparison.md and comparison.html in the folder of the first, with
    intervals of the differences where the scenes are the same.
    """
    named = runs or []
    with session(output, named[0] if compare and named else run) as screen:
        if compare:
            screen.show(make_comparison(named[0] if named else run, named[1:], lang))
            return
        if named:
            raise InputError(f"{named[0]}: runs are named to --compare them; one run is named by --run {named[0]}")
        screen.show(make_report(run, lang, charts))
