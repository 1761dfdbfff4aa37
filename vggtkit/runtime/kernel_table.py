"""What every layer of a model takes on this machine, in each execution, and what is no layer; and its file.

A table holds one or more passes, each of some number of pictures. Layers that repeat (the blocks of a large VGGT) are
measured once. Between and beyond the numbers that were measured, layers grow in proportion to the pictures but for what
starting them takes, and the rest, of which attention over all pictures is a part, with their square.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch

from vggtkit.core.atomic import replacing
from vggtkit.core.errors import InputError
from vggtkit.core.escaping import first_line
from vggtkit.core.program import command
from vggtkit.core.seal import SEAL, is_sealed, sealed
from vggtkit.quant import Layer
from vggtkit.runtime import processor
from vggtkit.runtime.stages import REST

SCHEMA_VERSION = 1
PLAIN, BACKEND = "plain", "backend"
"""The FP32 model as it is; the packed one as ``int8`` executes it."""
FIXED = "fixed"
"""The execution of a layer that has no choice."""
RESIDENT_AS = "int8_per_channel_sym"
"""Format of the weights that passes are measured with; what others take more to unpack is measured by itself."""


@dataclass(frozen=True)
class LayerRow:
    """A layer of the table.

    Attributes:
        kind: as `Layer.kind`.
        shape: of its weight, output channels first.
        stage: of the model that it belongs to.
    """

    kind: str
    shape: tuple[int, ...]
    stage: str


@dataclass(frozen=True)
class PassTimes:
    """One pass over some pictures.

    Attributes:
        views: pictures.
        seconds: of each layer in all its calls, by execution (`PLAIN` in the FP32 model), by layer.
        calls: of each layer.
        rest: seconds of what is no layer, by stage, of the model as it is and of the executed one.
    """

    views: int
    seconds: Mapping[str, Mapping[str, float]]
    calls: Mapping[str, float]
    rest: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class KernelTable:
    """Seconds of the layers of a model on a machine.

    Attributes:
        model: as the user named it.
        views: pictures that it was asked for.
        size: height and width of them.
        heads: that the measured model has.
        machine: as `this_machine` says.
        kernels: what computes whole numbers here, in words.
        rows: the layers, by name.
        depths: how many modules of a list the first one stands for, by the name of the list.
        repeats: how often a stage stands in the whole model, by stage.
        unpacking: seconds a weight by format, to INT8 and to floating point.
        passes: by number of pictures.
        provenance: as every file's.
    """

    model: str
    views: int
    size: tuple[int, int]
    heads: tuple[str, ...]
    machine: Mapping[str, Any]
    kernels: str
    rows: Mapping[str, LayerRow]
    depths: Mapping[str, int]
    repeats: Mapping[str, int]
    unpacking: Mapping[str, Mapping[str, float]]
    passes: tuple[PassTimes, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def measured_as(self, name: str) -> str:
        """The layer of the table that a layer of the whole model is alike."""
        if name in self.rows:
            return name
        for listed in self.depths:
            if (match := re.fullmatch(rf"{re.escape(listed)}\.\d+\.(.+)", name)) is not None:
                return f"{listed}.0.{match[1]}"
        return name

    def check(self, layers: Iterable[Layer], heads: Sequence[str], path: str) -> None:
        """Refuse a table of another machine or model.

        Raises:
            InputError: with what differs and the command that makes a new one.
        """
        again = f"measure it anew with `{command('kernels', '--model', self.model)}`"
        for what, here in this_machine().items():
            if self.machine.get(what) != here:
                raise InputError(
                    f"{path}: measured with {what} {self.machine.get(what)!r}, here it is {here!r}; {again}"
                )
        if absent := [head for head in heads if head not in self.heads]:
            raise InputError(f"{path}: measured without the {absent[0]} head; {again}")
        for layer in layers:
            row = self.rows.get(self.measured_as(layer.name))
            if row is None or row.shape != layer.shape:
                raise InputError(f"{path}: is of {self.model}, which has no layer like {layer.name}; {again}")

    def at(self, views: int) -> PassTimes:
        """A pass over so many pictures: the measured one, or what the measured ones lead to."""
        for one in self.passes:
            if one.views == views:
                return one
        counts = [one.views for one in self.passes]

        def through(values: Sequence[float], powers: Sequence[int]) -> float:
            return _through(counts, values, powers, views)

        first = self.passes[0]
        seconds = {
            name: {how: through([one.seconds[name][how] for one in self.passes], (1, 0)) for how in ways}
            for name, ways in first.seconds.items()
        }
        calls = {name: through([one.calls[name] for one in self.passes], (1, 0)) for name in first.calls}
        rest = {
            mode: {stage: through([one.rest[mode][stage] for one in self.passes], (1, 2, 0)) for stage in stages}
            for mode, stages in first.rest.items()
        }
        for mode, stages in rest.items():
            if REST in stages:  # less than nothing where clocks took time, so it follows from the sum
                whole = through([sum(one.rest[mode].values()) for one in self.passes], (1, 2, 0))
                stages[REST] = whole - sum(taken for stage, taken in stages.items() if stage != REST)
        return PassTimes(views, seconds, calls, rest)

    def layer_seconds(self, times: PassTimes, layer: Layer, format_key: str, *, stays: bool) -> dict[str, float]:
        """Seconds of a layer in a format by execution.

        Args:
            times: of `at`.
            layer: of the whole model.
            format_key: of its weight.
            stays: whether its floating-point weight is dequantised once.
        """
        name = self.measured_as(layer.name)
        work = times.calls[name] * layer.weights
        own, known = self.unpacking.get(format_key), self.unpacking.get(RESIDENT_AS)
        more = {kind: own[kind] - known[kind] for kind in own} if own and known else {}
        seconds = {}
        for how, taken in times.seconds[name].items():
            kind = {"int8": "int8", "int8_resident": ""}.get(how, "" if stays else "float")
            seconds[how] = max(0.0, taken + work * more.get(kind, 0.0))
        seconds.pop(PLAIN, None)
        return seconds

    def plain_seconds(self, times: PassTimes, layers: Iterable[Layer], heads: Sequence[str]) -> float:
        """Of the FP32 model."""
        return self.rest(times, PLAIN, heads) + sum(
            times.seconds[self.measured_as(layer.name)][PLAIN] for layer in layers
        )

    def rest(self, times: PassTimes, mode: str, heads: Sequence[str]) -> float:
        """Seconds of what is no layer, in a model that keeps these heads."""
        gone = {f"{head} head" for head in self.heads if head not in heads}
        return sum(
            seconds * self.repeats.get(stage, 1) for stage, seconds in times.rest[mode].items() if stage not in gone
        )


def this_machine() -> dict[str, Any]:
    """What times depend on.

    >>> sorted(this_machine())
    ['instructions', 'processor', 'threads', 'torch']
    """
    return {
        "processor": processor.name(),
        "instructions": processor.instructions(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def save_table(table: KernelTable, path: Path) -> None:
    """Write a table as JSON with its digest."""
    text = json.dumps(sealed({"schema_version": SCHEMA_VERSION, **asdict(table)}), indent=1, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_table(path: Path) -> KernelTable:
    """Read a table.

    Raises:
        InputError: there is none, it is of another version, or has changed since it was written.
    """
    again = f"make it with `{command('kernels', '--run', path.parent)}`"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {again}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable ({error}); {again}") from error
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path}: is no kernel table of version {SCHEMA_VERSION}; {again}")
    if not is_sealed(values):
        raise InputError(f"{path}: was changed by hand or is damaged; {again}")
    try:
        return _table_of(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: is no kernel table ({first_line(error)}); {again}") from error


def _table_of(read: Mapping[str, Any]) -> KernelTable:
    values = {name: value for name, value in read.items() if name not in ("schema_version", SEAL)}
    rows = {name: LayerRow(row["kind"], tuple(row["shape"]), row["stage"]) for name, row in values["rows"].items()}
    table = KernelTable(**values)
    passes = tuple(PassTimes(**one) for one in values["passes"])
    height, width = table.size
    return replace(table, size=(height, width), heads=tuple(table.heads), rows=rows, passes=passes)


def _through(counts: Sequence[int], values: Sequence[float], powers: Sequence[int], views: int) -> float:
    """The value at ``views`` of the sum of powers, none negative, that comes nearest to what was measured.

    Only as many powers as there are measurements, the first ones; each measurement counts by its relative error.

    >>> round(_through([1, 2, 4], [3.0, 5.0, 9.0], (1, 0), 8), 6)
    17.0
    """
    used = list(powers[: len(counts)])
    scale = np.array([1 / max(abs(value), 1e-12) for value in values])
    basis = np.array([[float(count) ** power for power in used] for count in counts]) * scale[:, None]
    shares, _ = scipy.optimize.nnls(basis, np.array(values) * scale)
    return float(sum(share * float(views) ** power for share, power in zip(shares, used, strict=True)))
