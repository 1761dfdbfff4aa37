"""One layer from close by, as tables and sentences."""

from __future__ import annotations

import dataclasses
import math

from analysis.audit.rounding_or_bits import EXPLANATION, attribution
from analysis.audit.tables import bars
from analysis.evaluation.results import format_number
from analysis.inspection.layer import OUTLIER_DEVIATIONS, Distribution, Inspection
from analysis.report.document import Row, Table
from vggtkit.quant import get_format
from vggtkit.quant.activations import ACTIVATION_FORMATS


def inspection_tables(inspection: Inspection) -> list[Table]:
    """Distributions, then what every format does."""
    tables = [_values_table(inspection), _format_table(inspection)]
    if any(row.noise is not None for row in inspection.formats):
        tables.append(_noise_table(inspection))
    return [*tables, _input_table(inspection)] if inspection.inputs else tables


def inspection_sentences(inspection: Inspection) -> list[str]:
    """The layer in words."""
    layer = inspection.layer
    shape = " x ".join(map(str, layer.shape))
    lines = [
        f"{layer.name}: {layer.kind}, {layer.role}, block {layer.block}, {shape} = {layer.weights:,} weights; "
        f"number {inspection.rank} of {inspection.layers} by damage at INT4.",
        f"The widest channel's largest weight is {inspection.channel_ratio:.1f} times that of the median channel: what "
        "one scale for the whole tensor wastes on most channels."
        if math.isfinite(inspection.channel_ratio)
        else "At least half of its channels have no weight but zeros: no other is told apart from the median channel.",
    ]
    if inspection.outlier_channels:
        some = ", ".join(map(str, inspection.outlier_channels[:12]))
        lines.append(f"Outlier channels of its output (10 times the median channel's largest): {some}.")
    return lines


def inspection_values(inspection: Inspection) -> dict[str, object]:
    """The same as plain values."""
    values = dataclasses.asdict(inspection)
    for name in ("weight", "activation"):
        if values[name]:
            values[name] |= {key: values[name][key].tolist() for key in ("edges", "histogram")}
    return values


def _values_table(inspection: Inspection) -> Table:
    rows = [
        (
            name,
            _histogram_bars(values),
            f"{values.edges[0]:.3g} .. {values.edges[-1]:.3g}",
            format_number(values.deviation),
            f"{values.largest / values.deviation:.1f} dev." if values.deviation > 0 else "n/a",
            f"{values.kurtosis:.1f}",
            f"{values.outliers:,} of {values.count:,}",
        )
        for name, values in (("weights", inspection.weight), ("outputs", inspection.activation))
        if values is not None
    ]
    columns = ("of", "histogram, log scale", "range", "deviation", "largest", "kurtosis", "outliers")
    caption = f"outliers: further than {OUTLIER_DEVIATIONS:g} deviations from the mean; kurtosis: 0 for normal values"
    return Table("Distributions", columns, rows, caption, words=columns[1:2])


def _histogram_bars(values: Distribution) -> str:
    """At most 31 bars, of logarithmic height."""
    merged = [values.histogram[start : start + 2].sum() for start in range(0, len(values.histogram), 2)]
    return bars(math.log10(1 + count) if count else None for count in merged)


def _format_table(inspection: Inspection) -> Table:
    tasks = list(inspection.formats[0].damage) if inspection.formats else []
    rows: list[Row] = []
    for row in inspection.formats:
        local = [row.local.get(name, math.nan) for name in ("mae", "cosine", "ssim")]
        shown = [f"{value:.4f}" if math.isfinite(value) else "n/a" for value in local]
        cells = [format_number(value) for value in (row.total, *row.damage.values())]
        name = get_format(row.key).short_title
        rows.append((name, f"{row.size_bytes:,}", format_number(row.weight_error), *shown, *cells))
    caption = (
        "weight error: squared, over the weights' energy; MAE, cosine, SSIM: of the layer's own output on clean input; "
        "damage: sketched NMSE at the model's outputs, their mean and by task"
    )
    columns = ("format", "bytes", "weight error", "MAE", "cosine", "SSIM", "damage", *tasks)
    return Table("What every format does", columns, rows, caption)


def _noise_table(inspection: Inspection) -> Table:
    rows: list[Row] = []
    for row in inspection.formats:
        verdict = attribution(row.total, row.noise, row.left)
        ratio = format_number(row.total / row.noise) if row.noise else "n/a"
        left = f"{row.left:.1%}" if row.left is not None else "n/a"
        noise = format_number(row.noise) if row.noise is not None else "n/a"
        rows.append((get_format(row.key).short_title, format_number(row.total), noise, ratio, left, verdict))
    columns = ("format", "damage", "noise of its norm", "damage / noise", "left by gptq", "it is")
    return Table("Is it the rounding or the bits?", columns, rows, EXPLANATION, words=columns[-1:])


def _input_table(inspection: Inspection) -> Table:
    tasks = ["damage" if name == "total" else name for name in next(iter(inspection.inputs.values()))]
    rows: list[Row] = [
        (ACTIVATION_FORMATS[key].title, *map(format_number, damage.values()))
        for key, damage in inspection.inputs.items()
    ]
    caption = "sketched NMSE at the model's outputs with this layer's input rounded and its weight in FP32"
    return Table("What rounding its input does", ("activations", *tasks), rows, caption)
