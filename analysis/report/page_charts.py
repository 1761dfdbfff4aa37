"""The charts of the page, from what a run holds: typed values, which renderers draw."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from analysis.audit.results import local_outputs
from analysis.evaluation.results import Evaluation, format_mb, format_number, short_title
from analysis.report.document import Bars, ChartPoint, Element, HeatMap, Scatter
from analysis.report.experiment import AuditSummary, Experiment, ParetoSummary
from analysis.report.parts.findings import pareto_text
from analysis.report.profile_tables import COARSE, role_title
from analysis.report.wording import Wording
from sensitivity import Profile
from vggtkit.quant import get_format, short_name

POINT_KINDS = {"plan": "plans", "uniform": "uniform schemes", "baseline": "baselines"}


def trade_off(evaluation: Evaluation, say: Wording) -> Scatter:
    """Size against measured damage of the plan and the uniform schemes."""
    points = []
    for result in evaluation.quantized:
        if math.isfinite(result.damage) and result.damage > 0:
            kind = "uniform" if result.is_uniform else "plan"
            cost = f"; {say.translated(result.cost)}" if result.cost else ""
            note = _note(result.size_bytes, result.damage, say) + cost
            points.append(ChartPoint(result.size_bytes / 1e6, result.damage, short_title(result), note, kind))
    plans = "the plan" if sum(point.kind == "plan" for point in points) == 1 else "plans"
    return _scatter(say("Size against damage"), points, {"plan": plans, "uniform": "uniform schemes"}, say)


def front_of(pareto: ParetoSummary, say: Wording) -> list[Element]:
    """What ``pareto`` has measured; nothing where it only predicted."""
    measured = [each for each in pareto.points if each.measured is not None and each.measured > 0]
    points = [
        ChartPoint(
            each.size_bytes / 1e6, each.measured, each.title, _note(each.size_bytes, each.measured, say), each.kind
        )
        for each in measured
        if each.measured is not None
    ]
    chart = _scatter(say("Plans of many sizes, uniform schemes and baselines"), points, POINT_KINDS, say)
    return [chart, pareto_text(pareto, say)] if points else [pareto_text(pareto, say)]


def _note(size_bytes: int, damage: float, say: Wording) -> str:
    return f"{format_mb(size_bytes)} MB, {say('damage')} {format_number(damage)}"


def _scatter(title: str, points: list[ChartPoint], kinds: Mapping[str, str], say: Wording) -> Scatter:
    shown = {kind: say(name) for kind, name in kinds.items() if any(point.kind == kind for point in points)}
    caption = say("Lower left is better. The line joins what no other beats in both.")
    return Scatter(title, say("packed file, MB (log)"), say("damage, NMSE (log)"), tuple(points), shown, caption)


def heat_map(experiment: Experiment, say: Wording) -> HeatMap:
    """Estimated damage of every layer alone in every format."""
    profile = experiment.profile
    assert profile is not None
    formats = experiment.plan.formats if experiment.plan else {}
    chosen = [formats.get(layer.name) for layer in profile.layers]
    marks = tuple(profile.candidates.index(key) if key in profile.candidates else None for key in chosen)
    values = [[float(value) if value > 0 else None for value in row] for row in profile.total_damage]
    return HeatMap(
        say("Damage by layer and format"),
        tuple(short_name(layer) for layer in profile.layers),
        tuple(get_format(key).short_title for key in profile.candidates),
        values,
        say("damage, NMSE (log)"),
        tuple(layer.block for layer in profile.layers),
        marks,
        say("what the plan chose") if formats else "",
        say("Estimated damage at the outputs with only this layer in this format."),
    )


def shares_by_role(profile: Profile, say: Wording) -> Bars:
    """Who pays: every role's share of the weights beside its share of the damage at INT4."""
    roles = dict.fromkeys(layer.role for layer in profile.layers)
    weights, damage = dict.fromkeys(roles, 0.0), dict.fromkeys(roles, 0.0)
    for layer, value in zip(profile.layers, profile.total_damage[:, profile.column(COARSE)], strict=True):
        weights[layer.role] += layer.weights
        damage[layer.role] += float(value)
    order = sorted(roles, key=lambda role: -damage[role])
    series = {say("weights"): weights, say("damage at INT4"): damage}
    shares = {title: [each[role] / (sum(each.values()) or 1.0) for role in order] for title, each in series.items()}
    caption = say("Who pays more than its share: the bar of damage is longer than that of weights.")
    names = tuple(say(role_title(role)) for role in order)
    return Bars(say("Share of the weights and of the damage, by role"), names, shares, say("share"), caption)


def audit_pairs(audit: AuditSummary, say: Wording) -> list[Element]:
    """Sketched against true damage of every layer in every format; nothing where the file has less."""
    if audit.whole is None:
        return []
    whole, there = audit.whole, local_outputs(audit.whole.damage)
    sketched, true = np.mean([whole.sketched[name] for name in there], axis=0), whole.local
    points = []
    for column, key in enumerate(whole.schemes):
        title = get_format(key).short_title
        for row, layer in enumerate(whole.layers):
            x, y = float(sketched[row, column]), float(true[row, column])
            if x > 0 and y > 0:
                note = f"{title}, {say('sketched')} {format_number(x)}, {say('true')} {format_number(y)}"
                points.append(ChartPoint(x, y, short_name(layer), note, f"{get_format(key).bits}"))
    kinds = {f"{get_format(key).bits}": say("{bits} bits", bits=get_format(key).bits) for key in whole.schemes}
    caption = say("On the line the sketch equals the truth. Mean over these outputs: {names}.", names=", ".join(there))
    title = say("Sketched and true damage of every layer alone")
    axes = (say("sketched damage (log)"), say("true damage, held-out scenes (log)"))
    return [Scatter(title, *axes, tuple(points), kinds, caption, "equal")]
