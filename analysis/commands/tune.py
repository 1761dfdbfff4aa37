"""The command ``tune``."""

from __future__ import annotations

from dataclasses import dataclass
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
from analysis.steps import make_tuned
from mixedprec.tuning import OPTIMIZERS, Recipe
from vggtkit.scenes import SceneSource

EXAMPLES = (
    "tune",
    "tune --num-scenes 256 --steps 2000",
    "tune --images my-photos/ --steps 0",
    "tune --optimizer sign --rate 0.005 --scale-rate 0.001 --json",
)
DEFAULT = Recipe()


@dataclass(frozen=True)
class Effort:
    """How long and how fast weights are tuned."""

    block_steps: Annotated[
        int, typer.Option("--block-steps", metavar="N", help="Steps for every block; 0 leaves out this stage.")
    ] = DEFAULT.block_steps
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", help="Steps for the whole model after it; 0 leaves out this stage.")
    ] = DEFAULT.steps
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Scenes in a step.")] = DEFAULT.batch
    rate: Annotated[
        float, typer.Option("--rate", metavar="X", help="Largest learning rate of weights, in steps of codes.")
    ] = DEFAULT.rate
    scale_rate: Annotated[
        float, typer.Option("--scale-rate", metavar="X", help="Largest learning rate of scales, of their logarithm.")
    ] = DEFAULT.scale_rate
    optimizer: Annotated[
        str,
        typer.Option("--optimizer", metavar="NAME", help=f"{' or '.join(OPTIMIZERS)}: the sign of gradients alone."),
    ] = DEFAULT.optimizer
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the order of scenes.")] = DEFAULT.seed

    def recipe(self) -> Recipe:
        """The same, checked."""
        return Recipe(self.block_steps, self.steps, self.batch, self.rate, self.scale_rate, self.optimizer, self.seed)


def tune(
    *,
    run: RunDir = DEFAULT_RUN,
    pictures: PictureOptions,
    num_scenes: Annotated[
        int, typer.Option("--num-scenes", metavar="N", help="Scenes to tune and select on, at most.")
    ] = 64,
    select: Annotated[
        int, typer.Option("--select", metavar="N", help="Of these, scenes that the best weights are chosen on.")
    ] = 8,
    effort: Effort,
    weights_for: Annotated[
        str | None,
        typer.Option("--weights-for", metavar="NAMES", help="What outputs count for: depth=2,pose=1; as in the plan."),
    ] = None,
    model: RunModel = None,
    device: Device = "auto",
    output: OutputOptions,
) -> None:
    """Tune the plan's codes and scales under the outputs of FP32; no labels, the same bytes.

    Block by block, then the whole model, where memory allows; never worse on the selection scenes than where it
    began. Writes model-plan.safetensors, and into plan.json that it is tuned. Stopped at any time, the same command
    goes on.
    """

    def chosen(profiled: SceneSource) -> SceneSource:
        return pictures.held_out(profiled, num_scenes)

    with session(output, run) as screen:
        recipe = effort.recipe()
        with screen.progress() as progress:
            view = make_tuned(
                run, chosen, recipe=recipe, select=select, weights_for=weights_for, device=device, model_name=model,
                progress=progress, say=screen.say,
            )  # fmt: skip
        screen.show(view)
