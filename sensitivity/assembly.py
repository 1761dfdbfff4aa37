"""The parts of a profile that its steps left on disk, brought together in its file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from sensitivity.profile_steps import DAMAGE, INPUTS, NOISE, ROUNDINGS, WEIGHTS
from sensitivity.recorder import Errors
from sensitivity.store import FP32
from sensitivity.writer import ProfileWriter
from vggtkit.core.arrays import Array, Arrays
from vggtkit.core.journal import Parts
from vggtkit.quant import Layer


def arrays_under(prefix: str, arrays: Arrays) -> Arrays:
    """Those whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def assemble(writer: ProfileWriter, parts: Parts, layers: Sequence[Layer], schemes: Sequence[str], scenes: int) -> None:
    """Everything but the table of layers, from the steps on disk."""
    alone = [Errors.none(len(layers)) for _ in schemes]
    inherited = [Errors.none(len(layers)) for _ in schemes]
    uniform: dict[str, Array] = {}
    changes: dict[str, dict[str, list[Any]]] = {WEIGHTS: {}, INPUTS: {}}
    noise: dict[str, Array] = {}
    for number in range(scenes):
        first = parts.load(f"{number}-{FP32}")
        _write_tokens(writer, FP32, layers, number, scenes, first)
        for column, errors in enumerate(alone):
            errors.add(Errors(*(torch.from_numpy(first[name][column]) for name in ("sums", "similarity", "maps"))))
        for column, (key, errors) in enumerate(zip(schemes, inherited, strict=True)):
            arrays = parts.load(f"{number}-{key}")
            _write_tokens(writer, key, layers, number, scenes, arrays)
            errors.add(Errors(*(torch.from_numpy(arrays[name]) for name in ("sums", "similarity", "maps"))))
            for name, value in arrays_under("nmse-", arrays).items():
                uniform.setdefault(name, np.zeros(len(schemes)))[column] += float(value) / scenes
        sketched = parts.load(f"{number}-{DAMAGE}")
        for prefix, by_output in changes.items():
            for name, value in arrays_under(prefix, sketched).items():
                by_output.setdefault(name, []).append(value)
        for name, value in arrays_under(NOISE, sketched).items():
            noise[name] = noise.get(name, 0.0) + value.astype(np.float64) / scenes
    for kind, by_scheme in (("isolated", alone), ("accumulated", inherited)):
        columns = [errors.scores() for errors in by_scheme]
        writer.scores(kind, {metric: np.stack([c[metric] for c in columns], axis=1) for metric in columns[0]})
    stacked, of_inputs = ({name: np.stack(v, axis=2) for name, v in each.items()} for each in changes.values())
    writer.changes(stacked)
    writer.input_changes(of_inputs)
    writer.scores("output", {name: np.square(v, dtype=np.float64).mean((2, 3)) for name, v in stacked.items()})
    if ROUNDINGS in parts.done():
        writer.roundings({key: left.astype(np.float64) for key, left in parts.load(ROUNDINGS).items()})
    writer.scores("noise", noise)
    writer.scores("uniform", uniform)


def _write_tokens(
    writer: ProfileWriter, scheme: str, layers: Sequence[Layer], scene: int, scenes: int, arrays: Arrays
) -> None:
    for index, tokens in _indexed(arrays):
        writer.activations(scheme, layers[index].name, scene, scenes, tokens)


def _indexed(arrays: Arrays) -> Iterator[tuple[int, Any]]:
    for name, values in arrays.items():
        if name.startswith("tokens-"):
            yield int(name.removeprefix("tokens-")), values
