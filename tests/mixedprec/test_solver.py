"""The solver against exhaustive search and against HiGHS."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from mixedprec import solver
from mixedprec.solver import Choice, Infeasible, Solution, solve, undominated
from vggtkit.core.errors import InputError

Groups = list[list[Choice]]


def random_groups(seed: int, groups: int, choices: int, largest: int = 60_000) -> Groups:
    """Unordered choices, dominated ones among them, damages over eight decades."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, largest, (groups, choices)).tolist()
    damages = (10 ** rng.uniform(-9, -1, (groups, choices))).tolist()
    rows = zip(sizes, damages, strict=True)
    return [[Choice(f"f{c}", s, d) for c, (s, d) in enumerate(zip(*row, strict=True))] for row in rows]


def vggt_like(seed: int, groups: int = 466) -> Groups:
    """Bytes proportional to the weights, damage falling fourfold a bit: what a profile of VGGT looks like."""
    rng = np.random.default_rng(seed)
    formats = [(bits, group) for bits in (2, 3, 4, 5) for group in (128, 64, 32)]
    result: Groups = []
    for _ in range(groups):
        rows, columns = int(rng.choice([256, 1024, 3072, 4096])), int(rng.choice([128, 1024, 1152, 4096]))
        sensitivity = 10 ** rng.uniform(-9, -1)
        sizes = [rows * (columns * bits // 8 + 2 * -(-columns // group)) for bits, group in formats]
        noise = rng.lognormal(0, 0.3, len(formats))
        relative = [4.0**-bits * (1 + group / 128) for bits, group in formats]
        damages = (sensitivity * np.array(relative) * noise).tolist()
        result.append([Choice(f"{f}", s, d) for f, s, d in zip(formats, sizes, damages, strict=True)])
    return result


def smallest(groups: Groups) -> int:
    return sum(min(choice.size_bytes for choice in group) for group in groups)


def exhaustive(groups: Groups, budget: int) -> float:
    return min(damage for size, damage in all_plans(groups) if size <= budget)


def all_plans(groups: Groups) -> list[tuple[int, float]]:
    plans = itertools.product(*groups)
    return [(sum(c.size_bytes for c in plan), math.fsum(c.damage for c in plan)) for plan in plans]


def assert_consistent(solution: Solution, groups: Groups, budget: int) -> None:
    chosen = [group[pick] for group, pick in zip(groups, solution.picks, strict=True)]
    assert solution.size_bytes == sum(choice.size_bytes for choice in chosen) <= budget
    assert solution.damage == math.fsum(choice.damage for choice in chosen)
    assert solution.bound <= solution.damage
    assert solution.optimal == (solution.bound == solution.damage)


@pytest.mark.parametrize("slack_bytes", [0, 1, 20, 10_000, 60_000])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("groups", "choices"), [(4, 3), (6, 4)])
def test_plan_equals_exhaustive_search(groups: int, choices: int, seed: int, slack_bytes: int) -> None:
    """On 4 x 3 and 6 x 4 the solver must equal brute force over all 81 and 4096 plans."""
    problem = random_groups(seed, groups, choices)
    budget = smallest(problem) + slack_bytes
    solution = solve(problem, budget)
    assert_consistent(solution, problem, budget)
    assert solution.optimal
    assert solution.damage == pytest.approx(exhaustive(problem, budget), rel=1e-11)


@pytest.mark.parametrize("seed", range(5))
def test_budget_at_below_and_above_every_threshold(seed: int) -> None:
    """Around the bytes of every plan that is the best of its size, one byte decides."""
    problem = random_groups(seed, 4, 3)
    plans = all_plans(problem)
    thresholds = {size for size, damage in plans if all(s > size or d >= damage for s, d in plans)}
    for budget in sorted(threshold + offset for threshold in thresholds for offset in (-1, 0, 1)):
        if budget < smallest(problem):
            with pytest.raises(Infeasible):
                solve(problem, budget)
        else:
            expected = min(damage for size, damage in plans if size <= budget)
            assert solve(problem, budget).damage == pytest.approx(expected, rel=1e-11)


small_problems = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4), min_size=1, max_size=5
)


@settings(max_examples=200, deadline=None)
@given(small_problems, st.integers(0, 45))
def test_ties_and_zeros_equal_exhaustive_search(numbers: list[list[tuple[int, int]]], slack: int) -> None:
    """Small integers make ties, equal choices and zero bytes or damage common."""
    problem = [[Choice(f"{i}", s, float(d)) for i, (s, d) in enumerate(group)] for group in numbers]
    budget = smallest(problem) + slack
    solution = solve(problem, budget)
    assert_consistent(solution, problem, budget)
    assert solution.damage == exhaustive(problem, budget)


@pytest.mark.parametrize("exponent", [-300, -40, 0, 200])
def test_scale_of_the_damages_does_not_matter(exponent: int) -> None:
    problem = random_groups(0, 30, 5)
    scaled = [[replace(c, damage=math.ldexp(c.damage, exponent)) for c in group] for group in problem]
    budget = smallest(problem) + 200_000
    assert solve(scaled, budget).picks == solve(problem, budget).picks


