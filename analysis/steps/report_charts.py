"""The pictures of a run, drawn anew for its report: in the reader's language, and of the plan that is there now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from analysis.evaluation.results import Evaluation
from analysis.report.charts import comprehensive
from analysis.report.charts.audit_charts import draw_attribution, draw_scores
from analysis.report.charts.difference_charts import draw_differences
from analysis.report.charts.drawing import draw_plan
from analysis.report.charts.inspection_charts import draw_inspection
from analysis.report.charts.pareto_chart import draw_pareto
from analysis.report.charts.time_chart import draw_time
from analysis.report.charts.transfer_chart import draw_transfer
from analysis.report.experiment import Experiment
from analysis.report.wording import Wording
from analysis.steps.evaluation import differences_of
from analysis.steps.run_folder import CHARTS
from mixedprec import Plan
from sensitivity import Profile
from vggtkit.core.arrays import Map
from vggtkit.subject import bare_subject

PLAN_DRAWING, PARETO_CHART = "plan.png", "pareto.png"
Draw = Callable[[Path], None]


def redrawn(experiment: Experiment, say: Wording) -> dict[str, Draw]:
    """How charts are drawn from what the run holds, by the name of their file; the others are copied.

    Args:
        experiment: what the run holds.
        say: words of the charts; in English only the plan is drawn, as its picture may be of an earlier one.
    """
    plan = _of_plan(experiment, say)
    if say.language == "en":
        return plan
    drawn = plan | _of_evaluation(experiment, say) | _of_audit(experiment, say)
    for each in experiment.inspections:
        drawn[f"layer-{each.layer.name}.png"] = partial(draw_inspection, each, say=say)
    return drawn


def _of_plan(experiment: Experiment, say: Wording) -> dict[str, Draw]:
    plan, profile = experiment.plan, experiment.profile
    if plan is None or profile is None or PLAN_DRAWING not in experiment.files or not profile.facts["config"]:
        return {}  # who feeds whom is seen only by running the model
    return {PLAN_DRAWING: partial(_draw_plan, plan, profile, say)}


def _draw_plan(plan: Plan, profile: Profile, say: Wording, path: Path) -> None:
    layers = [layer for layer in profile.layers if layer.name in plan.formats]
    draw_plan(plan, layers, _graph(plan, profile), path, say)


def _graph(plan: Plan, profile: Profile) -> nx.DiGraph:
    """Which layers feed which; weights are not needed."""
    subject = bare_subject(str(profile.facts["model"]), str(profile.facts["config"])).reading(profile.layers)
    return subject.with_heads(plan.heads).graph()


def _of_evaluation(experiment: Experiment, say: Wording) -> dict[str, Draw]:
    evaluation, answer, maps, pareto = experiment.evaluation, experiment.verdict, experiment.maps, experiment.pareto
    drawn: dict[str, Draw] = {}
    if pareto is not None and pareto.whole is not None:
        front = pareto.whole
        drawn[PARETO_CHART] = lambda path: draw_pareto(front, path, say)
        if pareto.timed is not None:
            timed = pareto.timed
            drawn["pareto_time.png"] = lambda path: draw_time(timed.points, front.model, timed.fp32_seconds, path, say)
    if evaluation is None:
        return drawn
    if maps is not None:
        for name, (title, shares) in differences_of(maps, say).items():
            drawn[name] = partial(_draw_differences, shares, maps.pictures[0], evaluation, title, say)
    return drawn | {CHARTS: lambda path: comprehensive.draw(evaluation, path, answer, say)}


def _draw_differences(
    shares: Mapping[str, Map], picture: NDArray[np.uint8], evaluation: Evaluation, title: str, say: Wording, path: Path
) -> None:
    draw_differences(shares, picture, evaluation, title, path, say)


def _of_audit(experiment: Experiment, say: Wording) -> dict[str, Draw]:
    drawn: dict[str, Draw] = {}
    if experiment.audit is not None and experiment.audit.whole is not None:
        audit = experiment.audit.whole
        drawn["score_audit.png"] = partial(draw_scores, audit, say=say)
        drawn["who_pays.png"] = partial(draw_attribution, audit, say=say)
    if experiment.transfer is not None:
        drawn["transfer.png"] = partial(draw_transfer, experiment.transfer, say=say)
    return drawn
