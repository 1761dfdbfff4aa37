"""Exact multiple-choice knapsack: one choice per group, least summed damage within a byte budget.

The method is a dynamic programme over lists of undominated partial plans, group after group. Three things
keep the lists short. The linear relaxation of the groups still to come, as a function of the bytes left, is a
convex piecewise-linear curve read off their hulls, so every partial plan has a tight lower bound at the price
of one interpolation. The same curve rounded down to a corner completes every partial plan to a whole one, so
the upper bound is tight as well. A narrow first pass finds a near-optimal plan before wider ones prove it.

Why not a general integer programme: on 466 groups x 12 choices HiGHS (``scipy.optimize.milp``) took 0.4 to
9 s where this took 0.1 to 0.6 s, its tolerances are absolute (1e-6 on the gap and on feasibility), and it
prints to stdout. It stays as the independent check in the tests.

Sizes are integers throughout. Damages are doubles, summed as non-negative excesses over each group's least,
so "optimal" means that no plan's excess is lower by more than 1e-12 of it: the rounding of the sums.

Sources: Sinha and Zoltners, "The Multiple-Choice Knapsack Problem", Operations Research 27(3), 1979
(dominance and the relaxation); Pisinger, "A minimal algorithm for the multiple-choice knapsack problem",
EJOR 83(2), 1995 (lists of states cut by the relaxation). The widening passes and the order of the groups are
heuristics of ours: they decide how long the proof takes, never what it says.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mixedprec.budget import format_bytes
from mixedprec.limits import Limit, solve_within
from vggtkit.core.arrays import Array, Ints
from vggtkit.core.errors import InputError

_WIDTHS = (64, 1024, 16_384)  # partial plans kept per pass; the last one bounds time and memory
_ROUNDING = 1e-12
WITHIN = 1e-7
"""With several limits a plan is called optimal at this distance from the bound, relative: what HiGHS can prove."""


@dataclass(frozen=True)
class Choice:
    """One format for one group, and where time or memory are limited one way to run it.

    Attributes:
        key: of the format.
        size_bytes: in the file.
        damage: that it is predicted to do, ``input_damage`` included.
        input_damage: the part of ``damage`` that its execution does, of which no sign is known.
        execution: of `vggtkit.runtime.backend.EXECUTIONS`; "" where it is not chosen.
        nanoseconds: in a pass.
        memory_bytes: of its weight, as it stays.
    """

    key: str
    size_bytes: int
    damage: float
    input_damage: float = 0.0
    execution: str = ""
    nanoseconds: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Solution:
    """One pick per group, its bytes and damage, and the proven lower ``bound`` of any plan's damage.

    ``bound`` equals ``damage`` where the plan is proven ``optimal``. ``coupling`` is 0 where damage is summed over the
    groups; see `mixedprec.joint`.
    """

    picks: tuple[int, ...]
    size_bytes: int
    damage: float
    bound: float
    optimal: bool
    coupling: float = 0.0


class Infeasible(InputError):  # noqa: N818 - a fact about the budget, and the word that planners use for it
    """No plan fits ``budget_bytes``; the smallest one takes ``minimum_bytes``."""

    def __init__(self, budget_bytes: int, minimum_bytes: int) -> None:
        """Say both sizes, in MB and in bytes."""
        self.budget_bytes = budget_bytes
        self.minimum_bytes = minimum_bytes
        super().__init__(
            f"no plan fits {format_bytes(budget_bytes)} ({budget_bytes} bytes): "
            f"the smallest needs {format_bytes(minimum_bytes)} ({minimum_bytes} bytes)"
        )


def solve(groups: Sequence[Sequence[Choice]], budget_bytes: int, limits: Sequence[Limit] = ()) -> Solution:
    """Pick one choice per group with the least summed damage whose summed bytes fit the budget.

    Deterministic. Of choices of a group that are equal in bytes and damage, the first is picked.

    Args:
        groups: the choices of every group, in any order.
        budget_bytes: bytes for these groups alone; what is fixed has been subtracted by the caller.
        limits: of further resources; then `mixedprec.limits` decides.

    Returns:
        The plan, proven ``optimal``; or, after about ten seconds on contrived inputs (hundreds of groups, the
        damage a linear function of the bytes), the best plan found and a proven ``bound``.

    Raises:
        Infeasible: even the smallest choices exceed the budget.
        OverLimit: no plan keeps a further limit; they are numbered from 1.
        InputError: a group is empty, a size is negative, or a damage is negative or not finite.

    >>> fine, coarse = Choice("int8", 10, 0.0), Choice("int4", 5, 1.0)
    >>> solve([[fine, coarse], [fine, Choice("int4", 5, 0.25)]], budget_bytes=15).picks
    (0, 1)
    """
    for number, group in enumerate(groups):
        check_choices(f"group {number}", group)
    if limits:
        return _solve_within(groups, budget_bytes, limits)
    fronts = [undominated(group) for group in groups]
    smallest = tuple(front[0] for front in fronts)
    best = tuple(front[-1] for front in fronts)
    minimum = _total_bytes(groups, smallest)
    if minimum > budget_bytes:
        raise Infeasible(budget_bytes, minimum)
    if _total_bytes(groups, best) <= budget_bytes:
        return _solution(groups, best)
    if minimum == budget_bytes:
        return _solution(groups, smallest)
    return _search(groups, fronts, budget_bytes)


def bytes_limit(groups: Sequence[Sequence[Choice]], budget_bytes: int) -> Limit:
    """The budget as one limit among others."""
    return Limit([np.array([choice.size_bytes for choice in group]) for group in groups], budget_bytes)


def _solve_within(groups: Sequence[Sequence[Choice]], budget_bytes: int, limits: Sequence[Limit]) -> Solution:
    damages = [np.array([choice.damage for choice in group]) for group in groups]
    minimum = sum(min(choice.size_bytes for choice in group) for group in groups)
    if minimum > budget_bytes:
        raise Infeasible(budget_bytes, minimum)
    solution = solve_within(damages, [bytes_limit(groups, budget_bytes), *limits])
    damage = _total_damage(groups, solution.picks)
    optimal = solution.bound >= damage * (1 - WITHIN)
    return Solution(
        solution.picks, _total_bytes(groups, solution.picks), damage, damage if optimal else solution.bound, optimal
    )


def check_choices(owner: str, choices: Sequence[Choice]) -> None:
    """Refuse choices that no plan can be made from.

    Raises:
        InputError: there are none, a size is negative, or a damage is negative or not finite; the message
            names ``owner`` and the choice.

    >>> check_choices("group 0", [Choice("int4", 5, 1.0)])
    """
    if not choices:
        raise InputError(f"{owner} has no choices; allow at least one format for it")
    for choice in choices:
        if not (math.isfinite(choice.damage) and choice.damage >= 0):
            raise InputError(
                f"{owner}, {choice.key}: damage is {choice.damage}, must be finite and at least 0; "
                "score it again or leave the format out"
            )
        if choice.size_bytes < 0:
            raise InputError(f"{owner}, {choice.key}: size is {choice.size_bytes} bytes, must be at least 0")


def undominated(choices: Sequence[Choice]) -> list[int]:
    """Positions of the choices worth taking: bytes strictly ascending, damage strictly descending.

    >>> undominated([Choice("a", 8, 0.1), Choice("b", 4, 0.3), Choice("worse than b", 5, 0.3)])
    [1, 0]
    """
    front: list[int] = []
    for position in sorted(range(len(choices)), key=lambda p: (choices[p].size_bytes, choices[p].damage, p)):
        if not front or choices[position].damage < choices[front[-1]].damage:
            front.append(position)
    return front


def _total_bytes(groups: Sequence[Sequence[Choice]], picks: Sequence[int]) -> int:
    return sum(group[pick].size_bytes for group, pick in zip(groups, picks, strict=True))


def _total_damage(groups: Sequence[Sequence[Choice]], picks: Sequence[int]) -> float:
    return math.fsum(group[pick].damage for group, pick in zip(groups, picks, strict=True))


def _solution(groups: Sequence[Sequence[Choice]], picks: tuple[int, ...], bound: float | None = None) -> Solution:
    """The plan of these picks; optimal if no lower bound is given."""
    damage = _total_damage(groups, picks)
    optimal = bound is None
    lower = damage if bound is None else min(bound, damage)
    return Solution(picks, _total_bytes(groups, picks), damage, lower, optimal)


def _search(groups: Sequence[Sequence[Choice]], fronts: list[list[int]], budget_bytes: int) -> Solution:
    """Solve where choosing is needed, in passes of growing width, until one of them is a proof."""
    core = _core(groups, fronts, budget_bytes)
    search = _Search(core, _steps(core))
    proven = any(search.run(width) for width in _WIDTHS)
    picks = [front[0] for front in fronts]
    for stage, group in enumerate(core.groups):
        picks[group] = fronts[group][int(search.best[stage])]
    if proven:
        return _solution(groups, tuple(picks))
    least = _total_damage(groups, [front[-1] for front in fronts])
    excess = math.ldexp(search.lower * (1 - _ROUNDING), core.exponent)
    return _solution(groups, tuple(picks), bound=least + excess)


@dataclass(frozen=True)
class _Core:
    """The groups that leave a choice, each by what its choices cost beyond its least bytes and least damage.

    Bytes are in multiples of their common divisor, damages divided by ``2**exponent`` to lie in [0, 1];
    neither rounds. Coarse groups come first: what is left to the relaxation is fine, and its bound tight.
    """

    groups: list[int]
    sizes: list[Ints]
    excess: list[Array]
    room: int
    exponent: int


def _core(groups: Sequence[Sequence[Choice]], fronts: list[list[int]], budget_bytes: int) -> _Core:
    room = budget_bytes - sum(group[front[0]].size_bytes for group, front in zip(groups, fronts, strict=True))
    open_groups: list[tuple[int, Ints, Array]] = []
    for number, (group, front) in enumerate(zip(groups, fronts, strict=True)):
        sizes = np.array([group[pick].size_bytes for pick in front], dtype=np.int64)
        damages = np.array([group[pick].damage for pick in front], dtype=np.float64)
        if len(front) > 1:
            open_groups.append((number, sizes - sizes[0], damages - damages[-1]))
    open_groups.sort(key=lambda entry: (-int(entry[1][-1]), entry[0]))
    unit = math.gcd(*(int(size) for _, sizes, _ in open_groups for size in sizes))
    exponent = math.frexp(max(float(excess[0]) for _, _, excess in open_groups))[1]
    return _Core(
        groups=[number for number, _, _ in open_groups],
        sizes=[sizes // unit for _, sizes, _ in open_groups],
        excess=[np.ldexp(excess, -exponent) for _, _, excess in open_groups],
        room=room // unit,
        exponent=exponent,
    )


@dataclass(frozen=True)
class _Steps:
    """All steps along the groups' hulls, the most damage removed per byte first.

    Taken in this order they are the relaxation's optimum as the budget grows, and every whole number of them
    is a real plan. ``[steps]`` each: the stage they belong to, the choice they lead to, the bytes they add,
    the damage they remove.
    """

    stage: Ints
    target: Ints
    size: Ints
    gain: Array

    def curve(self, stage: int) -> tuple[Ints, Array]:
        """Corners of the relaxation of the groups from ``stage`` on: bytes spent, excess damage left."""
        mine = self.stage >= stage
        spent = np.concatenate([[0], np.cumsum(self.size[mine])])
        # Summed from the small end: what is left keeps its relative precision over many decades.
        left = np.concatenate([np.cumsum(self.gain[mine][::-1])[::-1], [0.0]])
        return spent, left


def _steps(core: _Core) -> _Steps:
    rows: list[tuple[float, int, int, int, float]] = []
    for stage, (sizes, excess) in enumerate(zip(core.sizes, core.excess, strict=True)):
        hull = _hull(sizes, excess)
        for start, end in itertools.pairwise(hull):
            size, gain = int(sizes[end] - sizes[start]), float(excess[start] - excess[end])
            rows.append((-gain / size, stage, end, size, gain))
    rows.sort()
    return _Steps(
        stage=np.array([row[1] for row in rows], dtype=np.int64),
        target=np.array([row[2] for row in rows], dtype=np.int64),
        size=np.array([row[3] for row in rows], dtype=np.int64),
        gain=np.array([row[4] for row in rows], dtype=np.float64),
    )


def _hull(sizes: Ints, excess: Array) -> list[int]:
    """Positions of the lower convex hull; slopes never descend along it, as computed."""

    def rate(start: int, end: int) -> float:
        return float(excess[start] - excess[end]) / int(sizes[end] - sizes[start])

    hull = [0]
    for point in range(1, len(sizes)):
        while len(hull) > 1 and rate(hull[-2], hull[-1]) < rate(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


@dataclass
class _Search:
    """What is known: the ``best`` picks by stage, their excess ``upper``, and a proven ``lower``."""

    core: _Core
    steps: _Steps
    upper: float = math.inf
    lower: float = 0.0
    best: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def run(self, width: int) -> bool:
        """One pass that keeps at most ``width`` partial plans; True if it proves ``best`` optimal."""
        used, excess = np.zeros(1, dtype=np.int64), np.zeros(1)
        trail: list[tuple[Ints, Ints]] = []  # per stage and partial plan that goes on: its parent's row, its pick
        dropped = math.inf  # the lowest bound among partial plans that were given up for lack of width
        for stage, sizes in enumerate(self.core.sizes):
            used = (used[:, None] + sizes).ravel()
            excess = (excess[:, None] + self.core.excess[stage]).ravel()
            origin = np.flatnonzero(used <= self.core.room)
            used, excess = used[origin], excess[origin]
            parent, pick = np.divmod(origin, len(sizes))
            bound = self._bound(stage, used, excess, parent, pick, trail)
            rows, cut = _select(used, excess, bound, self._target(), width)
            dropped = min(dropped, cut)
            used, excess = used[rows], excess[rows]
            trail.append((parent[rows], pick[rows]))
            if not len(rows):
                break
        self.lower = max(self.lower, min(dropped, self.upper))
        return self.lower >= self._target()

    def _target(self) -> float:
        """What a plan must stay under to count as better than the best."""
        return self.upper * (1 - _ROUNDING)

    def _bound(
        self, stage: int, used: Ints, excess: Array, parent: Ints, pick: Ints, trail: list[tuple[Ints, Ints]]
    ) -> Array:
        """Lower bounds of what the partial plans can become; takes the best rounded completion on the way."""
        spent, left = self.steps.curve(stage + 1)
        room = self.core.room - used
        corner = np.searchsorted(spent, room, side="right") - 1
        completed = excess + left[corner]
        row = int(np.argmin(completed))
        if completed[row] < self.upper:
            self.upper = float(completed[row])
            self.best = self._picks(stage, int(parent[row]), int(pick[row]), int(corner[row]), trail)
        bound: Array = excess + np.interp(room, spent, left)
        return bound

    def _picks(self, stage: int, parent: int, pick: int, corner: int, trail: list[tuple[Ints, Ints]]) -> Ints:
        """The picks of a partial plan, walked back through the trail, and of the steps that complete it."""
        picks = np.zeros(len(self.core.groups), dtype=np.int64)
        picks[stage] = pick
        row = parent
        for earlier in range(stage - 1, -1, -1):
            parents, chosen = trail[earlier]
            picks[earlier] = chosen[row]
            row = int(parents[row])
        taken = np.flatnonzero(self.steps.stage > stage)[:corner]
        np.maximum.at(picks, self.steps.stage[taken], self.steps.target[taken])
        return picks


def _select(used: Ints, excess: Array, bound: Array, target: float, width: int) -> tuple[Ints, float]:
    """Rows worth extending (promising, undominated, at most ``width``), and the lowest bound given up."""
    rows = np.flatnonzero(bound < target)
    rows = rows[np.lexsort((excess[rows], used[rows]))]
    ascending = excess[rows]
    better = np.ones(len(rows), dtype=np.bool_)
    better[1:] = ascending[1:] < np.minimum.accumulate(ascending)[:-1]
    rows = rows[better]
    if len(rows) <= width:
        return rows, math.inf
    order = np.argsort(bound[rows], kind="stable")
    return rows[np.sort(order[:width])], float(bound[rows[order[width]]])
