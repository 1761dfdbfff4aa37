"""Peak memory and time of inference, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.report.document import Row, Table
from mixedprec import Plan
from mixedprec.budget import format_bytes
from mixedprec.resolve import KEPT_BYTES
from mixedprec.timing import Conditions, TimedExecution, Timing
from vggtkit.quant import Layer
from vggtkit.runtime.kernel_table import KernelTable
from vggtkit.subject import Subject

FP32, REFERENCE, INT8 = "FP32", "plan, reference", "plan, int8"


@dataclass(frozen=True)
class Forecast:
    """One way to run a model on so many pictures.

    Attributes:
        way: `FP32`, or the plan as `REFERENCE` or `INT8` executes it.
        views: pictures.
        weight_bytes: in memory, all the time.
        activation_bytes: at the fullest moment of a pass.
        seconds: of a pass; None without a kernel table.
    """

    way: str
    views: int
    weight_bytes: int
    activation_bytes: int
    seconds: float | None

    @property
    def peak_bytes(self) -> int:
        """Of the model; what the process needs for itself comes on top."""
        return self.weight_bytes + self.activation_bytes


def forecasts(
    subject: Subject, plan: Plan | None, table: KernelTable | None, activation_bytes: Sequence[tuple[int, int]]
) -> list[Forecast]:
    """FP32 and the plan on several numbers of pictures.

    Args:
        subject: the architecture, with the heads of the plan.
        plan: made for it; None for FP32 alone.
        table: of this machine; None for memory alone.
        activation_bytes: pictures, and what `peak_activation_bytes` says of them.
    """
    rows = []
    for views, held in activation_bytes:
        timing = Timing(Conditions(views, held, table), subject.layers, subject.heads, _kept(subject))
        rows.append(Forecast(FP32, views, 4 * subject.parameters, held, timing.fp32_seconds if table else None))
        if plan is not None:
            rows += [_as_reference(subject, plan, timing), _as_int8(subject, plan, timing)]
    return rows


def forecast_table(rows: Sequence[Forecast], title: str) -> Table:
    """Memory and time, and what the plan saves of FP32's."""
    fp32 = {row.views: row.peak_bytes for row in rows if row.way == FP32}
    shown = list[Row]()
    for row in rows:
        numbers = (f"{size / 1e6:.1f}" for size in (row.weight_bytes, row.activation_bytes, row.peak_bytes))
        seconds = "" if row.seconds is None else f"{row.seconds:.3f}"
        shown.append((str(row.views), row.way, *numbers, f"{row.peak_bytes / fp32[row.views]:.0%}", seconds))
    columns = ("pictures", "", "weights MB", "activations MB", "together MB", "of FP32", "seconds")
    ruled = tuple(number for number, row in enumerate(rows[:-1]) if row.views != rows[number + 1].views)
    return Table(title, columns, shown, words=("",), ruled=ruled)


def savings_sentence(rows: Sequence[Forecast]) -> str:
    """How far the bytes of weights help, at the fewest and at the most pictures."""
    said = []
    for views in sorted({rows[0].views, rows[-1].views}):
        fp32 = next(row for row in rows if (row.way, row.views) == (FP32, views))
        plan = next((row for row in rows if row.way == INT8 and row.views == views), None)
        share = f"{fp32.weight_bytes / fp32.peak_bytes:.0%} of FP32's memory is weights"
        saved = "" if plan is None else f", the plan saves {format_bytes(fp32.peak_bytes - plan.peak_bytes)}"
        saved += "" if plan is None else f" ({1 - plan.peak_bytes / fp32.peak_bytes:.0%})"
        said.append(f"with {views} picture{'s' * (views > 1)} {share}{saved}")
    return f"How far weight bytes help: {'; '.join(said)}."


def _kept(subject: Subject) -> int:
    return KEPT_BYTES * (subject.parameters - sum(layer.weights for layer in subject.layers))


def _as_reference(subject: Subject, plan: Plan, timing: Timing) -> Forecast:
    """Packed, one layer dequantised at a time."""
    weights = timing.kept_bytes + sum(plan.layer_bytes.values())
    largest = 4 * max(layer.weights for layer in subject.layers)
    seconds = None
    if timing.table is not None and timing.times is not None:
        times, table = timing.times, timing.table
        seconds = timing.fp32_seconds + sum(
            times.calls[table.measured_as(layer.name)]
            * layer.weights
            * table.unpacking.get(plan.formats[layer.name], {}).get("float", 0.0)
            for layer in subject.layers
        )
    return Forecast(REFERENCE, timing.conditions.views, weights, timing.conditions.activation_bytes + largest, seconds)


def _as_int8(subject: Subject, plan: Plan, timing: Timing) -> Forecast:
    """As the plan says, else every layer in its fastest way."""
    ways = [_way(layer, plan, timing) for layer in subject.layers]
    seconds = None if timing.table is None else timing.rest_seconds + sum(way.nanoseconds for way in ways) / 1e9
    weights = timing.kept_bytes + sum(way.memory_bytes for way in ways)
    return Forecast(INT8, timing.conditions.views, weights, timing.conditions.activation_bytes, seconds)


def _way(layer: Layer, plan: Plan, timing: Timing) -> TimedExecution:
    ways = timing.ways(layer, plan.formats[layer.name], plan.layer_bytes[layer.name])
    told = [way for way in ways if way.execution == plan.executions.get(layer.name)]
    return told[0] if told else min(ways, key=lambda way: way.nanoseconds)
