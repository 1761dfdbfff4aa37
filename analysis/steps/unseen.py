"""Scenes to judge a plan on: none that it was tuned or selected on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.steps.run_folder import PICTURE_DIGESTS, PLAN, SCENE_DIGESTS
from mixedprec import Plan, load_plan
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.scenes import Scene, SceneSource, digest_pictures, fingerprint, pictures_of

SELECTION = "selected_on"
"""Of a plan's provenance: what it was selected on, if it is the best of several."""


def check_not_chosen_on(plan: Plan, source: SceneSource, scenes: Sequence[Scene]) -> None:
    """Refuse scenes to judge on which the plan was selected, or its weights tuned, or that show such a picture.

    Args:
        plan: to be judged.
        source: of the scenes; the pictures of its evaluation half are compared by their content.
        scenes: to judge on.

    Raises:
        InputError: with the name of one.
    """
    chosen: list[tuple[str, dict[str, Any]]] = [
        ("the weights were tuned or selected on", dict(plan.tuned)),
        ("the plan was selected on", plan.provenance.get(SELECTION) or {}),
    ]
    for how, facts in chosen:
        seen, pictures = set(facts.get(SCENE_DIGESTS, ())), set(facts.get(PICTURE_DIGESTS, ()))
        shared = [scene.name for scene in scenes if fingerprint([scene]) in seen]
        if pictures:
            held_out = digest_pictures(pictures_of(source, "evaluation"))
            shared += [path.name for digest, path in held_out.items() if digest in pictures]
        if shared:
            raise InputError(
                f"{len(shared)} of the scenes or pictures to judge on are those that {how}, {shared[0]!r} is one; give "
                f"others with {setting('images')} or {setting('scenes')}"
            )


def check_no_plan_chosen_on(run: Path, source: SceneSource, scenes: Sequence[Scene]) -> None:
    """The same for whatever plan is in a run's folder; one that is not there, or cannot be read, was chosen on nothing.

    Raises:
        InputError: as `check_not_chosen_on`.
    """
    try:
        plan = load_plan(run / PLAN)
    except InputError:
        return
    check_not_chosen_on(plan, source, scenes)
