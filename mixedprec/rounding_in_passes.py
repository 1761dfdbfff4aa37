"""The weights of an assignment, rounded for some layers at a time, each kept on disk as soon as it is done.

Second moments of all layers together may be larger than the model: those of VGGT-1B take 10 GB. So layers are taken in
their order in groups whose moments fit into memory; every group takes one pass over the scenes, then its layers are
rounded one by one and their codes are kept. Another pass over two pictures costs what writing and reading the
moments would, so they are never on disk. A layer's moments do not depend on the group that it is in, hence a job that
was stopped, or had more memory, comes to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mixedprec.apply import check_assignment
from mixedprec.rounding import Rounded, rounded_layer
from sensitivity.moments import Moments, moment_bytes
from vggtkit.core.journal import Arrays, Parts
from vggtkit.core.memory import free_bytes
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant import Layer, QuantizedTensor
from vggtkit.quant.rounding import Rounding
from vggtkit.subject import Subject

SHARE = 0.5
"""Of the free memory that second moments may take: the rest is for the pass and for factoring one of them."""
_REASON, _BIAS = "reason", "bias"

Measure = Callable[[Sequence[Layer]], Moments]


def room_for_moments(subject: Subject, copies: int = 1) -> int | None:
    """Bytes that second moments may take at a time; None where the device does not tell.

    Args:
        subject: the model.
        copies: of the moments that measuring them holds.
    """
    free = free_bytes(subject.device)
    return None if free is None else int(SHARE * free / copies)


def groups_of(sizes: Mapping[str, int], room: int | None) -> list[list[str]]:
    """Names in their order, cut where the sizes of a group would exceed the room; one that does by itself is alone.

    >>> groups_of({"a": 2, "b": 2, "c": 5, "d": 1}, room=4)
    [['a', 'b'], ['c'], ['d']]
    >>> groups_of({"a": 2, "b": 2}, room=None)
    [['a', 'b']]
    """
    groups: list[list[str]] = []
    left = 0
    for name, size in sizes.items():
        if not groups or (room is not None and size > left):
            groups.append([])
            left = room or 0
        groups[-1].append(name)
        left -= size
    return groups


def rounded_in_passes(
    subject: Subject,
    assignment: Mapping[str, str],
    rounding: Rounding,
    measure: Measure,
    *,
    keep: str = "fp16",
    room: Callable[[], int | None] = lambda: None,
    parts: Parts | None = None,
    progress: Progress = silent,
) -> Rounded:
    """Round every weight of a model; the model stays as it is.

    Args:
        subject: not packed.
        assignment: format key for every layer.
        rounding: one that needs inputs or gradients.
        measure: gives the second moments of some layers.
        keep: precision of everything else.
        room: bytes of second moments at a time, asked before every pass.
        parts: where layers that are done are kept, and taken from.
        progress: told about every layer.

    Raises:
        InputError: as `mixedprec.rounding.rounded_weights`, or the moments of one layer do not fit.
    """
    layers = check_assignment(subject, assignment, keep)
    kept = _Kept(subject, {layer.name: layer for layer in layers}, assignment, parts)
    sizes = moment_bytes(subject, layers)

    def finish(layer: Layer, moments: Moments | None) -> None:
        kept.add(layer.name, *rounded_layer(subject.model, layer, assignment[layer.name], rounding, moments))
        progress(f"rounding by {rounding.key}", len(kept.done), len(layers))

    for layer in layers:
        if layer.name not in sizes and layer.name not in kept.done:
            finish(layer, None)
    while left := {name: size for name, size in sizes.items() if name not in kept.done}:
        group = groups_of(left, room())[0]
        moments = measure([kept.layers[name] for name in group])
        for name in group:
            finish(kept.layers[name], moments)
        del moments
    return kept.rounded()


class _Kept:
    """Layers that are done, here and on disk.

    Args:
        subject: the model.
        layers: of it, by name.
        assignment: their formats.
        parts: where they are kept; None for here alone.
    """

    def __init__(
        self, subject: Subject, layers: Mapping[str, Layer], assignment: Mapping[str, str], parts: Parts | None
    ) -> None:
        self.layers, self.parts = layers, parts
        self.steps = {name: f"layer-{number}" for number, name in enumerate(layers)}
        self.done: dict[str, tuple[QuantizedTensor, str]] = {}
        there = set() if parts is None else set(parts.done())
        for name, step in self.steps.items():
            if parts is not None and step in there:
                bias = getattr(subject.model.get_submodule(name), "bias", None)
                self.done[name] = _from(parts.load(step), layers[name], assignment[name], bias)

    def add(self, name: str, q: QuantizedTensor, reason: str) -> None:
        """A layer, and why it was rounded without calibration."""
        self.done[name] = q, reason
        if self.parts is not None:
            self.parts.save(self.steps[name], _arrays(q, reason))

    def rounded(self) -> Rounded:
        """All layers, in their order."""
        reasons = {name: self.done[name][1] for name in self.layers if self.done[name][1]}
        return Rounded({name: self.done[name][0] for name in self.layers}, reasons)


def _arrays(q: QuantizedTensor, reason: str) -> Arrays:
    """A weight as a step of a journal."""
    arrays: Arrays = {part: tensor.numpy(force=True) for part, tensor in q.tensors().items()}
    bias: Arrays = {} if q.bias is None else {_BIAS: q.bias.float().numpy(force=True)}  # NumPy has no bfloat16
    return arrays | bias | {_REASON: np.array(reason)}


def _from(arrays: Arrays, layer: Layer, key: str, own_bias: Tensor | None) -> tuple[QuantizedTensor, str]:
    """Undo `_arrays`."""
    tensors = {part: torch.from_numpy(values) for part, values in arrays.items() if part != _REASON}
    bias = tensors.pop(_BIAS, None)
    q = QuantizedTensor.from_tensors(key, layer.shape, tensors)
    if bias is not None and own_bias is not None:
        q = replace(q, bias=bias.to(own_bias))
    return q, str(arrays[_REASON])
