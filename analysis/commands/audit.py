"""The command ``audit``."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.commands.options import (
    DEFAULT_RUN,
    AsJson,
    Debug,
    Device,
    Images,
    MaxImages,
    RunDir,
    RunModel,
    Sampling,
    Scenes,
    Stride,
    Views,
    evaluation_source,
)
from analysis.commands.screen import session
from analysis.steps import audit_view, make_audit
from vggtkit.scenes import SceneSource

EXAMPLES = (
    "audit",
    "audit --num-scenes 2 --stability",
    "audit --images other-photos/ --json",
)


def audit(
    run: RunDir = DEFAULT_RUN,
    images: Images = None,
    scenes: Scenes = None,
    num_scenes: Annotated[
        int, typer.Option("--num-scenes", metavar="N", help="Held-out scenes, at most; 0: as many as were profiled.")
    ] = 0,
    views: Views = 0,
    max_images: MaxImages = None,
    stride: Stride = None,
    sampling: Sampling = None,
    stability: Annotated[
        bool, typer.Option("--stability", help="Repeat the sketch on other scenes, numbers of views and sizes too.")
    ] = False,
    model: RunModel = None,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Do the scores predict damage? Compare them with it.

    Measures on scenes that were not profiled what every layer does alone in every format, and compares every cheap
    score with that: rank correlation, and what plans made from it cost. Shows which outputs, tokens, roles and blocks
    pay. Writes score_audit.json, score_audit.png and who_pays.png.

    On a CPU true damage of a small network is shared among processes, one a core; with OMP_NUM_THREADS=1 there is one.
    """

    def chosen(profiled: SceneSource) -> SceneSource:
        return evaluation_source(
            profiled, images, scenes, count=num_scenes, views=views, max_images=max_images, stride=stride,
            sampling=sampling,
        )  # fmt: skip

    with session(as_json, debug) as screen:
        with screen.progress() as progress:
            audited = make_audit(
                run,
                chosen,
                with_stability=stability,
                device=device,
                model_name=model,
                progress=progress,
                say=screen.say,
            )
        screen.show(audit_view(audited, run))
