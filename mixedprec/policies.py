"""Policies: how a byte budget becomes one format per layer."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mixedprec.joint import solve_jointly
from mixedprec.limits import Limit
from mixedprec.solver import Choice, Infeasible, Solution, check_choices, solve, undominated
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.core.registry import Registry
from vggtkit.quant.layers import Layer

Assignment = dict[str, str]
"""Format key by layer name."""

INT4_GROUPS = ("int4_group_128", "int4_group_64", "int4_group_32")
RAISED = "int8_per_channel_sym"
SENSITIVE_ROLES = frozenset({"attention", "camera_head", "depth_head", "point_head", "track_head"})


@dataclass(frozen=True)
class Timed:
    """Formats with ways to run them, and what these may take.

    Attributes:
        choices: of every layer, by its name.
        changes: as in `Problem`, of these choices.
        time_room: nanoseconds for the layers; None without a limit.
        memory_room: bytes for their weights in memory; None without a limit.
    """

    choices: Mapping[str, tuple[Choice, ...]]
    changes: Mapping[str, NDArray[np.float64]]
    time_room: int | None
    memory_room: int | None

    def limits(self, layers: Sequence[Layer]) -> dict[str, Limit]:
        """By what is limited, in the order of the layers."""
        groups = [self.choices[layer.name] for layer in layers]
        rooms = {"nanoseconds": self.time_room, "memory_bytes": self.memory_room}
        return {
            name: Limit([np.array([getattr(choice, name) for choice in group]) for group in groups], room)
            for name, room in rooms.items()
            if room is not None
        }


@dataclass(frozen=True)
class Problem:
    """What a policy decides on: the layers, what each may become, and the bytes for the layers alone.

    Args:
        layers: in module order; only ``name`` and ``role`` are read.
        choices: the allowed formats of every layer, by its name; a single one pins the layer.
        budget_bytes: file bytes for the layers' weights; what is fixed has been subtracted by the caller.
        changes: what the choices of every layer do with their signs, as `solve_jointly` takes it; empty if unknown.
        timed: where time or memory are limited, what policies that minimise damage choose from instead.

    Raises:
        InputError: a layer has no choices, or one of them has a negative or non-finite damage.
    """

    layers: Sequence[Layer]
    choices: Mapping[str, tuple[Choice, ...]]
    budget_bytes: int
    changes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    timed: Timed | None = None

    def __post_init__(self) -> None:
        """Refuse bad choices under the name of their layer."""
        for layer in self.layers:
            check_choices(f"layer {layer.name}", self.choices.get(layer.name, ()))

    def groups(self) -> list[tuple[Choice, ...]]:
        """What policies that minimise damage choose from, in the order of the layers."""
        choices = self.choices if self.timed is None else self.timed.choices
        return [choices[layer.name] for layer in self.layers]

    def limits(self) -> list[Limit]:
        """Limits beside the bytes: of time, then of memory."""
        return [] if self.timed is None else list(self.timed.limits(self.layers).values())

    def chosen(self, assignment: Assignment) -> list[Choice]:
        """The choice behind every layer's assigned format, in the order of the layers."""
        return [_choice(self.choices[layer.name], assignment[layer.name]) for layer in self.layers]

    def size_bytes(self, assignment: Assignment) -> int:
        """File bytes of the layers under an assignment."""
        return sum(choice.size_bytes for choice in self.chosen(assignment))

    def damage(self, assignment: Assignment) -> float:
        """Summed predicted damage of an assignment."""
        return math.fsum(choice.damage for choice in self.chosen(assignment))


Policy = Callable[[Problem], Assignment]


def optimal(problem: Problem) -> Assignment:
    """The assignment with the least summed damage within the budget.

    Raises:
        Infeasible: the smallest assignment exceeds the budget.
    """
    return assignment_of(problem, optimal_solution(problem))


def optimal_solution(problem: Problem) -> Solution:
    """What `optimal` picks, with the proven bound beside it.

    Raises:
        Infeasible: the smallest assignment exceeds the budget.
    """
    return solve(problem.groups(), problem.budget_bytes, problem.limits())


def joint(problem: Problem) -> Assignment:
    """The assignment with the least damage of all layers together within the budget, as far as a search finds it.

    Raises:
        Infeasible: the smallest assignment exceeds the budget.
        InputError: it is not known what the layers do together.
    """
    return assignment_of(problem, joint_solution(problem))


def joint_solution(problem: Problem) -> Solution:
    """What `joint` picks, with the proven bound beside it.

    Raises:
        Infeasible, InputError: as `joint`.
    """
    if not problem.changes:
        raise InputError(
            f"{setting('policy', 'joint')}: nothing says what layers do together but the sketch of a profile; "
            "use optimal"
        )
    known = problem.changes if problem.timed is None else problem.timed.changes
    changes = [known[layer.name] for layer in problem.layers]
    return solve_jointly(problem.groups(), changes, problem.budget_bytes, problem.limits())


