"""What a plan is judged against, at equal bytes: rules of thumb, chance, and the wrong order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from mixedprec.policies import SENSITIVE_ROLES, Assignment, Problem, optimal, room_of, smallest
from mixedprec.solver import Choice
from vggtkit.quant import get_format

RANDOM_SEEDS = (0, 1, 2, 3, 4)
_LEAST_BITS = (4, 3, 1)
_RAISED_BITS = 8


def baselines(problem: Problem) -> dict[str, Assignment]:
    """Every baseline by its title.

    Raises:
        Infeasible: the smallest assignment exceeds the budget.
    """
    return {
        "first and last layers": first_and_last(problem),
        "attention and heads": attention_and_heads(problem),
        "inverted score": inverted(problem),
        **{f"random {seed}": random_assignment(problem, seed) for seed in RANDOM_SEEDS},
    }


def first_and_last(problem: Problem) -> Assignment:
    """Rule of thumb: INT8 for the first and last layers, from both ends inwards as the bytes allow; INT4 elsewhere.

    Damages are not looked at. Where INT4 does not fit the budget, the rest starts at 3 bits, or at the smallest.

    Raises:
        Infeasible: the smallest assignment exceeds the budget.
    """
    count = len(problem.layers)
    inwards = sorted(range(count), key=lambda position: (min(position, count - 1 - position), position))
    return _raised(problem, inwards)


def attention_and_heads(problem: Problem) -> Assignment:
    """Rule of thumb: INT8 for attention and heads in the order of the model as the bytes allow; INT4 elsewhere.

    Raises:
        Infeasible: the smallest assignment exceeds the budget.
    """
    roles = [layer.role for layer in problem.layers]
    return _raised(problem, [position for position, role in enumerate(roles) if role in SENSITIVE_ROLES])


def random_assignment(problem: Problem, seed: int) -> Assignment:
    """Baseline: from the smallest formats, random raises until nothing more fits; damages are not looked at.

    Raises:
        Infeasible: the smallest assignment exceeds the budget.
    """
    current = {layer.name: smallest(problem.choices[layer.name]) for layer in problem.layers}
    room = room_of(problem, current)
    raises = [(layer.name, choice) for layer in problem.layers for choice in problem.choices[layer.name]]
    for position in np.random.default_rng(seed).permutation(len(raises)):
        name, choice = raises[position]
        extra = choice.size_bytes - current[name].size_bytes
        if 0 < extra <= room:
            current[name] = choice
            room -= extra
    return {name: choice.key for name, choice in current.items()}


def inverted(problem: Problem) -> Assignment:
    """Baseline: optimal for the wrong order, in which the most sensitive layer counts as the least one.

    A layer's sensitivity is its largest damage. The layers trade sensitivities, the first in rank with the
    last; what a layer's formats do relative to each other stays, so more bits still count as better.

    Raises:
        Infeasible: the smallest assignment exceeds the budget.
    """
    names = [layer.name for layer in problem.layers]
    worst = {name: max(choice.damage for choice in problem.choices[name]) for name in names}
    ranked = sorted(worst, key=lambda name: worst[name])
    traded = {name: worst[other] for name, other in zip(ranked, reversed(ranked), strict=True)}
    choices = {
        name: tuple(replace(c, damage=_share(c.damage, worst[name]) * traded[name]) for c in problem.choices[name])
        for name in names
    }
    return optimal(replace(problem, choices=choices, timed=None))


def _share(damage: float, worst: float) -> float:
    return damage / worst if worst else 0.0


def _raised(problem: Problem, order: Iterable[int]) -> Assignment:
    """From the start up to 8 bits, layer by layer in this order; one that no longer fits is passed over."""
    current = _start(problem)
    room = room_of(problem, current)
    for position in order:
        name = problem.layers[position].name
        eight = [choice for choice in problem.choices[name] if get_format(choice.key).bits == _RAISED_BITS]
        raised = min(eight, key=lambda choice: choice.damage, default=current[name])
        extra = raised.size_bytes - current[name].size_bytes
        if extra <= room:
            current[name] = raised
            room -= extra
    return {name: choice.key for name, choice in current.items()}


def _start(problem: Problem) -> dict[str, Choice]:
    """Every layer at its smallest choice of at least 4 bits; of 3, or fewer, where that does not fit."""
    for bits in _LEAST_BITS:
        current = {}
        for layer in problem.layers:
            choices = problem.choices[layer.name]
            current[layer.name] = smallest([c for c in choices if get_format(c.key).bits >= bits] or choices)
        if sum(choice.size_bytes for choice in current.values()) <= problem.budget_bytes:
            break
    return current
