"""An evaluation as tables: size, time and damage, the verdict, errors of every output, ratings."""

import math
from collections.abc import Sequence
from typing import cast

from analysis.evaluation.results import (
    Evaluation,
    SchemeResult,
    compression_ratio,
    format_mb,
    format_number,
    short_title,
)
from analysis.evaluation.verdict import Verdict
from analysis.report.document import Cell, Row, Table, Tone
from analysis.report.geometry_tables import GEOMETRY_LEGEND
from vggtkit.metrics import METRICS
from vggtkit.metrics.ratings import NOT_APPLICABLE, THRESHOLDS, rate

EVALUATION_LEGEND = (
    "1 MB is 10^6 bytes; sizes are those of the packed files. 'smaller by' is FP32's size / the scheme's.",
    "time is the median of repeats, interleaved with FP32; speed is the median of FP32's time / the scheme's "
    "in the same repeat, above 1 is faster than FP32.",
    "memory is that of the weights as they are held while it runs, and of all tensors of a pass at its fullest moment; "
    "the process and its libraries take more.",
    "damage is the mean over the outputs of NMSE = sum (scheme - FP32)^2 / sum FP32^2 on the evaluation "
    "scenes; 0 is no difference, 1 is as far off as an output of zeros. 'scenes won' counts the scenes where "
    "the plan's damage is the lower one.",
    *GEOMETRY_LEGEND,
    "Metrics are against FP32, means over the evaluation scenes. The letter is the rating (table below); "
    "n/a: the metric does not apply to this output.",
    "CE (nats) has the entropy of the reference as its floor; what is rated is CE excess = CE - entropy.",
    "The limits of MAE, MSE and RMSE ignore an output's unit and scale: compare outputs by NMSE.",
)


def _rated(metric: str, value: float | None, digits: int) -> Cell:
    """The value and the first letter of its level, say ``1.23e-5 E``."""
    if value is None:
        return Cell(NOT_APPLICABLE)
    text = format_number(value, digits)
    if math.isfinite(value):
        if metric == "psnr_db":
            text = f"{value:.1f}"
        elif metric in ("cosine", "ssim"):
            text = f"{value:.{digits + 2}f}"
        elif metric == "relative_error":
            text = "<0.01%" if value < 1e-4 else f"{format_number(100 * value, digits)}%"
    level = rate(metric, value)
    return Cell(f"{text} {level[0].upper()}", value, cast("Tone", level))


def summary_table(evaluation: Evaluation) -> Table:
    """Bytes, seconds and damage of every result."""
    columns: tuple[str, ...] = ("scheme", "size MB", "smaller by", "time s", "min - max", "speed", "damage")
    rows = [_summary_row(evaluation, result) for result in evaluation.results]
    if any(result.memory_bytes for result in evaluation.results):
        columns = (*columns, "memory MB")
        memory = [result.memory_bytes for result in evaluation.results]
        rows = [(*row, Cell(_megabytes(size), size)) for row, size in zip(rows, memory, strict=True)]
    return Table("Size, time and damage", columns, rows, tones=_plan_stands_out(evaluation.results))


def _megabytes(size: int | None) -> str:
    return NOT_APPLICABLE if size is None else format_mb(size)


def _plan_stands_out(results: Sequence[SchemeResult]) -> dict[int, Tone]:
    return {number: "strong" for number, result in enumerate(results) if result.key == "plan"}


def _summary_row(evaluation: Evaluation, result: SchemeResult) -> Row:
    spread = result.seconds_spread
    return (
        result.title,
        Cell(format_mb(result.size_bytes), result.size_bytes),
        f"{compression_ratio(result, evaluation.results[0]):.2f}x",
        Cell(format_number(result.seconds), result.seconds),
        NOT_APPLICABLE if spread is None else f"{format_number(spread[0])} - {format_number(spread[1])}",
        NOT_APPLICABLE if result.speed_ratio is None else f"{result.speed_ratio:.2f}x",
        Cell(format_number(result.damage), result.damage),
    )


