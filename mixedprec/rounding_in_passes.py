"""The weights of an assignment, rounded for some layers at a time, each kept on disk as soon as it is done.

Second moments of all layers together may be larger than the model: those of VGGT-1B take 12 GB. So layers are taken in
their order in groups whose moments fit into memory; every group takes one pass over the scenes, then its layers are
rounded one by one and their codes are kept. Another pass over two pictures costs what writing and reading the
moments would, so they are never on disk. A layer's moments do not depend on the group that it is in, hence a job that
was stopped, or had more memory, comes to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from mixedprec.apply import check_assignment
from mixedprec.rounding import Rounded, rounded_layer
from sensitivity.moments import Moments, groups_of, moment_bytes
from vggtkit.core.arrays import Arrays
from vggtkit.core.journal import Parts
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant import Layer, QuantizedTensor, own_weight
from vggtkit.quant.rounding import Rounding
from vggtkit.subject import Subject

_REASON, _ROWS, _BIAS = "reason", "rows", "bias"

Measure = Callable[[Sequence[Layer]], Moments]


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
    stage = f"rounding by {rounding.key}"
    kept, sizes = begun(subject, assignment, rounding, keep, parts, progress, stage)
    while left := {name: size for name, size in sizes.items() if name not in kept.done}:
        group = groups_of(left, room())[0]
        moments = measure([kept.layers[name] for name in group])
        for name in group:
            kept.add(name, RoundedLayer.of(subject, kept.layers[name], assignment[name], rounding, moments))
            progress(stage, len(kept.done), len(kept.layers))
        del moments
    return kept.rounded()


def begun(
    subject: Subject, assignment: Mapping[str, str], rounding: Rounding, keep: str, parts: Parts | None,
    progress: Progress, stage: str,
) -> tuple[KeptLayers, dict[str, int]]:  # fmt: skip
    """Layers that are done, from an earlier run or as they have no moments; bytes of moments of those that have.

    ``stage`` is told with progress about every layer.

    Raises:
        InputError: as `mixedprec.apply.check_assignment`.
    """
    layers = check_assignment(subject, assignment, keep)
    kept = KeptLayers(subject, {layer.name: layer for layer in layers}, assignment, parts)
    sizes = moment_bytes(subject, layers)
    for layer in layers:
        if layer.name not in sizes and layer.name not in kept.done:
            kept.add(layer.name, RoundedLayer.of(subject, layer, assignment[layer.name], rounding, None))
            progress(stage, len(kept.done), len(layers))
    return kept, sizes


class RoundedLayer(NamedTuple):
    """A weight, why it was rounded without calibration, and on how many rows of how many inputs it was calibrated."""

    q: QuantizedTensor
    reason: str
    rows: tuple[int, int]

    @classmethod
    def of(cls, subject: Subject, layer: Layer, key: str, rounding: Rounding, moments: Moments | None) -> RoundedLayer:
        """Rounded now, with the moments of its inputs; None where they are not known."""
        q, reason = rounded_layer(subject.model, layer, key, rounding, moments)
        known = (0, 0) if moments is None or q.format.is_float else moments.rows_and_inputs(layer.name)
        return cls(q, reason, known)

    def arrays(self) -> Arrays:
        """As a step of a journal, or as a worker gives it."""
        arrays: Arrays = {part: tensor.numpy(force=True) for part, tensor in self.q.tensors().items()}
        # NumPy has no bfloat16.
        bias: Arrays = {} if self.q.bias is None else {_BIAS: self.q.bias.float().numpy(force=True)}
        return arrays | bias | {_REASON: np.array(self.reason), _ROWS: np.array(self.rows)}

    @classmethod
    def from_arrays(cls, arrays: Arrays, subject: Subject, layer: Layer, key: str) -> RoundedLayer:
        """Undo `arrays`; a bias is in the precision of the layer's own, or of its weight."""
        tensors = {part: torch.from_numpy(values) for part, values in arrays.items() if part not in (_REASON, _ROWS)}
        bias = tensors.pop(_BIAS, None)
        q = QuantizedTensor.from_tensors(key, layer.shape, tensors)
        if bias is not None:
            module = subject.model.get_submodule(layer.name)
            own = getattr(module, "bias", None)
            q = replace(q, bias=bias.to(own_weight(module) if own is None else own))
        rows, inputs = map(int, arrays[_ROWS])
        return cls(q, str(arrays[_REASON]), (rows, inputs))


class KeptLayers:
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
        self.done: dict[str, RoundedLayer] = {}
        there = set() if parts is None else set(parts.done())
        for name, step in self.steps.items():
            if parts is not None and step in there:
                self.done[name] = RoundedLayer.from_arrays(parts.load(step), subject, layers[name], assignment[name])

    def add(self, name: str, done: RoundedLayer) -> None:
        """One more layer."""
        self.done[name] = done
        if self.parts is not None:
            self.parts.save(self.steps[name], done.arrays())

    def rounded(self) -> Rounded:
        """All layers, in their order."""
        done = {name: self.done[name] for name in self.layers}
        return Rounded(
            {name: own.q for name, own in done.items()},
            {name: own.reason for name, own in done.items() if own.reason},
            {name: own.rows for name, own in done.items() if own.rows[0] < own.rows[1]},
        )