def assignment_of(problem: Problem, solution: Solution) -> Assignment:
    """The format keys behind a solution's picks."""
    picked = zip(problem.layers, problem.groups(), solution.picks, strict=True)
    return {layer.name: choices[pick].key for layer, choices, pick in picked}


def executions_of(problem: Problem, solution: Solution) -> Assignment:
    """The executions behind a solution's picks, where they were chosen."""
    picked = zip(problem.layers, problem.groups(), solution.picks, strict=True)
    return {layer.name: choices[pick].execution for layer, choices, pick in picked if choices[pick].execution}


def sensitive(problem: Problem) -> Assignment:
    """INT8 for the most sensitive attention and head layers as the budget allows, INT4 groups elsewhere.

    Every layer starts at its smallest allowed INT4 group format. Attention and head layers are raised to
    ``int8_per_channel_sym``, from the one with the most damage at the start down; one that no longer fits is
    passed over. The bytes left then go to smaller groups (128, 64, 32) for the layers still at INT4, each
    time where they remove the most damage per byte.

    Raises:
        Infeasible: the start exceeds the budget.
        InputError: a layer that is not pinned has no INT4 group format among its choices.
    """
    ladders = {layer.name: _int4_ladder(layer, problem.choices[layer.name]) for layer in problem.layers}
    current = {name: ladder[0] for name, ladder in ladders.items()}
    room = room_of(problem, current)
    room = _raise_sensitive(problem, current, room)
    _refine_groups(ladders, current, room)
    return {name: choice.key for name, choice in current.items()}


POLICIES: Registry[Policy] = Registry("policy")
for _key, _policy in (("joint", joint), ("optimal", optimal), ("sensitive", sensitive)):
    POLICIES.register(_key, _policy)

SOLVED: dict[str, Callable[[Problem], Solution]] = {"joint": joint_solution, "optimal": optimal_solution}
"""Policies that minimise damage and come with a proven bound."""


def _choice(choices: Sequence[Choice], key: str) -> Choice:
    return next(choice for choice in choices if choice.key == key)


def smallest(choices: Sequence[Choice]) -> Choice:
    """The choice of the fewest bytes; the first of those."""
    return min(choices, key=lambda choice: choice.size_bytes)


def room_of(problem: Problem, start: Mapping[str, Choice]) -> int:
    """Bytes left of the budget at the start of a policy."""
    needed = sum(choice.size_bytes for choice in start.values())
    if needed > problem.budget_bytes:
        raise Infeasible(problem.budget_bytes, needed)
    return problem.budget_bytes - needed


def _int4_ladder(layer: Layer, choices: Sequence[Choice]) -> list[Choice]:
    """The layer's INT4 group formats worth taking, smallest first; a pinned layer has its one choice."""
    allowed = choices if len(choices) == 1 else [choice for choice in choices if choice.key in INT4_GROUPS]
    if not allowed:
        keys = ", ".join(choice.key for choice in choices)
        raise InputError(
            f"layer {layer.name} allows no INT4 group format ({keys}), where the policy 'sensitive' starts; "
            f"allow one of {', '.join(INT4_GROUPS)} or use the policy 'optimal'"
        )
    return [allowed[position] for position in undominated(allowed)]


def _raise_sensitive(problem: Problem, current: dict[str, Choice], room: int) -> int:
    """Raise attention and heads to INT8 in place, most sensitive first; the bytes left."""
    names = [layer.name for layer in problem.layers if layer.role in SENSITIVE_ROLES]
    for name in sorted(names, key=lambda name: -current[name].damage):
        raised = next((choice for choice in problem.choices[name] if choice.key == RAISED), current[name])
        extra = raised.size_bytes - current[name].size_bytes
        if extra <= room:
            current[name] = raised
            room -= extra
    return room


def _refine_groups(ladders: Mapping[str, list[Choice]], current: dict[str, Choice], room: int) -> None:
    """Spend the bytes left on smaller INT4 groups in place, most damage removed per byte first."""
    # Minus the damage removed per byte, the layer, the rung it stands on, the rung it goes to.
    queue: list[tuple[float, str, int, int]] = []

    def offer(name: str, rung: int) -> None:
        ladder = ladders[name]
        for target in range(rung + 1, len(ladder)):
            extra = ladder[target].size_bytes - ladder[rung].size_bytes
            removed = ladder[rung].damage - ladder[target].damage
            heapq.heappush(queue, (-removed / extra, name, rung, target))

    for name, ladder in ladders.items():
        if current[name] is ladder[0]:
            offer(name, 0)
    while queue:
        _, name, rung, target = heapq.heappop(queue)
        ladder = ladders[name]
        extra = ladder[target].size_bytes - ladder[rung].size_bytes
        if current[name] is ladder[rung] and extra <= room:
            current[name] = ladder[target]
            room -= extra
            offer(name, target)
