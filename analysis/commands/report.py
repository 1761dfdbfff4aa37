"""The command ``report``."""

from __future__ import annotations

from analysis.commands.options import DEFAULT_RUN, OutputOptions, RunDir
from analysis.commands.screen import session
from analysis.steps import show_evaluation

EXAMPLES = (
    "report",
    "report --run runs/photos",
)


def report(*, run: RunDir = DEFAULT_RUN, output: OutputOptions) -> None:
    """Show the last evaluation again.

    Redraws its text report and its charts too.
    """
    with session(output, run) as screen:
        screen.show(show_evaluation(run))
