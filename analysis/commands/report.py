"""The command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import DEFAULT_RUN, OutputOptions, RunDir
from analysis.commands.screen import session
from analysis.steps import make_report

EXAMPLES = (
    "report",
    "report --run runs/photos --lang zh",
    "report --charts charts/",
)

Language = Annotated[str, typer.Option("--lang", metavar="NAME", help="Language of the report: en or zh.")]


Charts = Annotated[
    Path | None, typer.Option("--charts", metavar="DIR", help="Also draw the six charts one by one: PNG, PDF and SVG.")
]


def report(*, run: RunDir = DEFAULT_RUN, lang: Language = "en", charts: Charts = None, output: OutputOptions) -> None:
    """Write the report of the experiment, and show its evaluation again.

    report.html is a page that needs nothing else; the folder report has five parts
    in Markdown: design, process, results, analysis, conclusions. Every figure is
    from the run's files. The evaluation's text report and charts are drawn anew.
    What the run lacks is named with the command that makes it.
    """
    with session(output, run) as screen:
        screen.show(make_report(run, lang, charts))
