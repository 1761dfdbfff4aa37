"""The command ``export``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands.options import DEFAULT_RUN, OutputOptions, RunDir, RunModel, Weights
from analysis.commands.screen import session
from analysis.steps import make_checkpoint

EXAMPLES = (
    "export",
    "export --scheme int8_per_channel_sym",
)


def export(
    *,
    run: RunDir = DEFAULT_RUN,
    scheme: Annotated[
        str, typer.Option("--scheme", metavar="NAME", help="plan, or a format's name for every layer.")
    ] = "plan",
    weights: Weights = "pretrained",
    model: RunModel = None,
    output: OutputOptions,
) -> None:
    """Write a packed checkpoint that loads without the original.

    Writes model-<scheme>.safetensors and a summary beside it.
    """
    with session(output, run) as screen:
        with screen.progress() as progress:
            view = make_checkpoint(run, scheme, progress, weights=weights, model_name=model, say=screen.say)
        screen.show(view)
