"""Assignments to be measured, as work for any executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from analysis.evaluation.evaluator import Evaluator, MeasuredDamage
from vggtkit.core.executors import Workers, demand_of, in_order
from vggtkit.core.memory import bytes_of
from vggtkit.core.provenance import Progress, silent

Formats = Mapping[str, str]


@dataclass(frozen=True)
class Measuring:
    """What assignments do on the scenes of an evaluator, whose outputs of FP32 go with it."""

    evaluator: Evaluator

    @contextmanager
    def opened(self) -> Iterator[Callable[[Formats], MeasuredDamage]]:
        """As `vggtkit.core.executors.Work.opened`; a piece is an assignment."""
        yield self.evaluator.measure


def measured_all(
    evaluator: Evaluator, assignments: Sequence[Formats], workers: Workers | None = None, progress: Progress = silent
) -> list[MeasuredDamage]:
    """Every assignment, in turn.

    Args:
        evaluator: model and scenes.
        assignments: formats by layer.
        workers: who measures; this process by default.
        progress: called after each.

    Raises:
        InputError: there is no room for the workers, or they are lost again and again.
    """
    model = evaluator.subject.model
    # A quantised copy stands beside the weights, and what is at work on a scene about as large as its outputs.
    needed = bytes_of(list(model.parameters())) + 2 * bytes_of(evaluator.references[:1])
    executor = (workers or Workers()).executor(demand_of(model, needed))
    stage = "measuring on held-out scenes" + (f", {executor.title}" if executor.workers > 1 else "")
    progress(stage, 0, len(assignments))
    done = iter(range(1, len(assignments) + 1))
    return in_order(
        executor, Measuring(evaluator), list(assignments), lambda _: progress(stage, next(done), len(assignments))
    )
