"""The command ``pareto``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands.options import (
    DEFAULT_BUDGET,
    DEFAULT_RUN,
    BudgetText,
    Device,
    OutputOptions,
    RunDir,
    ScoreName,
    Workforce,
    model_option,
)
from analysis.commands.screen import session
from analysis.steps import make_pareto
from mixedprec import parse_request
from mixedprec.evidence import SKETCH

EXAMPLES = (
    "pareto",
    "pareto --points 100 --measure 12",
    "pareto --model vggt-1b --measure 0",
    "pareto --axes size,time,damage",
)


def pareto(
    *,
    budget: BudgetText = DEFAULT_BUDGET,
    points: Annotated[int, typer.Option("--points", metavar="N", help="Budgets of the predicted front.")] = 50,
    measure: Annotated[
        int, typer.Option("--measure", metavar="N", help="How many of them are run on held-out scenes; 0: none.")
    ] = 8,
    formats: Annotated[
        str, typer.Option("--formats", metavar="KEYS", help="As for plan; auto is all that one INT8 kernel runs.")
    ] = "auto",
    axes: Annotated[
        str,
        typer.Option(
            "--axes", metavar="NAMES", help="size,damage, or size,time,damage: also within times, by kernels.json."
        ),
    ] = "size,damage",
    score: ScoreName = SKETCH,
    model: Annotated[
        str | None,
        model_option("A model without a profile; predicted only."),
    ] = None,
    run: RunDir = DEFAULT_RUN,
    device: Device = "auto",
    workforce: Workforce,
    output: OutputOptions,
) -> None:
    """Draw damage against file size: plans over all budgets, uniform schemes, baselines.

    Baselines stand at the bytes of --budget. Reads profile.h5 and writes pareto.json and pareto.png, and with time
    among the axes pareto_time.png.
    """
    with session(output, run) as screen:
        with screen.progress() as progress:
            view = make_pareto(
                run, parse_request(budget, formats=formats), model_name=model, score=score, budgets=points,
                measure=measure, axes=axes, device=device, workers=workforce.asked(), progress=progress,
            )  # fmt: skip
        screen.show(view)
