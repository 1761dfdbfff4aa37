"""The page of an experiment: its answer, trade-off, depth, layers, who pays, audit and provenance in one document."""

from __future__ import annotations

import math
from collections.abc import Mapping

from analysis.evaluation.results import Evaluation, format_mb, format_number, short_title
from analysis.report.depth_slider import depth_slider
from analysis.report.document import ChartPoint, Document, Element, HeatMap, Scatter, Section
from analysis.report.experiment import Experiment, ParetoSummary
from analysis.report.geometry_tables import text_tables
from analysis.report.parts import design, process
from analysis.report.parts.conclusions import recommendation, scenarios
from analysis.report.parts.findings import audit_blocks, pareto_text, transfer_blocks, who_pays
from analysis.report.parts.outcome import error_tables, full_layer_table, main_tables
from analysis.report.wording import Wording
from vggtkit.quant import get_format, short_name

PROVENANCE = ("Model", "Data", "Commands", "What went wrong, and what was warned of", "Machine", "Files")
"""Sections of the first two parts that say where the numbers come from."""
POINT_KINDS = {"plan": "plans", "uniform": "uniform schemes", "baseline": "baselines"}


def page(experiment: Experiment, say: Wording) -> Document:
    """Everything that there is to look at; sections of what the run lacks are left out and named at the end."""
    evaluation, verdict = experiment.evaluation, experiment.verdict
    sections = []
    if evaluation is not None and verdict is not None:
        tables = tuple(map(say.table, main_tables(evaluation, verdict)))
        sections.append(Section(say("Answer"), tuple(recommendation(experiment, say)), "answer"))
        sections.append(Section(say("Size, time and damage"), (trade_off(evaluation, say), *tables), "trade-off"))
        sections.append(Section(say("By scenario"), tuple(scenarios(experiment, say)), "scenarios"))
        if experiment.maps is not None:
            sections.append(Section(say("Depth"), (depth_slider(experiment.maps, evaluation, say),), "depth"))
        if geometry := text_tables(evaluation):
            sections.append(
                Section(say("Cameras, depth, points and tracks"), tuple(map(say.table, geometry)), "geometry")
            )
        sections.append(Section(say("Every output"), tuple(map(say.table, error_tables(evaluation))), "outputs"))
    if experiment.pareto is not None:
        sections.append(Section(say("Size against damage"), tuple(front_of(experiment.pareto, say)), "pareto"))
    if experiment.profile is not None:
        sections.append(
            Section(say("Every layer"), (heat_map(experiment, say), full_layer_table(experiment, say)), "layers")
        )
        sections.append(Section(say("Who pays"), tuple(who_pays(experiment, say)), "who-pays"))
    if experiment.audit is not None:
        sections.append(Section(say("Can the scores be trusted?"), tuple(audit_blocks(experiment.audit, say)), "audit"))
    if experiment.transfer is not None:
        blocks = tuple(transfer_blocks(experiment.transfer, say))
        sections.append(Section(say("Scores and plans on other scenes"), blocks, "transfer"))
    sections.append(Section(say("Where this comes from"), tuple(_provenance(experiment, say)), "provenance"))
    title = say("Quantisation of {model}", model=experiment.model or experiment.run.name)
    return Document(title, tuple(sections), say.language)


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
        say("Estimated damage at the outputs with only this layer in this format. Arrow keys move through the fields."),
    )


def _provenance(experiment: Experiment, say: Wording) -> list[Element]:
    parts = (design.document(experiment, say), process.document(experiment, say))
    kept = set(map(say, PROVENANCE))
    return [block for part in parts for section in part.sections if section.title in kept for block in section.blocks]
