"""The command ``forecast``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands.options import DEFAULT_RUN, OutputOptions, RunDir, model_option
from analysis.commands.screen import session
from analysis.steps.forecast import make_forecast

EXAMPLES = ("forecast --images 1,8,32", "forecast --model vggt-1b --images 50 --size 392x518")


def forecast(
    *,
    images: Annotated[str, typer.Option("--images", metavar="N", help="Numbers of pictures: 8, or 1,8,32.")] = "1,4,32",
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="HxW", help="Of the pictures; as in kernels.json, else as the model is made for."
        ),
    ] = None,
    model: Annotated[
        str | None,
        model_option("A VGGT; the run's model by default, else tiny."),
    ] = None,
    run: RunDir = DEFAULT_RUN,
    output: OutputOptions,
) -> None:
    """Say how much memory and time inference takes, without running it.

    Memory follows from the model's structure, time from kernels.json; beside FP32 stands plan.json, if there is one.
    """
    with session(output, run) as screen:
        with screen.progress() as progress:
            view = make_forecast(run, images, model_name=model, size=size, progress=progress)
        screen.show(view)
