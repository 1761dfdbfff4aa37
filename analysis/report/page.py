"""The page of an experiment: its answer, trade-off, depth, layers, who pays, audit and provenance in one document."""

from __future__ import annotations

from analysis.report.depth_slider import depth_slider
from analysis.report.document import Document, Element, Section
from analysis.report.experiment import Experiment
from analysis.report.geometry_tables import text_tables
from analysis.report.page_charts import audit_pairs, front_of, heat_map, shares_by_role, trade_off
from analysis.report.parts import design, process
from analysis.report.parts.conclusions import recommendation, scenarios
from analysis.report.parts.findings import audit_blocks, transfer_blocks, who_pays
from analysis.report.parts.outcome import error_tables, full_layer_table, main_tables
from analysis.report.wording import Wording

PROVENANCE = ("Model", "Data", "Commands", "What went wrong, and what was warned of", "Machine", "Files")
"""Sections of the first two parts that say where the numbers come from."""


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
        sections.append(
            Section(say("Who pays"), (shares_by_role(experiment.profile, say), *who_pays(experiment, say)), "who-pays")
        )
    if experiment.audit is not None:
        blocks = (*audit_pairs(experiment.audit, say), *audit_blocks(experiment.audit, say))
        sections.append(Section(say("Can the scores be trusted?"), blocks, "audit"))
    if experiment.transfer is not None:
        blocks = tuple(transfer_blocks(experiment.transfer, say))
        sections.append(Section(say("Scores and plans on other scenes"), blocks, "transfer"))
    sections.append(Section(say("Where this comes from"), tuple(_provenance(experiment, say)), "provenance"))
    title = say("Quantisation of {model}", model=experiment.model or experiment.run.name)
    return Document(title, tuple(sections), say.language)


def _provenance(experiment: Experiment, say: Wording) -> list[Element]:
    parts = (design.document(experiment, say), process.document(experiment, say))
    kept = set(map(say, PROVENANCE))
    return [block for part in parts for section in part.sections if section.title in kept for block in section.blocks]
