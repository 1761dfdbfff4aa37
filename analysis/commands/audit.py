"""The command ``audit``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands.options import (
    DEFAULT_RUN,
    Device,
    OutputOptions,
    Pictures,
    RunDir,
    RunModel,
    Workforce,
)
from analysis.commands.screen import session
from analysis.steps import audit_view, make_audit
from vggtkit.scenes import SceneSource

EXAMPLES = (
    "audit",
    "audit --num-scenes 2 --stability",
    "audit --images other-photos/ --json",
    "audit --workers ray://head:10001",
)


def audit(
    *,
    run: RunDir = DEFAULT_RUN,
    pictures: Pictures,
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
    """

    def chosen(profiled: SceneSource) -> SceneSource:
        return pictures.held_out(profiled, num_scenes)

    with session(output, run) as screen:
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
