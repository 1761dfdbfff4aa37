"""An evaluation as the text report and as tables for the terminal.

The results themselves (`Evaluation`, `verdict`, the JSON) are in `analysis.evaluation.results`.
"""

import json
import math
import textwrap
from collections.abc import Iterator, Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from analysis.evaluation.results import (
    Evaluation,
    SchemeResult,
    Verdict,
    VerdictRow,
    compression_ratio,
    format_mb,
    format_number,
    from_json,
    short_title,
    to_json,
    verdict,
)
from analysis.report.geometry_tables import LEGEND, cost_grid, figure_grid, text_grids
from analysis.report.grid import Grid, draw_grid
from vggtkit.core.escaping import printable
from vggtkit.metrics import METRICS
from vggtkit.metrics.ratings import LEVELS, NOT_APPLICABLE, THRESHOLDS, rate
from vggtkit.quant import FORMATS

__all__ = [
    "Evaluation",
    "SchemeResult",
    "Verdict",
    "VerdictRow",
    "compression_ratio",
    "from_json",
    "rich_tables",
    "to_json",
    "to_text",
    "verdict",
]

REPORT_WIDTH = 120
_STYLES = dict(zip(LEVELS, ("green", "cyan", "yellow", "red"), strict=True))


def _rated(metric: str, value: float | None, digits: int) -> str:
    """The value and the first letter of its level, say ``1.23e-5 E``."""
    if value is None:
        return NOT_APPLICABLE
    text = format_number(value, digits)
    if math.isfinite(value):
        if metric == "psnr_db":
            text = f"{value:.1f}"
        elif metric in ("cosine", "ssim"):
            text = f"{value:.{digits + 2}f}"
        elif metric == "relative_error":
            text = "<0.01%" if value < 1e-4 else f"{format_number(100 * value, digits)}%"
    return f"{text} {rate(metric, value)[0].upper()}"


def _summary(evaluation: Evaluation) -> Grid:
    columns = ("scheme", "size MB", "smaller by", "time s", "min - max", "speed", "damage")
    return Grid("Size, time and damage", columns, [_summary_row(evaluation, r) for r in evaluation.results])


def _summary_row(evaluation: Evaluation, result: SchemeResult) -> tuple[str, ...]:
    spread = result.seconds_spread
    return (
        result.title,
        format_mb(result.size_bytes),
        f"{compression_ratio(result, evaluation.results[0]):.2f}x",
        format_number(result.seconds),
        NOT_APPLICABLE if spread is None else f"{format_number(spread[0])} - {format_number(spread[1])}",
        NOT_APPLICABLE if result.speed_ratio is None else f"{result.speed_ratio:.2f}x",
        format_number(result.damage),
    )


def _execution_lines(evaluation: Evaluation) -> list[str]:
    """How what was not executed as the reference was; nothing where all was."""
    lines = []
    for result in evaluation.quantized:
        if execution := result.execution:
            ways = ", ".join(f"{count} layers {way}" for way, count in execution["layers"].items())
            sentence = f"{ways}; weights that passes read {format_mb(execution['weight_bytes'])} MB"
            if result.speed_ratio is not None:
                sentence += f"; {_times(result.speed_ratio)} FP32's speed, {_times(result.bfloat16_ratio)} bfloat16's"
            if converted := execution["converted"]:
                worst = format_number(max(converted.values()))
                sentence += f"; {len(converted)} weights rounded once more, NMSE up to {worst}"
            lines += _wrapped(sentence, f"{short_title(result)} executed by {execution['backend']}: ")
            lines += _wrapped(_fallbacks(execution["fell_back"]), "  not in whole numbers: ")
    return [*lines, ""] if lines else []


def _times(ratio: float | None) -> str:
    return NOT_APPLICABLE if ratio is None else f"{ratio:.2f}x"


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


def _stage_grids(evaluation: Evaluation) -> list[Grid]:
    columns = ("stage", "FP32 s", "executed s", "speed")
    return [
        Grid(
            f"Seconds by stage, {short_title(result)} (one pass)",
            columns,
            [(stage, format_number(fp32), format_number(quantized), _times(fp32 / quantized if quantized else None))
             for stage, (fp32, quantized) in result.stages.items()],
        )
        for result in evaluation.quantized
        if result.stages
    ]  # fmt: skip


