"""The command ``kernels``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands.options import (
    DEFAULT_RUN,
    OutputOptions,
    PictureOptions,
    Resolution,
    RunDir,
    RunModel,
    WeightsKind,
    evaluation_source,
    scene_source,
)
from analysis.commands.screen import session
from analysis.steps.kernels import make_kernels
from vggtkit.model import check_heads
from vggtkit.scenes import SceneSource

EXAMPLES = (
    "kernels",
    "kernels --model vggt-1b --images photos/ --views 4",
    "kernels --model vggt-1b --heads camera,depth --json",
)


def kernels(
    *,
    run: RunDir = DEFAULT_RUN,
    model: RunModel = None,
    weights: WeightsKind = "pretrained",
    pictures: PictureOptions,
    resolution: Resolution = None,
    heads: Annotated[
        str | None, typer.Option("--heads", metavar="NAMES", help="Heads to keep, of camera,depth,point,track.")
    ] = None,
    seconds: Annotated[
        int, typer.Option("--seconds", metavar="N", help="No further pass begins after these; every one is made once.")
    ] = 90,
    output: OutputOptions,
) -> None:
    """Measure what every layer takes on this machine, in FP32, bfloat16 and whole numbers.

    Takes the run's model and pictures, or those that are named; of a large VGGT one block of every kind, without its
    weights. Writes kernels.json, which plan --max-time and forecast read.
    """

    def chosen(profiled: SceneSource | None) -> SceneSource:
        if profiled is None or resolution is not None:
            return scene_source(
                pictures.images, pictures.scenes, count=1, views=pictures.views, max_images=pictures.max_images,
                stride=pictures.stride, sampling=pictures.sampling, resolution=resolution,
            )  # fmt: skip
        return evaluation_source(
            profiled, pictures.images, pictures.scenes, count=1, views=pictures.views, max_images=pictures.max_images,
            stride=pictures.stride, sampling=pictures.sampling,
        )  # fmt: skip

    with session(output, run) as screen:
        kept = None if heads is None else check_heads([name.strip() for name in heads.split(",")], "--heads")
        with screen.progress() as progress:
            view = make_kernels(
                run, chosen, model_name=model, weights=weights, heads=kept, seconds=seconds, progress=progress,
                say=screen.say,
            )  # fmt: skip
        screen.show(view)
