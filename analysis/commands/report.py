"""The command ``report``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands.options import DEFAULT_RUN, OutputOptions, RunDir
from analysis.commands.screen import session
from analysis.steps import make_report

EXAMPLES = (
    "report",
    "report --run runs/photos --lang zh",
)

Language = Annotated[str, typer.Option("--lang", metavar="NAME", help="Language of the report: en or zh.")]


def report(*, run: RunDir = DEFAULT_RUN, lang: Language = "en", output: OutputOptions) -> None:
    """Write the report of the experiment, and show its evaluation again.

    Five parts in Markdown (design, process, results, analysis, conclusions) in the
    folder report of the run, every figure from the run's files. The evaluation's
    text report and charts are drawn anew. What the run lacks is named with the
    command that makes it.
    """
    with session(output, run) as screen:
        screen.show(make_report(run, lang))