def _verdict_grid(evaluation: Evaluation) -> Grid:
    columns = ("uniform scheme", "size MB", "damage", "/ plan's", "scenes won", "plan better?")
    rows = [
        (
            row.title,
            format_mb(row.size_bytes),
            format_number(row.damage),
            format_number(row.damage_ratio),
            f"{row.scenes_won}/{len(evaluation.scenes)}",
            ("yes" if row.plan_is_better else "no") + ("" if row.plan_is_smaller else " (is smaller)"),
        )
        for row in verdict(evaluation).rows
    ]
    return Grid("Is the plan better than every uniform scheme of its size or larger?", columns, rows)


def _output_grid(evaluation: Evaluation, output: str, digits: int, *, with_entropy: bool) -> Grid:
    """The rated metrics of one output under every scheme, and those that were added; with entropy, CE too."""
    entropy_at = 1 + list(THRESHOLDS).index("ce_excess")
    added = _added_metrics(evaluation, output)
    columns = ["scheme", *(thresholds.label for thresholds in THRESHOLDS.values())]
    columns += [METRICS[key].title if key in METRICS else key for key in added]
    rows = []
    for result in evaluation.quantized:
        if (metrics := result.outputs.get(output)) is not None:
            rated = [_rated(metric, getattr(metrics, metric), digits) for metric in THRESHOLDS]
            rated += [format_number(metrics.extra.get(key), digits) for key in added]
            rows.append([short_title(result), *rated])
            if with_entropy:
                rows[-1].insert(entropy_at, format_number(metrics.ce))
    if with_entropy:
        columns.insert(entropy_at, "CE")
    return Grid(output, tuple(columns), [tuple(row) for row in rows])


def _added_metrics(evaluation: Evaluation, output: str) -> list[str]:
    """Keys of the metrics that an output has beyond those of everyone."""
    of_output = [result.outputs[output] for result in evaluation.quantized if output in result.outputs]
    return list(dict.fromkeys(key for metrics in of_output for key in metrics.extra))


def _nmse_grid(evaluation: Evaluation) -> Grid:
    names = evaluation.outputs
    rows = []
    for result in evaluation.quantized:
        values = [result.outputs[name].nmse if name in result.outputs else None for name in names]
        rows.append((short_title(result), *(format_number(value) for value in values)))
    return Grid("Normalised error (NMSE) of every output", ("scheme", *names), rows)


def _threshold_grid() -> Grid:
    rows = []
    for metric, limits in THRESHOLDS.items():
        sign = ">" if limits.higher_is_better else "<"
        shown = (limits.excellent, limits.good, limits.acceptable)
        texts = (f"{100 * x:g}%" if metric == "relative_error" else f"{x:g}" for x in shown)
        rows.append((limits.label, *(f"{sign} {text}" for text in texts), "else"))
    return Grid("Ratings", ("metric", "E excellent", "G good", "A acceptable", "P poor"), rows)


_LEGEND = (
    "1 MB is 10^6 bytes; sizes are those of the packed files. 'smaller by' is FP32's size / the scheme's.",
    "time is the median of repeats, interleaved with FP32; speed is the median of FP32's time / the scheme's "
    "in the same repeat, above 1 is faster than FP32.",
    "damage is the mean over the outputs of NMSE = sum (scheme - FP32)^2 / sum FP32^2 on the evaluation "
    "scenes; 0 is no difference, 1 is as far off as an output of zeros. 'scenes won' counts the scenes where "
    "the plan's damage is the lower one.",
    *LEGEND,
    "Metrics are against FP32, means over the evaluation scenes. The letter is the rating (table below); "
    "n/a: the metric does not apply to this output.",
    "CE (nats) has the entropy of the reference as its floor; what is rated is CE excess = CE - entropy.",
    "The limits of MAE, MSE and RMSE ignore an output's unit and scale: compare outputs by NMSE.",
)