def times_faster(ratio: float | None) -> str:
    """A ratio of speeds in words.

    >>> times_faster(1.5), times_faster(None)
    ('1.50x', 'n/a')
    """
    return NOT_APPLICABLE if ratio is None else f"{ratio:.2f}x"


def stage_tables(evaluation: Evaluation) -> list[Table]:
    """Where a pass spends its time, for what was not executed as the reference was."""
    columns = ("stage", "FP32 s", "executed s", "speed")
    return [
        Table(
            f"Seconds by stage, {short_title(result)} (one pass)",
            columns,
            [
                (stage, format_number(fp32), format_number(own), times_faster(fp32 / own if own else None))
                for stage, (fp32, own) in result.stages.items()
            ],
        )
        for result in evaluation.quantized
        if result.stages
    ]


def verdict_table(evaluation: Evaluation, answer: Verdict) -> Table:
    """The uniform schemes one by one against the plan."""
    columns = ("uniform scheme", "size MB", "damage", "/ plan's", "scenes won", "plan better?")
    rows = [
        (
            row.title,
            Cell(format_mb(row.size_bytes), row.size_bytes),
            Cell(format_number(row.damage), row.damage),
            Cell(format_number(row.damage_ratio), row.damage_ratio),
            f"{row.scenes_won}/{len(evaluation.scenes)}",
            ("yes" if row.plan_is_better else "no") + ("" if row.plan_is_smaller else " (is smaller)"),
        )
        for row in answer.rows
    ]
    return Table("The plan beside every uniform scheme", columns, rows, answer.comparison)


def output_table(evaluation: Evaluation, output: str, digits: int, *, with_entropy: bool) -> Table:
    """The rated metrics of one output under every scheme, and those that were added; with entropy, CE too."""
    entropy_at = 1 + list(THRESHOLDS).index("ce_excess")
    added = _added_metrics(evaluation, output)
    columns = ["scheme", *(thresholds.label for thresholds in THRESHOLDS.values())]
    columns += [METRICS[key].title if key in METRICS else key for key in added]
    rows = []
    for result in evaluation.quantized:
        if (metrics := result.outputs.get(output)) is not None:
            rated: list[str | Cell] = [_rated(metric, getattr(metrics, metric), digits) for metric in THRESHOLDS]
            rated += [format_number(metrics.extra.get(key), digits) for key in added]
            row: list[str | Cell] = [short_title(result), *rated]
            if with_entropy:
                row.insert(entropy_at, format_number(metrics.ce))
            rows.append(tuple(row))
    if with_entropy:
        columns.insert(entropy_at, "CE")
    return Table(output, tuple(columns), rows)


def _added_metrics(evaluation: Evaluation, output: str) -> list[str]:
    """Keys of the metrics that an output has beyond those of everyone."""
    of_output = [result.outputs[output] for result in evaluation.quantized if output in result.outputs]
    return list(dict.fromkeys(key for metrics in of_output for key in metrics.extra))


def nmse_table(evaluation: Evaluation) -> Table:
    """The normalised error of every output under every scheme."""
    names = evaluation.outputs
    rows: list[Row] = []
    for result in evaluation.quantized:
        values = [result.outputs[name].nmse if name in result.outputs else None for name in names]
        rows.append((short_title(result), *(Cell(format_number(value), value) for value in values)))
    tones = _plan_stands_out(evaluation.quantized)
    return Table("Normalised error (NMSE) of every output", ("scheme", *names), rows, tones=tones)


def threshold_table() -> Table:
    """The limits of the ratings."""
    rows = []
    for metric, limits in THRESHOLDS.items():
        sign = ">" if limits.higher_is_better else "<"
        shown = (limits.excellent, limits.good, limits.acceptable)
        texts = (f"{100 * x:g}%" if metric == "relative_error" else f"{x:g}" for x in shown)
        rows.append((limits.label, *(f"{sign} {text}" for text in texts), "else"))
    return Table("Ratings", ("metric", "E excellent", "G good", "A acceptable", "P poor"), rows)
