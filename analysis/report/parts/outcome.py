"""Part 3: every table and figure of the run."""

from __future__ import annotations

import re

from analysis.evaluation.results import Evaluation, format_number
from analysis.evaluation.verdict import Verdict
from analysis.report.document import Cell, Document, Element, Illustration, Section, Table, Text
from analysis.report.evaluation_tables import (
    EVALUATION_LEGEND,
    nmse_table,
    output_table,
    stage_tables,
    summary_table,
    verdict_table,
)
from analysis.report.experiment import Experiment
from analysis.report.geometry_tables import text_tables
from analysis.report.parts.findings import said_of
from analysis.report.profile_tables import role_title
from analysis.report.wording import Wording
from vggtkit.quant import FORMATS, get_format, short_name

CHARTS = {
    "comprehensive_visualizations.png": "Six charts: size, MAE and MSE, PSNR, cosine and SSIM, time, trade-off",
    "depth_differences.png": "Depth of every scheme against FP32's, pixel by pixel",
    "point_differences.png": "Points of every scheme against FP32's, pixel by pixel",
    "pareto.png": "Size against damage",
    "pareto_time.png": "Size, time and damage",
    "score_audit.png": "Scores against true damage",
    "who_pays.png": "Who pays: damage by output, role, block and token class",
    "transfer.png": "Scores and plans on other scenes",
    "plan.png": "The network with bits as colours",
}
"""Pictures of a run, and what they show."""
_LAYER = re.compile(r"layer-([\w.]+)\.png")
"""Pictures of a layer from close by."""
MOST_LAYERS = 600
"""Rows of the table of layers; a VGGT-1B has 506."""


def document(experiment: Experiment, say: Wording) -> Document:
    """The results."""
    sections = []
    evaluation, verdict = experiment.evaluation, experiment.verdict
    if evaluation is not None and verdict is not None:
        sections += [
            Section(say("Answer"), tuple(said_of(experiment, say))),
            Section(say("Size, time and damage"), tuple(map(say.table, main_tables(evaluation, verdict)))),
        ]
        if geometry := text_tables(evaluation):
            sections.append(Section(say("Cameras, depth, points and tracks"), tuple(map(say.table, geometry))))
        sections.append(Section(say("Every output"), tuple(map(say.table, error_tables(evaluation)))))
        sections.append(Section(say("How to read this"), (Text(tuple(map(say, EVALUATION_LEGEND)), "points"),)))
    else:
        sections.append(Section(say("Answer"), (Text((say("There is no evaluation in this run."),), "warning"),)))
    if pictures := tuple(Illustration(name, title) for name, title in illustrations_of(experiment, say).items()):
        sections.append(Section(say("Charts"), pictures))
    if experiment.profile is not None:
        sections.append(Section(say("Every layer"), (full_layer_table(experiment, say),)))
    return Document(say("3. Results"), tuple(sections), say.language)


def illustrations_of(experiment: Experiment, say: Wording) -> dict[str, str]:
    """The pictures that the folder of a run holds, and what they show."""
    drawn = {name: say(title) for name, title in CHARTS.items() if name in experiment.files}
    layers = (match for match in map(_LAYER.fullmatch, sorted(experiment.files)) if match)
    return drawn | {match[0]: say("The layer {name} from close by", name=match[1]) for match in layers}


def main_tables(evaluation: Evaluation, verdict: Verdict) -> list[Table]:
    """What every scheme costs and does, and how the plan compares."""
    tables = [summary_table(evaluation), *stage_tables(evaluation)]
    return [*tables, verdict_table(evaluation, verdict)] if verdict.rows else tables


def error_tables(evaluation: Evaluation) -> list[Table]:
    """Errors of every output under every scheme."""
    by_output = [output_table(evaluation, name, 3, with_entropy=True) for name in evaluation.outputs]
    return [nmse_table(evaluation), *by_output]


def full_layer_table(experiment: Experiment, say: Wording) -> Element:
    """Every layer: what it is, what the plan gives it, and its estimated damage alone under every uniform scheme."""
    profile, plan = experiment.profile, experiment.plan
    if profile is None:
        return Text((say("There is no profile in this run."),), "warning")
    shown = profile.schemes
    columns = [profile.column(key) for key in shown]
    rows: list[tuple[str | Cell, ...]] = []
    for row, layer in enumerate(profile.layers[:MOST_LAYERS]):
        chosen = plan.formats.get(layer.name, "") if plan else ""
        size = plan.layer_bytes.get(layer.name, 0) if plan else 0
        damages = [float(profile.total_damage[row, column]) for column in columns]
        rows.append(
            (
                short_name(layer),
                say(role_title(layer.role)),
                layer.block,
                Cell(f"{layer.weights:,}", layer.weights),
                FORMATS[chosen].short_title if chosen in FORMATS else chosen,
                Cell(f"{size:,}", size),
                *(Cell(format_number(value), value) for value in damages),
            )
        )
    names = (
        "layer",
        "role",
        "block",
        "weights",
        "format in the plan",
        "its bytes",
        *(get_format(key).short_title for key in shown),
    )
    caption = say("Under the schemes: estimated damage at the outputs with only this layer quantised (first order).")
    if len(profile.layers) > MOST_LAYERS:
        caption += " " + say("The first {shown} of {count} layers.", shown=MOST_LAYERS, count=len(profile.layers))
    return Table(say("Layers"), tuple(map(say, names)), rows, caption, words=(*map(say, names[1:3]), say(names[4])))
