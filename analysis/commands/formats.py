"""The command ``formats``."""

from __future__ import annotations

from typing import Annotated

from analysis.commands.options import DEFAULT_RUN, OutputOptions, RunDir, model_option
from analysis.commands.screen import session
from analysis.steps import formats_view

EXAMPLES = (
    "formats",
    "formats --model vggt-1b",
    "formats --json",
)


def formats(
    *,
    run: RunDir = DEFAULT_RUN,
    model: Annotated[
        str | None,
        model_option("Whose bytes to show; else the run's model, else tiny."),
    ] = None,
    output: OutputOptions,
) -> None:
    """List the weight formats with their bits per weight and the bytes of the model at hand."""
    with session(output) as screen:
        screen.show(formats_view(run, model))
