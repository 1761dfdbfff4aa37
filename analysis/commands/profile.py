"""The command ``profile``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from analysis.commands.options import (
    DEFAULT_RUN,
    Device,
    Model,
    NumScenes,
    OutputOptions,
    PictureOptions,
    Resolution,
    RunDir,
    Seed,
    WeightsKind,
    Workforce,
    scene_source,
)
from analysis.commands.screen import session
from analysis.steps import make_profile, profile_view
from vggtkit.core.errors import InputError
from vggtkit.subject import INPUTS

EXAMPLES = (
    "profile",
    "profile --images photos/ --run runs/photos",
    "profile --scenes rgbd:recording/ --stride 5 --sampling random",
    "profile --model vggt-1b --images photos/ --max-images 8",
    "profile --fold",
    "profile --workers 4",
    "profile --model my_models:build --inputs my_models:pictures --roles roles.toml",
)


@dataclass(frozen=True)
class Sketched:
    """How damage is estimated, and of what."""

    probes: Annotated[
        int,
        typer.Option(
            "--probes",
            metavar="N",
            help="Random vectors per output and scene that damage is estimated with; 0: 4, of large networks 1.",
        ),
    ] = 0
    fold: Annotated[
        bool,
        typer.Option(
            "--fold",
            help="First move outliers of activations into weights, where that lowers damage in INT8 execution; what "
            "the network computes stays.",
        ),
    ] = False
    rounding: Annotated[
        str,
        typer.Option(
            "--rounding",
            metavar="NAME",
            help="Score too what this rounding leaves of the errors, for plan to plan with: gptq, nearest (nothing), "
            "or auto: gptq but for large networks.",
        ),
    ] = "auto"


def profile(
    *,
    run: RunDir = DEFAULT_RUN,
    model: Model = "tiny",
    weights: WeightsKind = "pretrained",
    pictures: PictureOptions,
    num_scenes: NumScenes = 8,
    resolution: Resolution = None,
    sketched: Sketched,
    disk_budget: Annotated[
        str, typer.Option("--disk-budget", metavar="SIZE", help="The profile takes at most this much of the disk.")
    ] = "4GB",
    device: Device = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype", metavar="NAME", help="fp32, or bf16, fp16 for the trunk; auto: as published on CUDA, else fp32."
        ),
    ] = "auto",
    inputs: Annotated[
        str | None,
        typer.Option(
            "--inputs", metavar="FUNCTION", help="package.module:function that yields the tensors of each scene."
        ),
    ] = None,
    roles: Annotated[
        str | None,
        typer.Option("--roles", metavar="FILE", help="TOML with name patterns that tell the roles of layers."),
    ] = None,
    seed: Seed = 0,
    workforce: Workforce,
    output: OutputOptions,
) -> None:
    """Measure every layer under FP32 and the uniform schemes.

    Writes profile.h5 into the run's folder.
    """
    with session(output, run) as screen:
        source = scene_source(
            pictures.images, _asked_scenes(pictures.scenes, inputs), count=num_scenes, views=pictures.views, seed=seed,
            max_images=pictures.max_images, stride=pictures.stride, sampling=pictures.sampling, resolution=resolution,
        )  # fmt: skip
        with screen.progress() as progress:
            made = make_profile(
                run, model, weights, source, probes=sketched.probes, disk_budget=disk_budget, device=device, seed=seed,
                dtype=dtype, roles=roles, folds=sketched.fold, rounding=sketched.rounding, workers=workforce.asked(),
                progress=progress,
                say=screen.say,
            )  # fmt: skip
        screen.show(profile_view(made))


def _asked_scenes(scenes: str | None, inputs: str | None) -> str | None:
    """``--inputs FUNCTION`` is short for ``--scenes inputs:FUNCTION``."""
    if inputs is None:
        return scenes
    if scenes is not None:
        raise InputError("--inputs and --scenes are both given; --inputs X is short for --scenes inputs:X")
    return f"{INPUTS}:{inputs}"
