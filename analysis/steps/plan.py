"""``profile.h5`` and a budget -> ``plan.json``."""

from __future__ import annotations

from pathlib import Path

from analysis.steps.run_folder import PLAN, PROFILE, check_writable
from analysis.steps.view import View
from mixedprec import planner, save_plan
from mixedprec.planner import layers_by_format
from mixedprec.tables import plan_sentences, plan_tables
from model import VGGTConfig, is_factory, load_custom, skeleton
from sensitivity import open_profile
from sensitivity.provenance import Progress, silent


def make_plan(run: Path, budget: str, *, policy: str, formats: str, keep: str, progress: Progress = silent) -> View:
    """Plan from the run's profile; writes ``plan.json``."""
    check_writable(run)
    progress("choosing formats", 0, 1)
    profile = open_profile(run / PROFILE)
    source = str(profile.facts["model"])
    architecture = (
        load_custom(source) if is_factory(source) else skeleton(VGGTConfig.from_json(str(profile.facts["config"])))
    )
    plan = planner.make_plan(profile, architecture, budget, policy=policy, formats=formats, keep=keep)
    save_plan(plan, run / PLAN)
    values = {
        "path": str(run / PLAN),
        "policy": plan.policy,
        "size_bytes": plan.size_bytes,
        "budget_bytes": plan.budget_bytes,
        "predicted_damage": plan.total_damage,
        "bound": plan.bound,
        "optimal": plan.optimal,
        "layers_by_format": layers_by_format(plan),
    }
    lines = [*plan_sentences(profile, plan), f"written: {run / PLAN}"]
    return View(values, plan_tables(profile, plan), lines).of_weights(str(profile.facts["weights"]))
