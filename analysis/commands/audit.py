"""The command ``audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import (
    DEFAULT_BUDGET,
    DEFAULT_RUN,
    BudgetText,
    Device,
    OutputOptions,
    PictureOptions,
    RunDir,
    RunModel,
    Workforce,
)
from analysis.commands.screen import session
from analysis.steps import audit_view, make_audit, make_transfer
from analysis.steps.transfer import is_source
from vggtkit.core.errors import InputError
from vggtkit.scenes import SceneSource

EXAMPLES = (
    "audit",
    "audit --num-scenes 2 --stability",
    "audit --images other-photos/ --json",
    "audit --workers ray://head:10001",
    "audit --transfer runs/rooms runs/photos",
    "audit --transfer runs/rooms photos:holiday rgbd:recording",
)


def audit(
    *,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="With --transfer: runs to compare, or scenes, such as photos:DIR."),
    ] = None,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer", help="Do scores and plans of the named runs travel? Judge each on scenes of the others."
        ),
    ] = False,
    budget: BudgetText = DEFAULT_BUDGET,
    run: RunDir = DEFAULT_RUN,
    pictures: PictureOptions,
    num_scenes: Annotated[
        int, typer.Option("--num-scenes", metavar="N", help="Held-out scenes, at most; 0: as many as were profiled.")
    ] = 0,
    stability: Annotated[
        bool, typer.Option("--stability", help="Repeat the sketch on other scenes, numbers of views and sizes too.")
    ] = False,
    model: RunModel = None,
    device: Device = "auto",
    workforce: Workforce,
    output: OutputOptions,
) -> None:
    """Do the scores predict damage? Compare them with it.

    Measures on scenes that were not profiled what every layer does alone in every format, and compares every cheap
    score with that: rank correlation, and what plans made from it cost. Shows which outputs, tokens, roles and blocks
    pay. Writes score_audit.json, score_audit.png and who_pays.png.

    On a CPU true damage of a small network is shared among processes, one a core; with OMP_NUM_THREADS=1 there is one.
    --workers shares it among others. What was measured is kept: the same command goes on where it was stopped.

    With --transfer nothing is audited: plans at --budget from every run's profile are measured on the held-out scenes
    of every other, beside the plan made there and the best uniform scheme of its bytes. The gate: rank correlation of
    scores 0.9, moved plans 3 times better than uniform. Scenes in the place of a run (photos:DIR) are profiled first,
    below the first run's folder. Writes transfer.json and transfer.png there.
    """

    def chosen(profiled: SceneSource) -> SceneSource:
        return pictures.held_out(profiled, num_scenes)

    named = runs or []
    first = next((Path(name) for name in named if not is_source(name)), run)
    with session(output, first if transfer else run) as screen:
        if named and not transfer:
            raise InputError(f"{named[0]}: runs are named to --transfer; one run is named by --run {named[0]}")
        if transfer:
            with screen.progress() as progress:
                view = make_transfer(
                    named, home=run, budget=budget, num_scenes=num_scenes, device=device, model_name=model,
                    workers=workforce.asked(), progress=progress, say=screen.say,
                )  # fmt: skip
            screen.show(view)
            return
        with screen.progress() as progress:
            audited = make_audit(
                run,
                chosen,
                with_stability=stability,
                device=device,
                model_name=model,
                workers=workforce.asked(),
                progress=progress,
                say=screen.say,
            )
        screen.show(audit_view(audited, run))