def test_tiny_damages_beside_an_unavoidable_large_one_are_still_minimised() -> None:
    """A float sum of 1 + 1e-17 sees no difference; the solver must."""
    problem = [[Choice("fixed", 10, 1.0)], [Choice("a", 2, 3e-17), Choice("b", 1, 5e-17)]]
    problem.append([Choice("a", 2, 1e-17), Choice("b", 1, 5e-17)])
    assert solve(problem, 13).picks == (0, 1, 0)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.8])
def test_large_problem_agrees_with_highs(seed: int, fraction: float) -> None:
    problem = random_groups(seed, 80, 8)
    budget = smallest(problem) + int(fraction * 80 * 30_000)
    solution = solve(problem, budget)
    assert_consistent(solution, problem, budget)
    assert solution.optimal
    assert solution.damage == pytest.approx(highs_damage(problem, budget), rel=1e-9)


def highs_damage(problem: Groups, budget: int) -> float:
    """Independent answer: the same knapsack as a general integer programme."""
    choices = [(number, choice) for number, group in enumerate(problem) for choice in group]
    damages = np.array([choice.damage for _, choice in choices])
    columns = np.arange(len(choices))
    one_each = csr_matrix((np.ones(len(choices)), ([number for number, _ in choices], columns)))
    sizes = np.array([[choice.size_bytes for _, choice in choices]], dtype=float)
    result = milp(
        damages * 1e4,
        integrality=np.ones(len(choices)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(sizes, -np.inf, budget)],
        options={"mip_rel_gap": 0},
    )
    assert result.status == 0
    return float(damages @ np.round(result.x))


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.9])
def test_466_layers_by_12_formats_are_proven_in_a_second(fraction: float) -> None:
    problem = vggt_like(seed=0)
    largest = sum(max(choice.size_bytes for choice in group) for group in problem)
    budget = smallest(problem) + int(fraction * (largest - smallest(problem)))
    start = time.process_time()  # CPU time: other jobs on the machine do not count
    solution = solve(problem, budget)
    assert time.process_time() - start < 1.0
    assert_consistent(solution, problem, budget)
    assert solution.optimal


@pytest.mark.slow
def test_a_front_of_50_budgets_takes_less_than_15_seconds() -> None:
    problem = vggt_like(seed=3)
    low = smallest(problem)
    high = sum(max(choice.size_bytes for choice in group) for group in problem)
    start = time.process_time()
    found = [solve(problem, low + (high - low) * step // 49) for step in range(50)]
    assert time.process_time() - start < 15.0
    assert all(solution.optimal for solution in found)
    assert [solution.damage for solution in found] == sorted((s.damage for s in found), reverse=True)


def test_the_same_problem_gives_the_same_plan() -> None:
    problem = vggt_like(seed=1, groups=60)
    budget = smallest(problem) + 10_000_000
    assert solve(problem, budget) == solve([list(group) for group in problem], budget)


def test_more_budget_is_never_worse() -> None:
    problem = vggt_like(seed=2, groups=60)
    damages = [solve(problem, smallest(problem) + slack).damage for slack in range(0, 40_000_000, 2_000_001)]
    assert damages == sorted(damages, reverse=True)


def test_an_unfinished_proof_says_so_and_its_bound_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage linear in bytes defeats every bound; a narrow search must then not claim a proof."""
    rng = np.random.default_rng(0)
    sizes = np.cumsum(rng.integers(1, 10**6, (12, 4)), axis=1).tolist()
    problem = [[Choice(f"{c}", s, 1.0 - s * 1e-7 - c * 1e-5) for c, s in enumerate(row)] for row in sizes]
    budget = smallest(problem) + 9_000_001
    proven = solve(problem, budget)
    monkeypatch.setattr(solver, "_WIDTHS", (4,))
    hasty = solve(problem, budget)
    assert proven.optimal
    assert not hasty.optimal
    assert_consistent(hasty, problem, budget)
    assert hasty.bound <= proven.damage <= hasty.damage


def test_budget_that_does_not_bind_takes_the_least_damage_at_the_fewest_bytes() -> None:
    group = [Choice("int4", 5, 1.0), Choice("fp16", 20, 0.0), Choice("a", 10, 0.0), Choice("b", 10, 0.0)]
    assert solve([group], 10**9) == Solution((2,), 10, 0.0, 0.0, optimal=True)
    assert undominated(group) == [0, 2]


def test_no_groups_fit_any_budget() -> None:
    assert solve([], 0) == Solution((), 0, 0.0, 0.0, optimal=True)


@pytest.mark.parametrize("seed", range(5))
def test_infeasible_names_the_minimum_that_then_works(seed: int) -> None:
    problem = random_groups(seed, 5, 4)
    with pytest.raises(Infeasible) as refusal:
        solve(problem, smallest(problem) - 1)
    minimum = refusal.value.minimum_bytes
    assert str(minimum) in str(refusal.value)
    assert solve(problem, minimum).size_bytes == minimum == smallest(problem)


@pytest.mark.parametrize("damage", [-1e-9, math.nan, math.inf])
def test_impossible_damage_is_refused_by_group_and_key(damage: float) -> None:
    with pytest.raises(InputError, match=r"group 1, int4: damage is"):
        solve([[Choice("int8", 1, 0.0)], [Choice("int4", 1, damage)]], 10)


def test_empty_group_and_negative_size_are_refused() -> None:
    with pytest.raises(InputError, match="group 0 has no choices"):
        solve([[]], 10)
    with pytest.raises(InputError, match="size is -1 bytes"):
        solve([[Choice("int4", -1, 0.0)]], 10)
