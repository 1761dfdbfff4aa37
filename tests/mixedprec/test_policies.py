"""Policies: the optimum, the user's rule and the baselines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mixedprec.baselines import attention_and_heads, baselines, first_and_last, inverted, random_assignment
from mixedprec.policies import (
    INT4_GROUPS,
    POLICIES,
    RAISED,
    SENSITIVE_ROLES,
    Assignment,
    Problem,
    assignment_of,
    optimal,
    optimal_solution,
    sensitive,
)
from mixedprec.solver import Choice, Infeasible
from vggtkit.core.errors import InputError
from vggtkit.quant.layers import Layer

ROLES = ("attention", "mlp", "camera_head", "depth_head", "point_head", "track_head", "patch_embed")
OVERHEAD = {"int4_group_128": 0.5156, "int4_group_64": 0.5312, "int4_group_32": 0.5625, RAISED: 1.002}


def make_problem(seed: int, layers: int = 40, slack_bytes: int = 0) -> Problem:
    """Layers of all roles with the user's palette; the budget is the INT4 start and ``slack_bytes``."""
    rng = np.random.default_rng(seed)
    found, choices = [], {}
    for number in range(layers):
        weights = int(rng.choice([128, 256, 1024])) * int(rng.choice([128, 384]))
        role = ROLES[number % len(ROLES)]
        layer = Layer(f"layer{number}", "linear", role, "block", (weights // 128, 128), weights)
        worst = 10 ** rng.uniform(-8, -1)
        damages = worst * np.array([1.0, 0.7, 0.5, 0.004]) * rng.uniform(0.9, 1.0, 4)
        pairs = zip(OVERHEAD.items(), damages, strict=True)
        choices[layer.name] = tuple(Choice(key, int(weights * cost), float(d)) for (key, cost), d in pairs)
        found.append(layer)
    start = sum(group[0].size_bytes for group in choices.values())
    changes = {name: _changes(rng, group) for name, group in choices.items()}
    return Problem(found, choices, start + slack_bytes, changes)


def _changes(rng: np.random.Generator, choices: tuple[Choice, ...]) -> np.ndarray:
    """Of two scenes and three vectors each, the squares of which sum to the damages."""
    directions = rng.standard_normal((len(choices), 2, 3))
    lengths = np.sqrt(np.square(directions).sum((1, 2)) / [choice.damage for choice in choices])
    return directions / lengths[:, None, None]


def with_key(problem: Problem, key: str) -> Assignment:
    return {layer.name: key for layer in problem.layers}


@pytest.mark.parametrize("slack_bytes", [0, 1, 20, 10_000, 500_000, 10**9])
@pytest.mark.parametrize("seed", range(5))
def test_no_policy_or_baseline_exceeds_the_budget_or_beats_the_optimum(seed: int, slack_bytes: int) -> None:
    problem = make_problem(seed, slack_bytes=slack_bytes)
    best = problem.damage(optimal(problem))
    others = baselines(problem)
    assert list(others) == [
        "first and last layers", "attention and heads", "inverted score", *(f"random {seed}" for seed in range(5))
    ]  # fmt: skip
    for assignment in [*(policy(problem) for policy in POLICIES.values()), *others.values()]:
        assert list(assignment) == [layer.name for layer in problem.layers]
        assert problem.size_bytes(assignment) <= problem.budget_bytes
        assert problem.damage(assignment) >= best * (1 - 1e-12)


def test_optimal_is_its_solution() -> None:
    problem = make_problem(0, slack_bytes=300_000)
    solution = optimal_solution(problem)
    assert solution.optimal
    assert optimal(problem) == assignment_of(problem, solution)
    assert solution.damage == problem.damage(optimal(problem))
    assert solution.size_bytes == problem.size_bytes(optimal(problem))


@pytest.mark.parametrize("name", [*POLICIES, "inverted"])
def test_one_byte_below_the_start_is_infeasible_and_names_it(name: str) -> None:
    problem = make_problem(1)
    short = replace(problem, budget_bytes=problem.budget_bytes - 1)
    with pytest.raises(Infeasible) as refusal:
        {**POLICIES, "inverted": inverted}[name](short)
    assert refusal.value.minimum_bytes == problem.budget_bytes
    with pytest.raises(Infeasible):
        random_assignment(short, 0)


def test_sensitive_starts_at_the_smallest_int4() -> None:
    problem = make_problem(0)
    assert sensitive(problem) == with_key(problem, "int4_group_128")


def test_sensitive_with_room_for_all_is_int8_for_attention_and_heads_and_group_32_elsewhere() -> None:
    problem = make_problem(0, slack_bytes=10**9)
    for layer in problem.layers:
        expected = RAISED if layer.role in SENSITIVE_ROLES else "int4_group_32"
        assert sensitive(problem)[layer.name] == expected


@pytest.mark.parametrize("slack_bytes", [20_000, 200_000, 900_000, 2_000_000])
@pytest.mark.parametrize("seed", range(5))
def test_sensitive_raises_from_the_most_sensitive_down(seed: int, slack_bytes: int) -> None:
    """Replayed by hand: attention and heads by damage at the start; what does not fit is passed over."""
    problem = make_problem(seed, slack_bytes=slack_bytes)
    assignment = sensitive(problem)
    room = slack_bytes
    candidates = [layer for layer in problem.layers if layer.role in SENSITIVE_ROLES]
    for layer in sorted(candidates, key=lambda layer: problem.choices[layer.name][0].damage, reverse=True):
        start, *_, raised = problem.choices[layer.name]
        fits = raised.size_bytes - start.size_bytes <= room
        room -= (raised.size_bytes - start.size_bytes) * fits
        assert (assignment[layer.name] == RAISED) == fits
    others = {assignment[layer.name] for layer in problem.layers if layer.role not in SENSITIVE_ROLES}
    assert others <= set(INT4_GROUPS)


@pytest.mark.parametrize(("offset_bytes", "expected"), [(-1, "int4_group_128"), (0, RAISED), (1, RAISED)])
def test_sensitive_raises_at_the_exact_byte(offset_bytes: int, expected: str) -> None:
    layers = [Layer("a", "linear", "attention", "b", (1, 1), 1), Layer("m", "linear", "mlp", "b", (1, 1), 1)]
    group = (Choice("int4_group_128", 10, 1.0), Choice(RAISED, 20, 0.0))
    problem = Problem(layers, {"a": group, "m": group}, budget_bytes=30 + offset_bytes)
    assert sensitive(problem) == {"a": expected, "m": "int4_group_128"}


@pytest.mark.parametrize("seed", range(5))
def test_sensitive_leaves_no_finer_group_that_would_fit_and_help(seed: int) -> None:
    problem = make_problem(seed, slack_bytes=150_000)
    assignment = sensitive(problem)
    room = problem.budget_bytes - problem.size_bytes(assignment)
    for layer, chosen in zip(problem.layers, problem.chosen(assignment), strict=True):
        finer = [c for c in problem.choices[layer.name] if c.key in INT4_GROUPS and c.damage < chosen.damage]
        if chosen.key in INT4_GROUPS:
            assert all(choice.size_bytes - chosen.size_bytes > room for choice in finer)


def test_sensitive_spends_leftover_bytes_where_they_remove_the_most_damage_per_byte() -> None:
    layers = [Layer(name, "linear", "mlp", "b", (1, 1), 1) for name in ("dull", "sharp")]
    choices = {
        "dull": (Choice("int4_group_128", 10, 1.0), Choice("int4_group_64", 12, 0.9)),
        "sharp": tuple(map(Choice, INT4_GROUPS, (10, 12, 14), (0.5, 0.1, 0.05))),
    }
    expected = {20: ("128", "128"), 21: ("128", "128"), 22: ("128", "64"), 24: ("64", "64"), 26: ("64", "32")}
    for budget, groups in expected.items():
        assignment = sensitive(Problem(layers, choices, budget))
        assert tuple(key.removeprefix("int4_group_") for key in assignment.values()) == groups


def test_sensitive_keeps_pinned_layers_and_refuses_layers_without_int4() -> None:
    problem = make_problem(0, layers=3, slack_bytes=10**6)
    pinned = {**problem.choices, "layer0": (Choice("fp16", 100, 0.0),)}
    assert sensitive(replace(problem, choices=pinned))["layer0"] == "fp16"
    none = {**problem.choices, "layer1": (Choice("fp16", 100, 0.0), Choice(RAISED, 50, 0.1))}
    with pytest.raises(InputError, match="layer1 allows no INT4"):
        sensitive(replace(problem, choices=none))


def test_problem_names_the_layer_with_bad_choices() -> None:
    problem = make_problem(0, layers=2)
    with pytest.raises(InputError, match="layer layer1 has no choices"):
        replace(problem, choices={"layer0": problem.choices["layer0"]})
    with pytest.raises(InputError, match="layer layer1, int4_group_64: damage is nan"):
        replace(problem, choices={**problem.choices, "layer1": (Choice("int4_group_64", 1, float("nan")),)})


@pytest.mark.parametrize("seed", range(5))
def test_random_assignment_repeats_by_seed_and_fills_the_budget(seed: int) -> None:
    problem = make_problem(0, slack_bytes=500_000)
    assignment = random_assignment(problem, seed)
    assert assignment == random_assignment(problem, seed)
    assert assignment != random_assignment(problem, seed + 1)
    room = problem.budget_bytes - problem.size_bytes(assignment)
    for layer, chosen in zip(problem.layers, problem.chosen(assignment), strict=True):
        larger = [c.size_bytes - chosen.size_bytes for c in problem.choices[layer.name]]
        assert not any(0 < extra <= room for extra in larger)


@pytest.mark.parametrize("seed", range(5))
def test_inverted_order_is_much_worse_than_the_optimum(seed: int) -> None:
    problem = make_problem(seed, slack_bytes=600_000)
    assert problem.damage(inverted(problem)) > 3 * problem.damage(optimal(problem))


def test_inverted_survives_layers_without_damage() -> None:
    problem = make_problem(0, layers=3, slack_bytes=30_000)
    harmless = tuple(replace(choice, damage=0.0) for choice in problem.choices["layer0"])
    changed = replace(problem, choices={**problem.choices, "layer0": harmless})
    assert changed.size_bytes(inverted(changed)) <= changed.budget_bytes


def test_rules_of_thumb_raise_whom_they_name_as_far_as_the_bytes_go() -> None:
    """Against a count by hand: the bytes of the first three raises of each rule, and not of the fourth."""
    problem = make_problem(3)
    start = {layer.name: problem.choices[layer.name][0] for layer in problem.layers}
    ends = [0, 39, 1, 38]
    heads = [number for number, layer in enumerate(problem.layers) if layer.role in SENSITIVE_ROLES][:4]
    for rule, order in ((first_and_last, ends), (attention_and_heads, heads)):
        names = [problem.layers[number].name for number in order]
        costs = [problem.choices[name][-1].size_bytes - start[name].size_bytes for name in names]
        enough = replace(problem, budget_bytes=problem.budget_bytes + sum(costs[:3]))
        assignment = rule(enough)
        assert [assignment[name] for name in names[:3]] == [RAISED] * 3
        assert enough.size_bytes(assignment) <= enough.budget_bytes
        exact = replace(problem, budget_bytes=problem.budget_bytes)
        assert rule(exact) == {name: choice.key for name, choice in start.items()}
