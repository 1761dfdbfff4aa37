"""The command ``plan``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.steps import make_plan
from commands.options import DEFAULT_BUDGET, DEFAULT_RUN, AsJson, Budget, Debug, RunDir
from commands.screen import session

EXAMPLES = (
    "plan --budget 600MB",
    "plan --budget 4.2bpw --formats +int3",
    "plan --budget 15% --policy sensitive",
)


def plan(
    budget: Budget = DEFAULT_BUDGET,
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            metavar="NAME",
            help="optimal (proven least damage) or sensitive (INT8 for sensitive attention and heads).",
        ),
    ] = "optimal",
    formats: Annotated[
        str,
        typer.Option(
            "--formats",
            metavar="KEYS",
            help="auto, or e.g. int8,int4 or +int3; auto adds 3-bit groups where the budget is tight.",
        ),
    ] = "auto",
    run: RunDir = DEFAULT_RUN,
    keep: Annotated[
        str,
        typer.Option("--keep", metavar="FORMAT", help="How norms, biases and tokens are stored: fp16 or fp32."),
    ] = "fp16",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Choose a format for every layer under a byte budget.

    Reads profile.h5 and writes plan.json.
    """
    with session(as_json, debug) as screen:
        with screen.progress() as progress:
            view = make_plan(run, budget, policy=policy, formats=formats, keep=keep, progress=progress)
        screen.show(view)
