"""The plans that scores lead to: what they cost by summed true damage, and measured as whole plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.evaluation.evaluator import Evaluator
from mixedprec import Choice, Evidence, joint_solution, solve
from mixedprec.joint import coupling_of, damage_together
from mixedprec.search_space import SearchSpace
from sensitivity import Profile
from sensitivity.scores import usable_score
from vggtkit.core.arrays import Array
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

Picks = NDArray[np.int64]
PlanRule = Callable[[int], Picks]
"""How to plan: from a budget for the layers to the place of every layer's format."""

REGRET_RESAMPLES = 1000
ANCHOR = "int4_group_128"
BUDGETS = {"tight": 1.02, "middle": 1.15, "roomy": 1.5}
"""Bytes of the layers, relative to all of them at INT4 groups of 128."""


class Market:
    """Chooses plans from scores with the exact solver, and measures whole plans.

    Args:
        subject: the profiled one.
        profile: for the layers, formats, bytes, and what layers do together.
        scenes: held-out ones, on which plans are measured.
    """

    def __init__(self, subject: Subject, profile: Profile, scenes: Sequence[Scene]) -> None:
        self.layers, self.schemes = profile.layers, profile.schemes
        self.evidence = Evidence.of(profile)
        self.sizes = profile.size_bytes[:, [profile.column(key) for key in self.schemes]]
        self.anchor = int(profile.size_bytes[:, profile.column(ANCHOR)].sum())
        self.evaluator = Evaluator(subject, scenes, keep="fp32", cheaper=True)

    def plan(self, score: Array, budget_bytes: int) -> Picks:
        """The place of every layer's format in the plan with the least summed score.

        What a score does not know (SSIM of what is no picture) counts as the median of its format.

        Args:
            score: ``[layers, formats]``, in any unit; more is worse.
            budget_bytes: of the layers' weights alone.
        """
        usable = usable_score(score)
        groups = [
            [Choice(key, int(size), float(value)) for key, size, value in zip(self.schemes, sizes, row, strict=True)]
            for sizes, row in zip(self.sizes, usable, strict=True)
        ]
        return np.array(solve(groups, budget_bytes).picks, dtype=np.int64)

    def plan_jointly(self, outputs: Sequence[str], budget_bytes: int) -> Picks:
        """The same as ``plan --policy joint`` would choose: the least damage of all layers together, by the sketch."""
        seen = self.evidence
        there = replace(
            seen,
            damage={name: seen.damage[name] for name in outputs},
            changes={name: seen.changes[name] for name in outputs},
        )
        problem = SearchSpace.unconstrained(there, self.schemes).problem(budget_bytes)
        return np.array(joint_solution(problem).picks, dtype=np.int64)

    def together(self, picks: Picks) -> dict[str, float]:
        """Predicted damage of every output, with what layers do to each other."""
        damages = {}
        columns = np.array([self.evidence.column(key) for key in self.schemes])[picks]
        for name, values in self.evidence.changes.items():
            changes = values[np.arange(len(picks)), columns].astype(np.float64)  # [layers, scenes, probes]
            damages[name] = damage_together(changes, coupling_of(changes))
        return damages

    def uniform(self, scheme: str) -> Picks:
        """Every layer at one format."""
        return np.full(len(self.layers), self.schemes.index(scheme), dtype=np.int64)

    def sum_damage(self, values: Array, picks: Picks) -> float:
        """Sum over the layers of a score or damage ``[layers, formats]``."""
        return float(values[np.arange(len(picks)), picks].sum())

    def measure_damage(self, picks: Picks) -> dict[str, Array]:
        """NMSE of every output with the whole plan, ``[scenes]``."""
        assignment = {layer.name: self.schemes[pick] for layer, pick in zip(self.layers, picks, strict=True)}
        errors = self.evaluator.measure(assignment).errors
        return {name: np.array([row[name] for row in errors]) for name in errors[0]}


@dataclass(frozen=True)
class Regret:
    """What a plan made from a score costs at one budget.

    Attributes:
        budget: a key of `BUDGETS`.
        damages: measured damage of the whole plan on every scene, mean over outputs.
        measured: their mean over the least of all plans compared at this budget; 1 is the best.
        summed: summed true damage of its layers over that of the plan made from true damage of other scenes.
        local: the same over camera, depth and points alone, where damages add up; both plans are made for them.
    """

    budget: str
    damages: tuple[float, ...]
    measured: float
    summed: float
    local: float


