"""The command ``reconstruct``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import DEFAULT_RUN, NetworkOptions, OutputOptions, Photographs
from analysis.commands.screen import session
from analysis.steps.reconstruction import CONFIDENCE, ReconstructionChoice, make_reconstruction

EXAMPLES = (
    "reconstruct --images photos/ --out room",
    "reconstruct --images photos/ --checkpoint model-plan.safetensors --out room",
    "reconstruct --images photos/ --run runs/default --against fp32 --out room",
)


def reconstruct(
    *,
    photographs: Photographs,
    network: NetworkOptions,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Folder to write; new, empty, or of an earlier reconstruction."),
    ] = DEFAULT_RUN / "reconstruction",
    confidence: Annotated[
        float,
        typer.Option("--confidence", metavar="P", help="Percentile of confidence below which pixels become no points."),
    ] = CONFIDENCE,
    against: Annotated[
        str | None, typer.Option("--against", metavar="fp32", help="Add the differences from the network in FP32.")
    ] = None,
    chunk: Annotated[
        int,
        typer.Option("--chunk", metavar="N", help="Pictures in one pass, at most; 0: as many as fit into memory."),
    ] = 0,
    output: OutputOptions,
) -> None:
    """Reconstruct a place: depth maps, cameras and a coloured cloud of points.

    Writes depth as 16-bit PNG and NPZ, cameras as COLMAP text, points as PLY and previews as PNG. Pictures that do not
    fit into memory at once are done in chunks, which share a picture and are brought into one frame by it.
    """
    choice = ReconstructionChoice(photographs.choice, network.choice, confidence, against, chunk)
    with session(output, choice.network.run) as screen:
        with screen.progress() as progress:
            view = make_reconstruction(out, choice, progress=progress, say=screen.say)
        screen.show(view)
