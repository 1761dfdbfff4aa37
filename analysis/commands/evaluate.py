"""The command ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import (
    DEFAULT_RUN,
    Device,
    OutputOptions,
    PictureOptions,
    RunDir,
    RunModel,
)
from analysis.commands.screen import session
from analysis.steps import make_evaluation
from analysis.steps.rivals import QUICK_SCHEMES, parse_schemes
from vggtkit.scenes import SceneSource

EXAMPLES = (
    "evaluate",
    "evaluate --images other-photos/ --repeats 5",
    "evaluate --execute int8 --resident int8",
    "evaluate --execute onnxruntime",
    "evaluate --execute openvino",
    "evaluate --quick",
    "evaluate --schemes int8_per_channel_sym,int4_group_32 --also runs/other",
    "evaluate --json",
)

REPEATS = {False: 3, True: 1}
"""Timed repeats by whether it is to be quick."""

Executions = Annotated[
    str,
    typer.Option(
        "--execute",
        metavar="NAME",
        help="What executes the plan, for accuracy and time: reference (exact, no faster), int8, cuda, onnxruntime or "
        "openvino.",
    ),
]
Resident = Annotated[
    str,
    typer.Option(
        "--resident",
        metavar="HOW",
        help="Weights of --execute int8 in memory: packed, expanded as they are used, or int8, expanded once.",
    ),
]
Convert = Annotated[
    bool,
    typer.Option("--convert", help="Let --execute int8 round what it does not run once more, to INT8 per channel."),
]


def evaluate(
    *,
    run: RunDir = DEFAULT_RUN,
    pictures: PictureOptions,
    num_scenes: Annotated[
        int, typer.Option("--num-scenes", metavar="N", help="Evaluation scenes, at most; 0: as many as were profiled.")
    ] = 0,
    repeats: Annotated[
        int | None, typer.Option("--repeats", metavar="N", help="Timed repeats of each scheme, 3; 0 leaves out timing.")
    ] = None,
    schemes: Annotated[
        str | None,
        typer.Option("--schemes", metavar="LIST", help="Formats beside the plan, with commas, or none."),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", metavar="PLAN", help="A further plan of the model, a file or a run; may be repeated."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One scene, two schemes, one repeat, where nothing else is asked for.")
    ] = False,
    depth_alignment: Annotated[
        str,
        typer.Option(
            "--depth-alignment",
            metavar="HOW",
            help="What depth is allowed before it is compared with the truth: median, scale_shift or none.",
        ),
    ] = "median",
    execute: Executions = "reference",
    resident: Resident = "packed",
    convert: Convert = False,
    model: RunModel = None,
    device: Device = "auto",
    output: OutputOptions,
) -> None:
    """Compare the plan with FP32 and the uniform schemes.

    Runs them on scenes that were not profiled, and writes comprehensive_results.json, comprehensive_report.txt
    and comprehensive_visualizations.png.
    """

    def chosen(profiled: SceneSource) -> SceneSource:
        return pictures.held_out(profiled, num_scenes or int(quick))

    with session(output, run) as screen:
        compared = QUICK_SCHEMES if quick and schemes is None else parse_schemes(schemes)
        with screen.progress() as progress:
            view = make_evaluation(
                run,
                chosen,
                repeats=REPEATS[quick] if repeats is None else repeats,
                device=device,
                model_name=model,
                depth_alignment=depth_alignment,
                execute=execute,
                resident=resident,
                convert=convert,
                schemes=compared,
                also=also or (),
                progress=progress,
                say=screen.say,
            )
        screen.show(view)
