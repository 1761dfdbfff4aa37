"""The same among workers: each takes some layers, measures their moments itself, and gives back their codes.

Moments are larger than the weights and never travel: a worker has the model and the scenes, and a pass over these gives
the moments of its layers. What is sent is names of layers there and codes back. A layer's codes depend neither on the
layers that it shares a pass with nor on who rounds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mixedprec.rounding import Rounded
from mixedprec.rounding_in_passes import Measure, RoundedLayer, begun
from sensitivity.moments import groups_of
from vggtkit.core.arrays import Arrays
from vggtkit.core.executors import Done, Executor, in_order
from vggtkit.core.journal import Parts
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant.rounding import ROUNDINGS, Rounding
from vggtkit.subject import Subject


@dataclass(frozen=True)
class RoundingWork:
    """Layers of a model, rounded.

    Attributes:
        subject: not packed.
        assignment: format key for every layer.
        rounding: key of `vggtkit.quant.rounding.ROUNDINGS`.
        measure: gives the second moments of some layers.
    """

    subject: Subject
    assignment: Mapping[str, str]
    rounding: str
    measure: Measure

    @contextmanager
    def opened(self) -> Iterator[Callable[[Sequence[str]], list[Arrays]]]:
        """As `vggtkit.core.executors.Work.opened`; a piece is names of layers whose moments fit into memory."""
        layers = {layer.name: layer for layer in self.subject.layers}
        rounding = ROUNDINGS.pick(self.rounding)

        def rounded(names: Sequence[str]) -> list[Arrays]:
            moments = self.measure([layers[name] for name in names])
            return [
                RoundedLayer.of(self.subject, layers[name], self.assignment[name], rounding, moments).arrays()
                for name in names
            ]

        yield rounded


def rounded_by_workers(
    subject: Subject,
    assignment: Mapping[str, str],
    rounding: Rounding,
    measure: Measure,
    executor: Executor,
    *,
    keep: str = "fp16",
    room: int | None = None,
    parts: Parts | None = None,
    progress: Progress = silent,
) -> Rounded:
    """Round every weight of a model; the model stays as it is.

    Args:
        subject: not packed.
        assignment: format key for every layer.
        rounding: one that needs inputs or gradients.
        measure: gives the second moments of some layers; is sent to the workers.
        executor: who rounds.
        keep: precision of everything else.
        room: bytes of second moments that a piece may take.
        parts: where layers that are done are kept, and taken from.
        progress: told about every layer.

    Raises:
        InputError: as `mixedprec.rounding_in_passes.rounded_in_passes`, or workers that are lost again and again.
    """
    stage = f"rounding by {rounding.key}" + (f", {executor.title}" if executor.workers > 1 else "")
    kept, sizes = begun(subject, assignment, rounding, keep, parts, progress, stage)
    pieces = groups_of({name: size for name, size in sizes.items() if name not in kept.done}, room)

    def keep_piece(done: Done[list[Arrays]]) -> None:
        for name, arrays in zip(pieces[done.number], done.value, strict=True):
            kept.add(name, RoundedLayer.from_arrays(arrays, subject, kept.layers[name], assignment[name]))
            progress(stage, len(kept.done), len(kept.layers))

    in_order(executor, RoundingWork(subject, dict(assignment), rounding.key, measure), pieces, keep_piece)
    return kept.rounded()
