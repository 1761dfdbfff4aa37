"""Seconds and memory of every way to run a layer: what plans within a time or a memory are made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, NamedTuple

from mixedprec.budget import Budget, format_bytes, read_budget
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.quant import Layer, get_format
from vggtkit.runtime.codes import is_int8
from vggtkit.runtime.int8 import is_small, stays_plain
from vggtkit.runtime.kernel_table import BACKEND, FIXED, KernelTable, PassTimes

NANOSECONDS = 10**9
_UNITS = {"ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "x": Fraction(1)}
_TIME = re.compile(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([a-z]+)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class TimeLimit:
    """How long a pass may take.

    Attributes:
        per: what ``amount`` is counted in: seconds, or FP32's time by the same kernel table.
        amount: exact.
        text: as it was written.
    """

    per: Literal["second", "fp32"]
    amount: Fraction
    text: str

    def in_nanoseconds(self, fp32_seconds: float) -> int:
        """The limit, rounded down.

        >>> read_time("0.5x").in_nanoseconds(3.0)
        1500000000
        """
        unit = NANOSECONDS if self.per == "second" else Fraction(fp32_seconds) * NANOSECONDS
        return int(self.amount * unit)


def read_time(text: str) -> TimeLimit:
    """Read a limit on the time of a pass.

    Args:
        text: such as ``15s``, ``800ms``, ``2min``, or ``0.4x`` for that share of FP32's time.

    Raises:
        InputError: it is none.

    >>> read_time("800ms").amount
    Fraction(4, 5)
    """
    match = _TIME.fullmatch(text)
    if match is None or match[2].lower() not in _UNITS or not Fraction(match[1]):
        raise InputError(
            f"time {text[:40]!r} is no positive time; write it as 15s, 800ms, 2min or 0.4x (of FP32's time)"
        )
    unit = match[2].lower()
    return TimeLimit("fp32" if unit == "x" else "second", Fraction(match[1]) * _UNITS[unit], text.strip())


def read_memory(text: str) -> Budget:
    """Read a limit on memory: an amount of bytes.

    Raises:
        InputError: it is none.

    >>> read_memory("2GB").in_bytes(parameters=1)
    2000000000
    """
    try:
        memory = read_budget(text)
    except InputError as error:
        raise InputError(f"memory: {error}") from None
    if memory.per != "byte":
        raise InputError(f"memory {text[:40]!r} is no number of bytes; write it as 2GB, 800MB or 1GiB")
    return memory


class TimedExecution(NamedTuple):
    """One way to run a layer.

    Attributes:
        execution: of `vggtkit.runtime.backend.EXECUTIONS`; "" where nothing is to choose.
        nanoseconds: in a pass.
        memory_bytes: of its weight, as it stays.
    """

    execution: str
    nanoseconds: int
    memory_bytes: int


@dataclass(frozen=True)
class Conditions:
    """What is asked of a plan beside its bytes, and what is known for it.

    Attributes:
        views: pictures in a pass; 0 until that is known.
        activation_bytes: forecast peak of what passes hold beside the weights.
        table: of this machine and model; None where no time is asked for.
        max_time: of a pass.
        max_memory: of the weights as they stay, and the activations.
    """

    views: int
    activation_bytes: int = 0
    table: KernelTable | None = None
    max_time: TimeLimit | None = None
    max_memory: Budget | None = None


class Timing:
    """Conditions for the layers of one model.

    Args:
        conditions: what is asked.
        layers: of the model.
        heads: that it keeps.
        kept_bytes: of what is not quantised, as it stays in memory.
    """

    def __init__(
        self, conditions: Conditions, layers: Iterable[Layer], heads: tuple[str, ...], kept_bytes: int
    ) -> None:
        self.conditions, self.layers, self.heads, self.kept_bytes = conditions, tuple(layers), heads, kept_bytes
        self.table = conditions.table
        self.small = is_small(self.layers)
        self.times: PassTimes | None = None
        self.rest_seconds = self.fp32_seconds = 0.0
        if self.table is not None:
            self.times = self.table.at(conditions.views)
            self.rest_seconds = self.table.rest(self.times, BACKEND, heads)
            self.fp32_seconds = self.table.plain_seconds(self.times, self.layers, heads)

    def with_time(self, limit: TimeLimit) -> Timing:
        """The same with another limit on the time."""
        conditions = replace(self.conditions, max_time=limit)
        return Timing(conditions, self.layers, self.heads, self.kept_bytes)

    @property
    def time_room(self) -> int | None:
        """Nanoseconds for the layers; None without a limit."""
        limit = self.conditions.max_time
        if limit is None:
            return None
        return limit.in_nanoseconds(self.fp32_seconds) - int(self.rest_seconds * NANOSECONDS)

    @property
    def memory_room(self) -> int | None:
        """Bytes for the layers' weights; None without a limit."""
        limit = self.conditions.max_memory
        return None if limit is None else limit.in_bytes(parameters=1) - self.held_bytes

    @property
    def held_bytes(self) -> int:
        """Memory that no choice changes."""
        return self.kept_bytes + self.conditions.activation_bytes

    def ways(self, layer: Layer, format_key: str, size_bytes: int) -> list[TimedExecution]:
        """How a layer may run in a format whose file takes so many bytes."""
        stays = self.small or stays_plain(layer)
        if self.table is None or self.times is None:
            return [TimedExecution("", 0, size_bytes)]
        seconds = self.table.layer_seconds(self.times, layer, format_key, stays=stays)
        whole = is_int8(format_key) and not get_format(format_key).is_float
        memory = {
            "fp32": 4 * layer.weights if stays else size_bytes,
            "bfloat16": 2 * layer.weights if stays else size_bytes,
            "int8": size_bytes,
            "int8_resident": layer.weights + 4 * layer.shape[0],
            FIXED: 4 * layer.weights if stays else size_bytes,
        }
        return [
            TimedExecution("" if how == FIXED else how, round(taken * NANOSECONDS), memory[how])
            for how, taken in seconds.items()
            if whole or not how.startswith("int8")
        ]

    def way(self, layer: Layer, format_key: str, size_bytes: int, execution: str) -> TimedExecution:
        """The one of this execution; the first where there is no such."""
        ways = self.ways(layer, format_key, size_bytes)
        return next((way for way in ways if way.execution == execution), ways[0])

    def facts(self, ways: Iterable[TimedExecution]) -> dict[str, object]:
        """What a plan of these ways takes, as its file says it."""
        ways = tuple(ways)
        asked = self.conditions
        facts: dict[str, object] = {"views": asked.views}
        if asked.max_memory is not None:
            facts |= {
                "max_memory": asked.max_memory.text,
                "memory_bytes": self.held_bytes + sum(way.memory_bytes for way in ways),
                "activation_bytes": asked.activation_bytes,
            }
        if self.table is not None:
            facts |= {
                "seconds": self.rest_seconds + sum(way.nanoseconds for way in ways) / NANOSECONDS,
                "fp32_seconds": self.fp32_seconds,
                "machine": dict(self.table.machine),
            }
        if asked.max_time is not None:
            facts["max_time"] = asked.max_time.text
        return facts

    def said(self, name: str, smallest: int) -> str:
        """What a limit is, ``"nanoseconds"`` or ``"memory_bytes"``, and the smallest that it could be."""
        asked = self.conditions
        if name == "nanoseconds":
            assert asked.max_time is not None
            seconds = smallest / NANOSECONDS + self.rest_seconds
            share = f" ({seconds / self.fp32_seconds:.3f}x)" if self.fp32_seconds else ""
            return f"{setting('max_time', asked.max_time.text)}: the least possible is {_ceiled(seconds)}s{share}"
        assert asked.max_memory is not None
        needed = smallest + self.held_bytes
        return (
            f"{setting('max_memory', asked.max_memory.text)}: the least possible is {needed}B "
            f"({format_bytes(needed)}), of which {format_bytes(asked.activation_bytes)} are activations of "
            f"{asked.views} pictures"
        )


def executions_by_count(executions: Mapping[str, str]) -> dict[str, int]:
    """How many layers run in each way, the most frequent first.

    >>> executions_by_count({"a": "int8", "b": "fp32", "c": "int8"})
    {'int8': 2, 'fp32': 1}
    """
    counts = {how: list(executions.values()).count(how) for how in dict.fromkeys(executions.values())}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _ceiled(seconds: float) -> str:
    """To a ten-thousandth, never less."""
    return f"{-(-int(seconds * NANOSECONDS) // 10**5) / 10**4 + 1e-4:.4f}"
