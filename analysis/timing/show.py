"""A kernel table as tables."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.report.document import Row, Table
from vggtkit.quant import Layer
from vggtkit.runtime.backend import EXECUTIONS
from vggtkit.runtime.kernel_table import BACKEND, FIXED, PLAIN, KernelTable, PassTimes

SHOWN = 24
"""Kinds of layers in the table, those that take most first."""


def kernel_tables(table: KernelTable, layers: Sequence[Layer]) -> list[Table]:
    """Layers by shape and execution, and stages, for the number of pictures that was asked for."""
    times = table.at(table.views)
    return [_shapes(table, times, layers), _stages(table, times, layers)]


def whole_seconds(table: KernelTable, times: PassTimes, layers: Sequence[Layer]) -> dict[str, float]:
    """A pass with every layer in one execution, as far as it has it; else in its fastest."""
    seconds = {PLAIN: table.plain_seconds(times, layers, table.heads)}
    rest = table.rest(times, BACKEND, table.heads)
    for how in ("fp32", *EXECUTIONS[1:]):
        ways = [times.seconds[table.measured_as(layer.name)] for layer in layers]
        if any(how in way for way in ways):
            seconds[how] = rest + sum(_own(way, how) for way in ways)
    seconds["fastest"] = rest + sum(
        min(taken for how, taken in times.seconds[table.measured_as(layer.name)].items() if how != PLAIN)
        for layer in layers
    )
    return seconds


def _own(way: dict[str, float] | object, how: str) -> float:
    assert isinstance(way, dict)
    return float(way[how]) if how in way else min(taken for name, taken in way.items() if name != PLAIN)


def _shapes(table: KernelTable, times: PassTimes, layers: Sequence[Layer]) -> Table:
    """One row for layers that are alike; milliseconds of one of them, in all its calls of a pass."""
    alike: dict[tuple[object, ...], list[Layer]] = {}
    for layer in layers:
        name = table.measured_as(layer.name)
        alike.setdefault((layer.kind, layer.shape, times.calls[name], table.rows[name].stage), []).append(layer)
    columns = [PLAIN, *(how for how in EXECUTIONS if any(how in ways for ways in times.seconds.values()))]
    height, width = table.size

    def mean(group: Sequence[Layer], how: str) -> float | None:
        times_of_group = [times.seconds[table.measured_as(layer.name)].get(how) for layer in group]
        known = [taken for taken in times_of_group if taken is not None]
        return sum(known) / len(known) if known else None

    order = sorted(alike.items(), key=lambda item: -len(item[1]) * (mean(item[1], PLAIN) or 0.0))
    rows = list[Row]()
    for (kind, shape, calls, stage), group in order[:SHOWN]:
        values = [mean(group, how) for how in columns]
        fixed = mean(group, FIXED)
        cells = ["" if value is None else f"{1e3 * value:.3g}" for value in values]
        if fixed is not None and len(cells) > 1:
            cells[1] = f"{1e3 * fixed:.3g}"
        assert isinstance(shape, tuple)
        assert isinstance(calls, float)
        rows.append((str(stage), str(kind), "x".join(map(str, shape)), str(len(group)), f"{calls:.0f}", *cells))
    title = f"Milliseconds of a layer, {table.model}, {times.views} pictures of {height}x{width}"
    names = ("stage", "kind", "shape", "layers", "calls", *(how.replace("_", " ") for how in columns))
    return Table(title, names, rows, words=("kind",))


def _stages(table: KernelTable, times: PassTimes, layers: Sequence[Layer]) -> Table:
    """Seconds of layers and of the rest (attention, norms, resizing) by stage."""
    rows = list[Row]()
    for stage in times.rest[PLAIN]:
        ways = [
            times.seconds[table.measured_as(layer.name)]
            for layer in layers
            if table.rows[table.measured_as(layer.name)].stage == stage
        ]
        often = table.repeats.get(stage, 1)
        fastest = sum(min(taken for how, taken in way.items() if how != PLAIN) for way in ways)
        cells = (
            sum(way[PLAIN] for way in ways), often * times.rest[PLAIN][stage], fastest,
            often * times.rest[BACKEND][stage],
        )  # fmt: skip
        rows.append((stage, *(f"{value:.4f}" for value in cells)))
    return Table("Seconds by stage", ("stage", "layers, FP32", "rest, FP32", "layers, fastest", "rest, int8"), rows)
