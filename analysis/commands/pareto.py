"""The command ``pareto``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands.options import DEFAULT_BUDGET, DEFAULT_RUN, AsJson, Budget, Debug, Device, RunDir
from analysis.commands.screen import session
from analysis.steps import make_pareto
from mixedprec import Request

EXAMPLES = (
    "pareto",
    "pareto --points 100 --measure 12",
    "pareto --model vggt-1b --measure 0",
)


def pareto(
    budget: Budget = DEFAULT_BUDGET,
    points: Annotated[int, typer.Option("--points", metavar="N", help="Budgets of the predicted front.")] = 50,
    measure: Annotated[
        int, typer.Option("--measure", metavar="N", help="How many of them are run on held-out scenes; 0: none.")
    ] = 8,
    formats: Annotated[
        str, typer.Option("--formats", metavar="KEYS", help="As for plan; auto is all that were scored.")
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option("--model", "--model_name", metavar="SOURCE", help="A model without a profile; predicted only."),
    ] = None,
    run: RunDir = DEFAULT_RUN,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Draw damage against file size: plans over all budgets, uniform schemes, baselines.

    Baselines stand at the bytes of --budget. Reads profile.h5 and writes pareto.json and pareto.png.
    """
    with session(as_json, debug) as screen:
        with screen.progress() as progress:
            view = make_pareto(
                run, Request(budget, formats=formats), model_name=model, budgets=points, measure=measure, device=device,
                progress=progress,
            )  # fmt: skip
        screen.show(view)
