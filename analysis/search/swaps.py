"""Swaps of equal bytes, measured on top of a plan: predicted damage is of first order, the real one is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from analysis.evaluation.evaluator import Evaluator
from mixedprec.planner import Planned, with_formats
from mixedprec.policies import Assignment, Problem
from mixedprec.solver import Choice, undominated
from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, silent


@dataclass(frozen=True)
class Swap:
    """One layer gets more bytes, another fewer."""

    up: str
    up_key: str
    down: str
    down_key: str
    predicted_change: float


@dataclass(frozen=True)
class Refined:
    """A plan with swaps.

    Attributes:
        planned: the plan with the swaps that were accepted.
        accepted: those swaps.
        tried: how many were measured.
        before: measured damage on the scenes that swaps are proposed by, and on those that they are checked on.
        after: the same with the accepted swaps; neither is ever larger.
    """

    planned: Planned
    accepted: tuple[Swap, ...]
    tried: int
    before: tuple[float, float]
    after: tuple[float, float]


def refine(start: Planned, evaluator: Evaluator, count: int, progress: Progress = silent) -> Refined:
    """Measure the ``count`` most promising swaps one after the other, each on top of those accepted before.

    A swap is accepted when it lowers the measured damage on one half of the scenes and on the other half too. So the
    result is never worse than the start on either half.

    Args:
        start: a plan.
        evaluator: model and calibration scenes, two or more.
        count: swaps to measure.
        progress: called at every swap.

    Raises:
        InputError: fewer than two scenes.
    """
    if len(evaluator.scenes) < 2:
        raise InputError(
            f"{setting('refine')}: one calibration scene cannot check what another proposes; profile two or more"
        )
    halves = range(0, len(evaluator.scenes), 2), range(1, len(evaluator.scenes), 2)
    space, problem = start.search_space, start.problem
    current = {layer.name: start.plan.formats[layer.name] for layer in problem.layers}

    def damages(assignment: Assignment) -> tuple[float, float]:
        formats = space.expanded(assignment)
        return evaluator.measure(formats, halves[0]).damage, evaluator.measure(formats, halves[1]).damage

    before = best = damages(current)
    accepted: list[Swap] = []
    moved: set[str] = set()
    tried = 0
    for swap in propose_swaps(problem, current, start.plan.coupling):
        if tried == count:
            break
        if {swap.up, swap.down} & moved:
            continue  # its bytes and prediction no longer hold
        progress("measuring swaps", tried, count)
        tried += 1
        proposed = current | {swap.up: swap.up_key, swap.down: swap.down_key}
        formats = space.expanded(proposed)
        first = evaluator.measure(formats, halves[0]).damage
        if first < best[0] and (second := evaluator.measure(formats, halves[1]).damage) < best[1]:
            current, best = proposed, (first, second)
            accepted.append(swap)
            moved |= {swap.up, swap.down}
    planned = with_formats(start, space.expanded(current)) if accepted else start
    return Refined(planned, tuple(accepted), tried, before, best)


def propose_swaps(problem: Problem, current: Assignment, coupling: float = 0.0) -> Iterator[Swap]:
    """Pairs of steps, one up and one down, that stay within the budget; the least predicted change first.

    Args:
        problem: what may be chosen.
        current: the formats now.
        coupling: how far damage counts what layers do to each other, see `mixedprec.joint`.
    """
    ups, downs = [], []
    for layer in problem.layers:
        now, lower, higher = _neighbours(problem.choices[layer.name], current[layer.name])
        if higher is not None:
            ups.append(_step(problem, layer.name, now, higher))
        if lower is not None:
            downs.append(_step(problem, layer.name, now, lower))
    room = problem.budget_bytes - problem.size_bytes(current)
    sizes = np.add.outer([step.size for step in ups], [step.size for step in downs])
    changes = _predicted(problem, current, ups, downs, coupling)
    other = np.not_equal.outer([step.layer for step in ups], [step.layer for step in downs])
    fitting = [
        Swap(ups[i].layer, ups[i].key, downs[j].layer, downs[j].key, float(changes[i, j]))
        for i, j in np.argwhere(other & (sizes <= room))
    ]
    yield from sorted(fitting, key=lambda swap: (swap.predicted_change, swap.up, swap.down))


class _Step(NamedTuple):
    """A layer to another format: what that adds in bytes and damage, and along random vectors."""

    layer: str
    key: str
    size: int
    damage: float
    change: Array


def _step(problem: Problem, layer: str, now: Choice, then: Choice) -> _Step:
    change = np.zeros(1)
    if problem.changes:
        rows = [problem.choices[layer].index(choice) for choice in (now, then)]
        before, after = problem.changes[layer][rows]
        change = (after - before).ravel()
    return _Step(layer, then.key, then.size_bytes - now.size_bytes, then.damage - now.damage, change)


def _predicted(
    problem: Problem, current: Assignment, ups: Sequence[_Step], downs: Sequence[_Step], coupling: float
) -> Array:
    """Change of damage by every pair of steps ``[ups, downs]``."""
    alone = np.add.outer([step.damage for step in ups], [step.damage for step in downs])
    if not coupling or not ups or not downs:
        return np.asarray(alone)
    picked = zip(problem.layers, problem.chosen(current), strict=True)
    together = np.sum(
        [problem.changes[layer.name][problem.choices[layer.name].index(choice)].ravel() for layer, choice in picked],
        axis=0,
    )
    up, down = (np.stack([step.change for step in steps]) for steps in (ups, downs))
    single = [2 * steps @ together + np.square(steps).sum(1) for steps in (up, down)]
    return np.asarray((1 - coupling) * alone + coupling * (np.add.outer(*single) + 2 * up @ down.T))


def _neighbours(choices: tuple[Choice, ...], key: str) -> tuple[Choice, Choice | None, Choice | None]:
    """The present choice, and the next smaller and larger among those worth taking."""
    now = next(choice for choice in choices if choice.key == key)
    ladder = [choices[position] for position in undominated(choices)]
    lower = [choice for choice in ladder if choice.size_bytes < now.size_bytes]
    higher = [choice for choice in ladder if choice.size_bytes > now.size_bytes]
    return now, lower[-1] if lower else None, higher[0] if higher else None
