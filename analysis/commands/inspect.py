"""The command ``inspect``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands.options import DEFAULT_RUN, OutputOptions, RunDir, RunModel
from analysis.commands.screen import session
from analysis.steps import inspect_layer

EXAMPLES = (
    "inspect aggregator.frame_blocks.3.attn.qkv",
    "inspect camera_head.embed_pose --run runs/photos",
)


def inspect(
    *,
    layer: Annotated[
        str, typer.Argument(metavar="LAYER", help="Name of a layer, or the end of one; `profile` shows the names.")
    ],
    run: RunDir = DEFAULT_RUN,
    model: RunModel = None,
    output: OutputOptions,
) -> None:
    """Show one layer: weights, activations, outliers, error by format, bytes.

    Reads profile.h5 and writes layer-<name>.png and layer-<name>.json.
    """
    with session(output, run) as screen:
        screen.show(inspect_layer(run, layer, model))
