"""``profile.h5`` and held-out scenes -> do its scores predict damage? And one layer from close by."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from analysis.audit import Audit, audit, audit_summary, audit_to_json
from analysis.audit.tables import audit_sentences, audit_tables
from analysis.report.charts.audit_charts import draw_attribution, draw_scores
from analysis.steps.run_folder import (
    PROFILE,
    check_held_out,
    check_not_profiled,
    check_writable,
    held_out_scenes,
    profiled_scenes,
    scenes_for,
    subject_of_run,
)
from analysis.steps.unseen import check_no_plan_chosen_on
from analysis.steps.view import View
from sensitivity import Profile, open_profile
from vggtkit.core.atomic import replacing_all
from vggtkit.core.executors import Workers
from vggtkit.core.journal import discard
from vggtkit.core.program import command
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.scenes import Scene, SceneSource, fingerprint, notes_on
from vggtkit.subject import INPUTS, Subject

JUDGES = 8
"""Scenes beyond those of true damage on which whole plans are measured, where there are as many."""
AUDIT, AUDIT_CHARTS, ATTRIBUTION_CHARTS = "score_audit.json", "score_audit.png", "who_pays.png"


def make_audit(
    run: Path,
    choose_scenes: Callable[[SceneSource], SceneSource] = lambda profiled: profiled,
    *,
    with_stability: bool,
    device: str,
    model_name: str | None = None,
    workers: Workers | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Audit:
    """Compare the scores of the run's profile with true damage; writes ``score_audit.json`` and two charts.

    Args:
        run: folder with ``profile.h5``.
        choose_scenes: where scenes come from, given where those of the profile did; their evaluation half is used.
        with_stability: repeat the sketch on other scenes, views and sizes too.
        device: as `pick_device` takes it.
        model_name: what the user calls the run's model; a function runs only if it is named, or was for this folder.
        workers: who measures true damage; by default processes, one a core, where the network is small.
        progress: called as the work goes on.
        say: told what was left out of the scenes' folder.

    Raises:
        InputError: the profile does not belong to the model, or the scenes are those of the profile.
    """
    check_writable(run)
    profile = open_profile(run / PROFILE)
    profiled = SceneSource.from_dict(profile.facts["scene_source"])
    progress("loading", 0, 1)
    subject = subject_of_run(run, profile, device, model_name, say)
    calibration = profiled_scenes(run, subject, profile)
    source = choose_scenes(profiled)
    for note in notes_on(source):
        say(note)
    held_out = held_out_scenes(run, subject, profile, source)
    further = _further_scenes(subject, profile, source, held_out)
    check_no_plan_chosen_on(run, replace(source, count=source.count + len(further)), [*held_out, *further])
    judges = further or held_out
    facts = provenance(
        model=profile.facts["model"],
        weights=profile.facts["weights"],
        model_fingerprint=profile.facts["model_fingerprint"],
        scene_fingerprint=fingerprint(held_out),
        calibration_scene_fingerprint=profile.facts["scene_fingerprint"],
        seed=profile.facts["seed"],
    )
    try:
        result = audit(
            subject, profile, calibration, held_out, judges, facts=facts, with_stability=with_stability,
            workers=workers, journal=run / AUDIT, progress=progress,
        )  # fmt: skip
    except KeyboardInterrupt as error:
        again = command(*sys.argv[1:])
        raise type(error)(f"interrupted; true damage so far is kept, and this goes on from there: {again}") from error
    write_audit(result, run)
    discard(run / AUDIT)
    return result


def _further_scenes(subject: Subject, profile: Profile, source: SceneSource, held_out: Sequence[Scene]) -> list[Scene]:
    """Scenes that come after those held out; none where the pictures are used up, or more of them are cut otherwise."""
    wider = replace(source, count=source.count + JUDGES)
    if source.kind == INPUTS:
        return []  # those after them would begin elsewhere
    more = scenes_for(subject, wider, "evaluation")
    if [scene.name for scene in more[: len(held_out)]] != [scene.name for scene in held_out]:
        return []
    check_held_out(profile, wider)
    check_not_profiled(profile, more)
    return more[len(held_out) :]


def write_audit(result: Audit, run: Path) -> None:
    """Write the JSON and the charts of a run; all three change, or none."""
    paths = [run / name for name in (AUDIT, AUDIT_CHARTS, ATTRIBUTION_CHARTS)]
    with replacing_all(paths) as (results, scores, attribution):
        results.write_text(audit_to_json(result), encoding="utf-8")
        draw_scores(result, scores)
        draw_attribution(result, attribution)


def audit_view(result: Audit, run: Path) -> View:
    """What an audit says."""
    lines = audit_sentences(result)
    if result.facts.get("weights") == "random":
        lines.append("RANDOM WEIGHTS: these figures say nothing about a trained network.")
    written = ", ".join(str(run / name) for name in (AUDIT, AUDIT_CHARTS, ATTRIBUTION_CHARTS))
    return View(
        {"path": str(run / AUDIT), **audit_summary(result)}, audit_tables(result), [*lines, f"written: {written}"]
    )
