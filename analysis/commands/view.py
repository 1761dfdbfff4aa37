"""The command ``view``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands.options import NetworkOptions, OutputOptions, Photographs
from analysis.commands.screen import session
from analysis.reconstruction.viewer import LOCALHOST
from analysis.steps.reconstruction import CONFIDENCE, ReconstructionChoice
from analysis.steps.viewing import serve_until_stopped, start_view

EXAMPLES = ("view --images photos/", "view --images photos/ --checkpoint model-plan.safetensors --port 9000")


def view(
    *,
    photographs: Photographs,
    network: NetworkOptions,
    confidence: Annotated[
        float,
        typer.Option("--confidence", metavar="P", help="Percentile of confidence below which pixels become no points."),
    ] = CONFIDENCE,
    chunk: Annotated[
        int, typer.Option("--chunk", metavar="N", help="Pictures in one pass, at most; 0: as many as fit into memory.")
    ] = 0,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; by default for this machine alone.")
    ] = LOCALHOST,
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="Where to listen; the next that is free, if it is taken.")
    ] = 8080,
    output: OutputOptions,
) -> None:
    """Show a place in the browser: FP32 and the packed network side by side.

    Points and cameras that both see, and how far they are apart; runs until Ctrl-C. Writes nothing.
    """
    with session(output) as screen:
        with screen.progress() as progress:
            choice = ReconstructionChoice(photographs.choice, network.choice, confidence, chunk=chunk)
            viewing = start_view(choice, host=host, port=port, progress=progress, say=screen.say)
        screen.show(viewing.view)
        serve_until_stopped(viewing)
