"""An evaluation as the text report and as tables for the terminal.

The results themselves (`Evaluation`, `verdict`, the JSON) are in `analysis.evaluation.results`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from analysis.evaluation.results import (
    Evaluation,
    SchemeResult,
    compression_ratio,
    format_mb,
    format_number,
    short_title,
)
from analysis.evaluation.results_file import evaluation_to_json, from_json
from analysis.evaluation.verdict import Verdict, VerdictRow, verdict
from analysis.report.document import Table, Tone
from analysis.report.evaluation_tables import (
    EVALUATION_LEGEND,
    nmse_table,
    output_table,
    stage_tables,
    summary_table,
    threshold_table,
    times_faster,
    verdict_table,
)
from analysis.report.geometry_tables import cost_table, figure_table, text_tables
from analysis.report.renderers.text import WIDTH, block_lines, draw_table, wrapped
from vggtkit.core.escaping import printable
from vggtkit.quant import FORMATS

__all__ = [
    "Evaluation",
    "SchemeResult",
    "Verdict",
    "VerdictRow",
    "compression_ratio",
    "evaluation_to_json",
    "from_json",
    "terminal_tables",
    "to_text",
    "verdict",
]


def _execution_lines(evaluation: Evaluation) -> list[str]:
    """How what was not executed as the reference was; nothing where all was."""
    lines = []
    for result in evaluation.quantized:
        if execution := result.execution:
            ways = ", ".join(f"{count} layers {way}" for way, count in execution["layers"].items())
            sentence = f"{ways}; weights that passes read {format_mb(execution['weight_bytes'])} MB"
            if result.speed_ratio is not None:
                to_fp32, to_bfloat16 = times_faster(result.speed_ratio), times_faster(result.bfloat16_ratio)
                sentence += f"; {to_fp32} FP32's speed, {to_bfloat16} bfloat16's"
            if converted := execution["converted"]:
                worst = format_number(max(converted.values()))
                sentence += f"; {len(converted)} weights rounded once more, NMSE up to {worst}"
            lines += wrapped(sentence, f"{short_title(result)} executed by {execution['backend']}: ")
            lines += wrapped(_fallbacks(execution["fell_back"]), "  not in whole numbers: ")
    return [*lines, ""] if lines else []


def _fallbacks(fell_back: Mapping[str, str]) -> str:
    """Layers by reason, the first three of each by name."""
    by_reason: dict[str, list[str]] = {}
    for layer, reason in fell_back.items():
        by_reason.setdefault(reason, []).append(layer)
    parts = []
    for reason, layers in by_reason.items():
        more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
        parts.append(f"{reason}: {', '.join(layers[:3])}{more}")
    return "; ".join(parts) or "none"


def to_text(evaluation: Evaluation, answer: Verdict | None = None) -> str:
    """The report as plain text: aligned tables, lines of at most 120 characters.

    The verdict is made where nobody has it yet.

    >>> fp32 = SchemeResult("fp32", "FP32", 40_000_000, None, None, None, {}, 0.0, (0.0,))
    >>> evaluation = Evaluation({"seed": 0}, "tiny", "trained", ("room",), (), "nothing", (fp32,), {}, None)
    >>> print(to_text(evaluation).splitlines()[3])
    weights            trained
    """
    outputs = [output_table(evaluation, name, 3, with_entropy=True) for name in evaluation.outputs]
    parts = ["Quantisation report", "=" * WIDTH, *_header(evaluation), "", "Answer", "------"]
    answer = answer or verdict(evaluation)
    parts += [*wrapped(answer.sentence), "", *_plan_lines(evaluation), ""]
    geometry = text_tables(evaluation)
    parts += _execution_lines(evaluation)
    stages = stage_tables(evaluation)
    for table in (
        summary_table(evaluation),
        *stages,
        verdict_table(evaluation, answer),
        *geometry,
        nmse_table(evaluation),
        *outputs,
    ):
        parts += [*block_lines(table), ""]
    parts += ["How to read this", "----------------"]
    parts += [line for text in EVALUATION_LEGEND for line in wrapped(text, "- ")]
    return "\n".join(printable(line) for line in [*parts, "", *draw_table(threshold_table())]) + "\n"


def _header(evaluation: Evaluation) -> Iterator[str]:
    facts: dict[str, object] = {
        "model": evaluation.model,
        "weights": evaluation.weights_note,
        "evaluation scenes": ", ".join(evaluation.scenes),
        "calibration scenes": ", ".join(evaluation.calibration_scenes) or "none",
        "timed": evaluation.executed,
    }
    facts |= evaluation.provenance
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        yield from wrapped(shown, f"{name:<{width}} ")


def _plan_lines(evaluation: Evaluation) -> list[str]:
    counts = [
        f"{count} layers {FORMATS[key].title if key in FORMATS else key}"
        for key, count in evaluation.plan_formats.items()
    ]
    measured = format_number(evaluation.plan.damage if evaluation.plan else None)
    predicted = f"predicted damage {format_number(evaluation.predicted_damage)}, measured {measured}"
    return wrapped(f"{', '.join(counts) or 'no formats'}; {predicted}", "The plan: ")


def terminal_tables(evaluation: Evaluation, answer: Verdict | None = None, *, with_outputs: bool = True) -> list[Table]:
    """The report's tables: summary and verdict (80 columns), two of geometry if known, one per output (100 columns).

    The per-output tables hold the rated metrics with two digits, coloured by rating, its letter beside them.

    >>> fp32 = SchemeResult("fp32", "FP32", 40_000_000, None, None, None, {}, 0.0, (0.0,))
    >>> evaluation = Evaluation({"seed": 0}, "tiny", "trained", ("room",), (), "nothing", (fp32,), {}, None)
    >>> terminal_tables(evaluation)[0].title
    'Size, time and damage'
    """
    answer = answer or verdict(evaluation)
    tables = [summary_table(evaluation), *stage_tables(evaluation), verdict_table(evaluation, answer)]
    if evaluation.results[0].geometry:
        tables += [cost_table(evaluation), figure_table(evaluation)]
    if with_outputs:
        tables += [output_table(evaluation, name, 2, with_entropy=False) for name in evaluation.outputs]
    names = {result.title: short_title(result) for result in evaluation.results}
    plan = short_title(evaluation.plan) if evaluation.plan else None
    return [_for_terminal(table, names, plan) for table in tables]


def _for_terminal(table: Table, names: Mapping[str, str], strong: str | None) -> Table:
    """The same with short names in the first column, that of the plan in bold."""
    rows = [(names.get(title, title), *cells) for (title, *_), (_, *cells) in zip(table.texts, table.rows, strict=True)]
    tones: dict[int, Tone] = {number: "strong" for number, row in enumerate(rows) if row[0] == strong}
    return replace(table, rows=rows, tones=tones)
