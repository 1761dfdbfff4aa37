"""The command ``export``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands.options import (
    DEFAULT_RUN,
    OutputOptions,
    PictureOptions,
    RunDir,
    RunModel,
    WeightsKind,
    Workforce,
)
from analysis.commands.screen import session
from analysis.steps import View, make_checkpoint, make_onnx
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting

EXAMPLES = (
    "export",
    "export --scheme int8_per_channel_sym",
    "export --workers 4",
    "export --format onnx",
    "export --format onnx --onnx dynamic --views 4",
    "export --format onnx --onnx qdq --convert --views 4",
)
FILE_FORMATS = ("safetensors", "onnx")


def export(
    *,
    run: RunDir = DEFAULT_RUN,
    scheme: Annotated[
        str, typer.Option("--scheme", metavar="NAME", help="plan, or a format's name for every layer.")
    ] = "plan",
    file_format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="safetensors, for this tool, or onnx, for ONNX Runtime.")
    ] = "safetensors",
    onnx: Annotated[
        str,
        typer.Option(
            "--onnx",
            metavar="STYLE",
            help="Operators of --format onnx: auto, dynamic (faster, 8 bits), nbits (for outliers), exact (FP32), qdq.",
        ),
    ] = "auto",
    convert: Annotated[
        bool,
        typer.Option("--convert", help="Let --onnx qdq round what TensorRT does not take once more, to INT8."),
    ] = False,
    weights: WeightsKind = "pretrained",
    model: RunModel = None,
    pictures: PictureOptions,
    workforce: Workforce,
    output: OutputOptions,
) -> None:
    """Write a packed checkpoint that loads without the original, or an ONNX file.

    Writes model-<scheme>.safetensors and a summary beside it. With --format onnx, model-<scheme>.onnx, for pictures
    of the size of a scene, with which it is compared with torch; --views fixes how many it takes.
    """
    with session(output, run) as screen:
        if file_format not in FILE_FORMATS:
            raise InputError(f"{setting('format', file_format)}: not known; use {' or '.join(FILE_FORMATS)}")
        with screen.progress() as progress:
            view: View = (
                make_checkpoint(
                    run, scheme, progress, weights=weights, model_name=model, workers=workforce.asked(), say=screen.say
                )
                if file_format == "safetensors"
                else make_onnx(
                    run, scheme, lambda profiled: pictures.held_out(profiled, 1), progress, style=onnx,
                    views=pictures.views, convert=convert, weights=weights, model_name=model,
                    workers=workforce.asked(), say=screen.say,
                )
            )  # fmt: skip
        screen.show(view)