def regret_intervals(regrets: Mapping[str, Sequence[Regret]], seed: int = 0) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals of 95 % of every score's mean regret, over the scenes that plans were measured on.

    >>> one, other = ([Regret("tight", damages, 1, 1, 1)] for damages in ((1.0, 3.0), (2.0, 6.0)))
    >>> regret_intervals({"one": one, "other": other})
    {'one': (1.0, 1.0), 'other': (2.0, 2.0)}
    """
    damages = np.array([[regret.damages for regret in of_score] for of_score in regrets.values()])
    scenes = damages.shape[2]
    draws = np.random.default_rng(seed).integers(scenes, size=(REGRET_RESAMPLES, scenes))
    means = damages[:, :, draws].mean(-1)  # [scores, budgets, draws]
    drawn = _over(means, means.min(0)).mean(1)
    ends = np.percentile(drawn, (2.5, 97.5), axis=1).T.tolist()
    return {key: (low, high) for key, (low, high) in zip(regrets, ends, strict=True)}


def baseline_scores(score: Array, seed: int, draws: int = 3) -> dict[str, Array]:
    """The score turned upside down, and handed out to the wrong layers at random.

    Args:
        score: ``[layers, formats]``.
        seed: of the shuffles.
        draws: how many shuffles.

    >>> sorted(baseline_scores(np.arange(6.0).reshape(3, 2), seed=0, draws=1))
    ['inverted', 'random 0']
    """
    generator = np.random.default_rng(seed)
    shuffled = {f"random {draw}": score[generator.permutation(len(score))] for draw in range(draws)}
    return shuffled | {"inverted": np.asarray(score.max() - score)}


def regrets(
    market: Market,
    ways: Mapping[str, PlanRule],
    halves: Sequence[tuple[Array, Array]],
    local_ways: Mapping[str, PlanRule],
    local_halves: Sequence[tuple[Array, Array]],
    step: Callable[[], None] = lambda: None,
) -> dict[str, list[Regret]]:
    """Regret of every way to plan at every budget.

    Args:
        market: plans and measures.
        ways: by name; planning from the truth is among them where it shall compete.
        halves: true damage, ``[layers, formats]`` each, as (to choose the reference plan from, to judge by), from
            different scenes: a reference judged by the numbers that it was chosen from would win by luck.
        local_ways: the same for camera, depth and points alone.
        local_halves: true damage of these, of the same shapes.
        step: called after every measured plan.
    """
    by_way: dict[str, list[Regret]] = {key: [] for key in ways}
    for budget, factor in BUDGETS.items():
        room = int(factor * market.anchor)
        plans = {key: way(room) for key, way in ways.items()}
        damages = {}
        for key, picks in plans.items():
            damages[key] = np.mean(list(market.measure_damage(picks).values()), axis=0)
            step()
        best = min(float(values.mean()) for values in damages.values())
        sums, local_sums = (_reference_sum(market, pairs, room) for pairs in (halves, local_halves))
        for key, picks in plans.items():
            local_picks = local_ways[key](room)
            summed = sum(market.sum_damage(judge, picks) for _, judge in halves)
            local = sum(market.sum_damage(judge, local_picks) for _, judge in local_halves)
            costs, least = [float(damages[key].mean()), summed, local], [best, sums, local_sums]
            times = _over(np.array(costs), np.array(least)).tolist()
            by_way[key].append(Regret(budget, tuple(damages[key].tolist()), *times))
    return by_way


def _over(damage: Array, least: Array) -> Array:
    """How many times the least damage; where that is none, no damage is as good as the best.

    >>> _over(np.array([3.0, 0.0, 1.0]), np.array([2.0, 0.0, 0.0])).tolist()
    [1.5, 1.0, inf]
    """
    times: Array = np.where(damage == 0, 1.0, np.inf)
    np.divide(damage, least, out=times, where=np.broadcast_to(least, times.shape) > 0)
    return times


def _reference_sum(market: Market, halves: Sequence[tuple[Array, Array]], room: int) -> float:
    """Summed damage of the plans that are made from one half of the truth and judged by the other."""
    return sum(market.sum_damage(judge, market.plan(choose, room)) for choose, judge in halves)


@dataclass(frozen=True)
class WholePlan:
    """Predicted and measured damage of one assignment.

    Attributes:
        name: where it comes from.
        size_bytes: of its layers.
        measured: damage per output.
        sketched: summed sketch per output.
        together: the sketch of all layers together per output, with `mixedprec.joint`'s coupling.
        summed: summed true damage of its layers alone, per output.
    """

    name: str
    size_bytes: int
    measured: Mapping[str, float]
    sketched: Mapping[str, float]
    together: Mapping[str, float]
    summed: Mapping[str, float]


SPREAD = (1.01, 1.05, 1.1, 1.2, 1.35, 1.6, 1.9)


def additivity_plans(
    market: Market,
    sketched: Mapping[str, Array],
    truth: Mapping[str, Array],
    step: Callable[[], None] = lambda: None,
) -> list[WholePlan]:
    """Measure plans over a range of budgets: from the sketch, from it at random, and the uniform schemes.

    Args:
        market: measures them.
        sketched: estimated damage ``[layers, formats]`` per output.
        truth: measured damage of single layers, likewise.
        step: called after every plan.
    """
    score = np.asarray(np.mean(list(sketched.values()), axis=0))
    wrong = baseline_scores(score, seed=1, draws=1)["random 0"]
    chosen = {f"sketch x{factor:g}": market.plan(score, int(factor * market.anchor)) for factor in SPREAD}
    chosen |= {f"random x{factor:g}": market.plan(wrong, int(factor * market.anchor)) for factor in SPREAD[1::2]}
    chosen |= {scheme: market.uniform(scheme) for scheme in market.schemes}
    plans = []
    for name, picks in chosen.items():
        plans.append(
            WholePlan(
                name=name,
                size_bytes=int(market.sizes[np.arange(len(picks)), picks].sum()),
                measured={key: float(values.mean()) for key, values in market.measure_damage(picks).items()},
                sketched={key: market.sum_damage(values, picks) for key, values in sketched.items()},
                together=market.together(picks),
                summed={key: market.sum_damage(values, picks) for key, values in truth.items()},
            )
        )
        step()
    return plans
