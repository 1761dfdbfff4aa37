"""True damage: what each output changes by when one layer alone is quantised, measured pair by pair.

Nothing that precedes a layer is computed again (`sensitivity.replay`), several formats run side by side as a batch,
with fewer operations than the model's own (`vggtkit.runtime.fewer_operations`), and an output that does not see the
layer costs nothing. On the bundled network this measures all pairs of layer and format in a fourth of the time that
whole passes take, and `vggtkit.core.executors` share the layers out (`benchmarks/score_audit.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sensitivity.replay import Passes, passes_over, recorded_parts
from sensitivity.survey import run_for_shapes
from vggtkit.core.allocator import retain_memory
from vggtkit.core.memory import bytes_of
from vggtkit.quant import Layer, simulate_layer
from vggtkit.runtime.fewer_operations import fewer_operations
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

ROWS_AT_A_TIME = 8
"""Formats side by side; more gained nothing on a CPU."""


HELD_AND_AT_WORK = 2
"""Bytes of memory for every byte that a part puts out."""


class Changed(NamedTuple):
    """What one layer in one format does to a scene.

    Attributes:
        layer: its place in the list of layers.
        scheme: its place in the list of formats.
        outputs: of the model, each with a leading batch axis of 1.
    """

    layer: int
    scheme: int
    outputs: Mapping[str, Tensor]


class Watcher(Protocol):
    """Is shown what is measured."""

    def start(self, outputs: Mapping[str, Tensor]) -> None:
        """The outputs of FP32."""

    def see(self, changed: Changed) -> None:
        """The outputs of a pair."""


def true_damage(
    subject: Subject,
    layers: Sequence[Layer],
    schemes: Sequence[str],
    scene: Scene,
    *,
    rows: int = ROWS_AT_A_TIME,
    exact: bool = False,
    watcher: Watcher | None = None,
    step: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """NMSE of each output on one scene with only one layer quantised.

    Args:
        subject: unchanged afterwards.
        layers: which to measure.
        schemes: keys of the formats to measure.
        scene: what the model is run on.
        rows: formats side by side, at most; 1 gives the bits of whole passes. All that blocks put out is kept for
            each of them (`memory_of_damage`): 93 MB for the bundled network and 4 pictures, gigabytes for VGGT-1B.
        exact: torch's own matrix products and the published order of operations, not faster ones that differ in the
            last bits.
        watcher: is shown the outputs of FP32 and of every pair, say for geometry metrics.
        step: called after every layer.

    Returns:
        Per output, float64 ``[layers, schemes]``; exactly 0 where the output does not see the layer.

    Raises:
        InputError: the FP32 model gives NaN or Inf.
    """
    with damage_on(subject, schemes, scene, rows=rows, exact=exact) as measured:
        if watcher is not None:
            watcher.start(measured.outputs)
        return measured.of(layers, watcher=watcher, step=step)


@contextmanager
def damage_on(
    subject: Subject, schemes: Sequence[str], scene: Scene, *, rows: int = ROWS_AT_A_TIME, exact: bool = False
) -> Iterator[DamageOnScene]:
    """A scene on which layers can be measured in turn, as `true_damage` does; its recorded pass is kept meanwhile."""
    size = len(schemes)
    with ExitStack() as contexts:
        contexts.enter_context(retain_memory())
        if not exact and subject.recorded_whole is not None:
            contexts.enter_context(fewer_operations(subject.model))
        passes = passes_over(subject, scene, -(-size // -(-size // rows)))  # as many rows in every batch
        yield DamageOnScene(subject, schemes, passes)


class DamageOnScene:
    """Measures layers on one scene; what comes out for a layer does not depend on what was measured before.

    Args:
        subject: as `true_damage` takes it.
        schemes: likewise.
        passes: over the scene.

    Attributes:
        outputs: of FP32, each with a leading batch axis of 1.
    """

    def __init__(self, subject: Subject, schemes: Sequence[str], passes: Passes) -> None:
        self.subject, self.schemes, self.passes = subject, schemes, passes
        self.outputs = {name: value[:1] for name, value in passes.outputs.items()}
        self.references = {name: _Reference(value) for name, value in passes.outputs.items()}

    def of(
        self, layers: Sequence[Layer], *, watcher: Watcher | None = None, step: Callable[[], None] = lambda: None
    ) -> dict[str, Tensor]:
        """As `true_damage`, of some layers."""
        damage = {name: torch.zeros(len(layers), len(self.schemes), dtype=torch.float64) for name in self.references}
        for number, layer in enumerate(layers):
            for columns, outputs in _changed(self.subject.model, self.passes, layer, self.schemes):
                for name, value in outputs.items():
                    damage[name][number, columns] = self.references[name].nmse(value)[: len(columns)]
                if watcher is not None:
                    for row, column in enumerate(columns):
                        watcher.see(
                            Changed(number, column, {name: value[row, None] for name, value in outputs.items()})
                        )
            step()
        return damage


@torch.no_grad()
def memory_of_damage(subject: Subject, scene: Scene, rows: int = ROWS_AT_A_TIME) -> int:
    """Bytes that `true_damage` takes beside the weights, about, from a pass over a scene.

    A recording holds what parts put out and what goes into them where that is something else, and about as much again
    is at work: 1.1 GB for the bundled network, four pictures and 7 rows, of which 0.6 to 0.9 GB were seen.
    """
    held = [0]

    def count(_module: nn.Module, _arguments: object, output: object) -> None:
        held[0] += bytes_of(output)

    parts = recorded_parts(subject.model, subject.recorded_whole or ())
    handles = [module.register_forward_hook(count) for _, module in parts]
    try:
        run_for_shapes(subject, scene)
    finally:
        for handle in handles:
            handle.remove()
    return HELD_AND_AT_WORK * rows * held[0]


def pair_damage(subject: Subject, pairs: Sequence[tuple[Layer, str]], scene: Scene) -> dict[str, NDArray[np.float64]]:
    """NMSE of each output for some pairs of layer and format, one layer alone at a time.

    Args:
        subject: unchanged afterwards.
        pairs: layers and keys of formats.
        scene: what the model is run on.

    Returns:
        Per output ``[pairs]``.

    Raises:
        InputError: the FP32 model gives NaN or Inf.
    """
    with ExitStack() as contexts:
        contexts.enter_context(retain_memory())
        if subject.recorded_whole is not None:
            contexts.enter_context(fewer_operations(subject.model))
        passes = passes_over(subject, scene)
        references = {name: _Reference(value) for name, value in passes.outputs.items()}
        damage = {name: np.zeros(len(pairs)) for name in references}
        for number, (layer, scheme) in enumerate(pairs):
            for _, outputs in _changed(subject.model, passes, layer, [scheme]):
                for name, value in outputs.items():
                    damage[name][number] = references[name].nmse(value).item()
    return damage


def _changed(
    model: nn.Module, passes: Passes, layer: Layer, schemes: Sequence[str]
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """The outputs under every format of a layer, a batch of them at a time; the last is filled up."""
    module = model.get_submodule(layer.name)
    weights = [simulate_layer(module, key, layer.name) for key in schemes]
    for start in range(0, len(weights), passes.rows):
        some = weights[start : start + passes.rows]
        columns = list(range(start, start + len(some)))
        yield columns, passes.changed(layer, some + some[:1] * (passes.rows - len(some)))


class _Reference:
    """What outputs are compared with: a row with the same row, as both were computed alike."""

    def __init__(self, output: Tensor) -> None:
        self.output, self.exact = output, output.flatten(1).double()
        self.energy = self.exact.square().sum(1)

    def nmse(self, changed: Tensor) -> Tensor:
        """Row by row, ``[rows]``."""
        if changed.equal(self.output):
            return torch.zeros(len(changed), dtype=torch.float64)
        error = (changed.flatten(1) - self.exact).square_().sum(1)
        # An error on an output of zeros is infinite, as in `vggtkit.metrics.tensors`; what is not finite stays NaN.
        return (error / self.energy).masked_fill(error == 0, 0.0).cpu()
