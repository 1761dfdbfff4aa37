"""Part 4: which scheme is smallest and which most accurate, who pays, and where expectation and measurement differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from analysis.audit.attribution import CLASS_CAPTION
from analysis.audit.transfer import Transfer
from analysis.audit.transfer_view import transfer_sentences, transfer_tables
from analysis.evaluation.advice import damage_of, front
from analysis.evaluation.expected import EXPECTED
from analysis.evaluation.results import (
    Evaluation,
    SchemeResult,
    compression_ratio,
    format_fixed,
    format_mb,
    format_number,
)
from analysis.report.document import Cell, Document, Element, Section, Table, Text
from analysis.report.experiment import AuditSummary, Experiment, ParetoSummary
from analysis.report.parts.process import absent_table
from analysis.report.profile_tables import COARSE, FINE, role_title
from analysis.report.wording import Wording
from sensitivity import Profile
from vggtkit.core.program import command
from vggtkit.quant import get_format, short_name

MOST_SENSITIVE = 10


def document(experiment: Experiment, say: Wording) -> Document:
    """The analysis of the results."""
    sections = []
    if experiment.evaluation is not None:
        evaluation = experiment.evaluation
        sections += [
            Section(
                say("Smallest, most accurate, fastest"), (_superlatives(evaluation, say), *said_of(experiment, say))
            ),
            Section(say("Expected by the guide, and measured"), tuple(_expected(evaluation, say))),
            Section(say("Predicted and measured"), (_predicted(evaluation, say),)),
        ]
    if experiment.profile is not None:
        sections.append(Section(say("Who pays"), tuple(who_pays(experiment, say))))
    if experiment.pareto is not None:
        sections.append(Section(say("Size against damage"), (pareto_text(experiment.pareto, say),)))
    if experiment.audit is not None:
        sections.append(Section(say("Can the scores be trusted?"), tuple(audit_blocks(experiment.audit, say))))
    if experiment.transfer is not None:
        blocks = tuple(transfer_blocks(experiment.transfer, say))
        sections.append(Section(say("Scores and plans on other scenes"), blocks))
    if missing := absent_table(experiment, say):
        sections.append(Section(say("What could not be said"), tuple(missing)))
    return Document(say("4. Analysis"), tuple(sections), say.language)


def said_of(experiment: Experiment, say: Wording) -> list[Element]:
    """The verdict, sentence by sentence; nothing where there is none."""
    sentences = experiment.verdict.sentences if experiment.verdict else ()
    return [Text(tuple(map(say.translated, sentences)))] if sentences else []


def _superlatives(evaluation: Evaluation, say: Wording) -> Text:
    results, fp32 = evaluation.quantized, evaluation.results[0]
    if not results:
        return Text((say("Only FP32 was evaluated."),), "warning")
    smallest = min(results, key=lambda one: one.size_bytes)
    best = min(results, key=damage_of)
    lines = [
        say(
            "Smallest file: {scheme}, {mb} MB, {ratio} times smaller than FP32, damage {damage}.",
            **_facts(smallest, fp32),
        ),
        say(
            "Most accurate: {scheme}, damage {damage}, {mb} MB, {ratio} times smaller than FP32.", **_facts(best, fp32)
        ),
    ]
    timed = [one for one in results if one.speed_ratio is not None]
    if timed:
        fastest = max(timed, key=lambda one: one.speed_ratio or 0.0)
        lines.append(
            say(
                "Fastest: {scheme}, {speed} times as fast as FP32 ({executed}).",
                scheme=fastest.title,
                speed=f"{fastest.speed_ratio:.2f}",
                executed=say.translated(evaluation.executed),
            )
        )
    else:
        lines.append(say("Nothing was timed."))
    names = ", ".join(result.title for result in front(evaluation))
    lines.append(say("No other scheme is both smaller and more accurate than these: {names}.", names=names))
    if worst := _worst_output(best):
        lines.append(
            say("The output that suffers most under the most accurate scheme is {output} (NMSE {nmse}).", **worst)
        )
    return Text(tuple(lines), "points")


def _facts(result: SchemeResult, fp32: SchemeResult) -> dict[str, str]:
    return {
        "scheme": result.title,
        "mb": format_mb(result.size_bytes),
        "ratio": f"{compression_ratio(result, fp32):.2f}",
        "damage": format_number(result.damage),
    }


def _worst_output(result: SchemeResult) -> dict[str, str]:
    errors = {name: metrics.nmse for name, metrics in result.outputs.items() if math.isfinite(metrics.nmse)}
    if not errors:
        return {}
    name = max(errors, key=lambda one: errors[one])
    return {"output": name, "nmse": format_number(errors[name])}


def _expected(evaluation: Evaluation, say: Wording) -> list[Element]:
    fp32 = evaluation.results[0]
    rows: list[tuple[str | Cell, ...]] = []
    for result in evaluation.quantized:
        if result.key in EXPECTED:
            guess, mae = EXPECTED[result.key], mean_mae(result)
            pairs = (
                (guess.compression, compression_ratio(result, fp32)),
                (guess.mae, mae),
                (guess.speed, result.speed_ratio),
            )
            cells = [format_number(value) for pair in pairs for value in pair]
            rows.append((result.title, *cells))
    if not rows:
        return [Text((say("None of the guide's schemes was measured."),), "warning")]
    columns = (
        "scheme",
        "smaller by, guide",
        "measured",
        "MAE, guide",
        "MAE measured",
        "speed, guide",
        "speed measured",
    )
    table = Table(
        say("The guide's numbers beside the measured ones"),
        tuple(map(say, columns)),
        rows,
        say("MAE measured: mean over the outputs, whose units differ. n/a: the guide gives none, or not measured."),
    )
    return [table, Text(tuple(_differences(evaluation, say)), "points")]


def mean_mae(result: SchemeResult) -> float | None:
    """MAE, mean over the outputs; None where nothing was compared."""
    values = [metrics.mae for metrics in result.outputs.values()]
    return float(np.mean(values)) if values else None


def _differences(evaluation: Evaluation, say: Wording) -> list[str]:
    """Why what was measured is not what was expected; each only where it is so."""
    fp32, by_key = evaluation.results[0], {result.key: result for result in evaluation.quantized}
    said = []
    four = by_key.get("int4_group_128")
    if four is not None and compression_ratio(four, fp32) < 7.9:
        said.append(
            say(
                "INT4 is {ratio} times smaller, not 8: the file also holds scales, and norms, biases and embeddings in "
                "FP16.",
                ratio=f"{compression_ratio(four, fp32):.2f}",
            )
        )
    slow = [
        one for one in by_key.values() if one.key in EXPECTED and one.speed_ratio is not None and one.speed_ratio < 1.05
    ]
    if slow:
        said.append(
            say(
                "{count} of the schemes are no faster than FP32, where the guide expects 1.25 to 1.43 times: their "
                "weights are dequantised before each layer runs, which is exact and saves memory, not time; "
                "evaluate --execute int8 runs plans in whole numbers where the processor can.",
                count=len(slow),
            )
        )
    channel, tensor = by_key.get("int8_per_channel_sym"), by_key.get("int8_per_tensor_sym")
    if channel and tensor and damage_of(channel):
        said.append(
            say(
                "A scale per channel instead of per tensor makes INT8 {ratio} times more accurate (the guide's MAE: "
                "2.4 times).",
                ratio=format_number(damage_of(tensor) / damage_of(channel)),
            )
        )
    best = min(by_key.values(), key=damage_of, default=None)
    sym, asym = by_key.get("int8_per_channel_sym"), by_key.get("int8_per_channel_asym")
    if sym and asym and best in (sym, asym):
        said.append(
            say(
                "The guide expects zero points to help; here INT8 per channel has a damage of {sym} without and {asym} "
                "with them.",
                sym=format_number(sym.damage),
                asym=format_number(asym.damage),
            )
        )
    said.append(
        say(
            "Absolute errors depend on the unit and scale of an output, so the guide's MAE cannot be met or missed as "
            "such; the order of the schemes can be compared."
        )
    )
    return said


def _predicted(evaluation: Evaluation, say: Wording) -> Text:
    plan, predicted = evaluation.plan, evaluation.predicted_damage
    if plan is None or predicted is None:
        return Text((say("No damage was predicted for this plan in the unit of what was measured."),))
    ratio = format_number(plan.damage / predicted) if predicted else "n/a"
    return Text(
        (
            say(
                "The plan's damage was predicted at {predicted} on the calibration scenes and is {measured} on others, "
                "{ratio} times as much.",
                predicted=format_number(predicted),
                measured=format_number(plan.damage),
                ratio=ratio,
            ),
        )
    )


def who_pays(experiment: Experiment, say: Wording) -> list[Element]:
    """Estimated damage by role, output and class of tokens, and the layers that lose most."""
    profile = experiment.profile
    assert profile is not None
    coarse, fine = profile.column(COARSE), profile.column(FINE)
    total = float(profile.total_damage[:, coarse].sum())
    members: dict[str, list[int]] = {}
    for row, layer in enumerate(profile.layers):
        members.setdefault(layer.role, []).append(row)
    rows: list[tuple[str | Cell, ...]] = []
    for role, inside in members.items():
        damage = float(profile.total_damage[inside, coarse].sum())
        weights = sum(profile.layers[row].weights for row in inside)
        rows.append(
            (
                say(role_title(role)),
                str(len(inside)),
                Cell(f"{weights:,}", weights),
                Cell(format_number(damage), damage),
                f"{damage / total:.1%}" if total else "n/a",
                format_number(float(profile.total_damage[inside, fine].sum())),
            )
        )
    columns = ("role", "layers", "weights", "damage at INT4", "share", "damage at INT8")
    caption = say(
        "Estimated, summed over layers quantised one at a time: {coarse}, {fine}.",
        coarse=get_format(COARSE).title,
        fine=get_format(FINE).title,
    )
    by_role = Table(say("Damage by role"), tuple(map(say, columns)), rows, caption)
    tables = (_by_output(profile, say, members), _most_sensitive(profile, say))
    return [by_role, *tables, by_tokens(experiment, say)]


def by_tokens(experiment: Experiment, say: Wording) -> Element:
    """Which tokens carry the damage of the trunk, as the audit measured it; else how to learn it."""
    classes = experiment.audit.token_classes if experiment.audit else ()
    if not classes:
        return Text((say("Which tokens carry it, those of cameras, registers or patches, is measured by an audit:"),
                     command("audit", "--run", experiment.run)))  # fmt: skip
    rows: list[tuple[str | Cell, ...]] = [
        (
            each.stack,
            get_format(each.scheme).short_title,
            *(Cell("n/a" if math.isnan(share) else f"{share:.1%}", share) for share in each.shares.values()),
            Cell(format_fixed(each.whole, 2), each.whole),
        )
        for each in classes
    ]
    names = ("stack", "format", *classes[0].shares, "whole / sum")
    title = say("Which tokens carry it: first-order damage of the trunk's layers, share by token class")
    return Table(title, tuple(map(say.translated, names)), rows, say(CLASS_CAPTION), words=(say.translated("format"),))


def _by_output(profile: Profile, say: Wording, members: Mapping[str, Sequence[int]]) -> Table:
    coarse = profile.column(COARSE)
    rows: list[tuple[str | Cell, ...]] = []
    for role, inside in members.items():
        sums = [float(damage[list(inside), coarse].sum()) for damage in profile.damage.values()]
        rows.append((say(role_title(role)), *(Cell(format_number(value), value) for value in sums)))
    return Table(say("Damage at INT4 by role and output"), (say("role"), *profile.damage), rows)


def _most_sensitive(profile: Profile, say: Wording) -> Table:
    coarse = profile.total_damage[:, profile.column(COARSE)]
    order = np.argsort(-coarse, kind="stable")[:MOST_SENSITIVE]
    rows = [
        (
            short_name(layer),
            say(role_title(layer.role)),
            Cell(f"{layer.weights:,}", layer.weights),
            format_number(float(coarse[row])),
        )
        for row in map(int, order)
        for layer in [profile.layers[row]]
    ]
    columns = tuple(map(say, ("layer", "role", "weights", "damage at INT4")))
    return Table(say("The most sensitive layers"), columns, rows, words=columns[1:2])


def pareto_text(pareto: ParetoSummary, say: Wording) -> Text:
    """What ``pareto`` found, in words."""
    measured = sum(point.measured is not None for point in pareto.points)
    if not measured:
        return Text((say("Size against damage was predicted, and not measured."),))
    if pareto.beating:
        return Text((say("Not ahead everywhere: {names}.", names=", ".join(pareto.beating)),), "warning")
    sentence = say(
        "{count} models were measured; no uniform scheme or baseline beats a measured plan of its bytes or more.",
        count=measured,
    )
    return Text((sentence,))


def audit_blocks(audit: AuditSummary, say: Wording) -> list[Element]:
    """What ``audit`` found: every score against true damage."""
    rows = [
        (
            score.key,
            Cell(format_fixed(score.passes, 0), score.passes),
            Cell(format_fixed(score.spearman, 3), score.spearman),
            Cell(f"{score.regret:.2f} [{score.low:.2f}, {score.high:.2f}]", score.regret),
        )
        for score in sorted(audit.scores, key=lambda one: one.regret)
    ]
    columns = ("score", "passes", "Spearman with true damage", "its plan's damage over the best plan's")
    caption = say(
        "True damage of {layers} layers in {formats} formats, on scenes that were not profiled; favoured: {score}.",
        layers=audit.layers, formats=len(audit.formats), score=audit.favoured,
    )  # fmt: skip
    return [Table(say("Scores against true damage"), tuple(map(say, columns)), rows, caption)]


def transfer_blocks(transfer: Transfer, say: Wording) -> list[Element]:
    """What moving a calibration costs: the gate, and every plan on every kind of scenes."""
    sentences = tuple(map(say.translated, transfer_sentences(transfer)))
    return [Text(sentences), *map(say.table, transfer_tables(transfer))]