def to_text(evaluation: Evaluation) -> str:
    """The report as plain text: aligned tables, lines of at most 120 characters.

    >>> fp32 = SchemeResult("fp32", "FP32", 40_000_000, None, None, None, {}, 0.0, (0.0,))
    >>> evaluation = Evaluation({"seed": 0}, "tiny", "trained", ("room",), (), "nothing", (fp32,), {}, None)
    >>> print(to_text(evaluation).splitlines()[3])
    weights            trained
    """
    outputs = [_output_grid(evaluation, name, 3, with_entropy=True) for name in evaluation.outputs]
    parts = ["Quantisation report", "=" * REPORT_WIDTH, *_header(evaluation), "", "Answer", "------"]
    parts += [*_wrapped(verdict(evaluation).sentence), "", *_plan_lines(evaluation), ""]
    geometry = text_grids(evaluation)
    parts += _execution_lines(evaluation)
    stages = _stage_grids(evaluation)
    for grid in (_summary(evaluation), *stages, _verdict_grid(evaluation), *geometry, _nmse_grid(evaluation), *outputs):
        parts += [*draw_grid(grid), ""]
    parts += ["How to read this", "----------------"]
    parts += [line for text in _LEGEND for line in _wrapped(text, "- ")]
    return "\n".join(printable(line) for line in [*parts, "", *draw_grid(_threshold_grid())]) + "\n"


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
        yield from _wrapped(shown, f"{name:<{width}} ")


def _wrapped(text: str, label: str = "") -> list[str]:
    wrapper = textwrap.TextWrapper(REPORT_WIDTH, label, " " * len(label), break_on_hyphens=False)
    return wrapper.wrap(text) or [label.rstrip()]


def _plan_lines(evaluation: Evaluation) -> list[str]:
    counts = [
        f"{count} layers {FORMATS[key].title if key in FORMATS else key}"
        for key, count in evaluation.plan_formats.items()
    ]
    measured = format_number(evaluation.plan.damage if evaluation.plan else None)
    predicted = f"predicted damage {format_number(evaluation.predicted_damage)}, measured {measured}"
    return _wrapped(f"{', '.join(counts) or 'no formats'}; {predicted}", "The plan: ")


def rich_tables(evaluation: Evaluation, *, with_outputs: bool = True) -> list[Table]:
    """The report's tables: summary and verdict (80 columns), two of geometry if known, one per output (100 columns).

    The per-output tables hold the rated metrics with two digits, coloured by rating, its letter beside them.

    >>> fp32 = SchemeResult("fp32", "FP32", 40_000_000, None, None, None, {}, 0.0, (0.0,))
    >>> evaluation = Evaluation({"seed": 0}, "tiny", "trained", ("room",), (), "nothing", (fp32,), {}, None)
    >>> [str(table.title) for table in rich_tables(evaluation)][0]
    'Size, time and damage'
    """
    grids = [_summary(evaluation), *_stage_grids(evaluation), _verdict_grid(evaluation)]
    if evaluation.results[0].geometry:
        grids += [cost_grid(evaluation), figure_grid(evaluation)]
    if with_outputs:
        grids += [_output_grid(evaluation, name, 2, with_entropy=False) for name in evaluation.outputs]
    names = {result.title: short_title(result) for result in evaluation.results}
    plan = short_title(evaluation.plan) if evaluation.plan else None
    return [_rich(grid, names, plan) for grid in grids]


def _rich(grid: Grid, names: Mapping[str, str], bold: str | None) -> Table:
    table = Table(title=Text(grid.title), box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(grid.columns):
        table.add_column(Text(column), justify="right" if index else "left", no_wrap=column != grid.wraps)
    for title, *values in grid.rows:
        name = names.get(title, title)
        cells = (Text(name), *(Text(value, style=_style(value)) for value in values))
        table.add_row(*cells, style="bold" if name == bold else "")
    return table


def _style(cell: str) -> str:
    """The colour of the rating that ends a cell, if one does."""
    letters = {level[0].upper(): style for level, style in _STYLES.items()}
    return letters.get(cell[-1], "") if cell[-2:-1] == " " else ""
