"""Joint planning against brute force, its bound, and how far the scenes are trusted."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mixedprec import Evidence, Planned, parse_request, planned
from mixedprec.constraints import parse_constraints
from mixedprec.joint import _Joint, coupling_of, solve_jointly
from mixedprec.policies import Problem, joint, joint_solution
from mixedprec.search_space import SearchSpace
from mixedprec.solver import Choice, Infeasible, bytes_limit, solve
from sensitivity import Profile
from vggtkit.core.errors import InputError
from vggtkit.model import VGGT
from vggtkit.quant import Layer

Floats = NDArray[np.float64]
Groups = list[list[Choice]]

SCENES, SAMPLES = 4, 6


def made(seed: int, counts: tuple[int, ...], shared: float = 0.7) -> tuple[Groups, list[Floats]]:
    """Groups of some choices whose changes share a direction, up or down, that all scenes agree on."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(SAMPLES)
    groups, changes = [], []
    for number, count in enumerate(counts):
        step = np.sort(10 ** rng.uniform(-2, 0, count))
        own = rng.standard_normal((count, SCENES, SAMPLES))
        change = step[:, None, None] * ((1 - shared) * own + shared * rng.choice([-1, 1]) * direction)
        sizes = np.sort(rng.integers(5, 60, count))[::-1]
        damages = np.square(change).sum((1, 2))
        groups.append([Choice(f"{number}.{i}", int(sizes[i]), float(damages[i])) for i in range(count)])
        changes.append(change)
    return groups, changes


def damage(groups: Groups, changes: list[Floats], picks: tuple[int, ...], coupling: float) -> float:
    """By its definition: every layer alone, and every pair of layers times the coupling."""
    total = sum(group[pick].damage for group, pick in zip(groups, picks, strict=True))
    for one, other in itertools.permutations(range(len(groups)), 2):
        total += coupling * float((changes[one][picks[one]] * changes[other][picks[other]]).sum())
    return total


def brute_force(groups: Groups, changes: list[Floats], budget: int, coupling: float) -> float:
    plans = itertools.product(*(range(len(group)) for group in groups))
    fitting = (p for p in plans if sum(g[i].size_bytes for g, i in zip(groups, p, strict=True)) <= budget)
    return min(damage(groups, changes, plan, coupling) for plan in fitting)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(8))
def test_equals_exhaustive_search_and_its_bound_is_below(seed: int, share: float) -> None:
    """Five groups of two to four choices, from the smallest budget to one that binds nothing."""
    groups, changes = made(seed, (3, 2, 4, 3, 2))
    low = sum(min(choice.size_bytes for choice in group) for group in groups)
    high = sum(max(choice.size_bytes for choice in group) for group in groups)
    budget = int(low + share * (high - low))
    found = solve_jointly(groups, changes, budget)
    assert 0 < found.coupling <= 1
    assert found.size_bytes == sum(g[i].size_bytes for g, i in zip(groups, found.picks, strict=True)) <= budget
    assert found.damage == pytest.approx(damage(groups, changes, found.picks, found.coupling))
    best = brute_force(groups, changes, budget, found.coupling)
    assert found.damage == pytest.approx(best)
    assert found.bound <= best * (1 + 1e-9)
    assert found.optimal == (found.bound >= found.damage * (1 - 1e-9))


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_the_bound_holds_however_early_the_search_stops(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the best mixture may still be above the best plan, so its value alone would be no bound."""
    monkeypatch.setattr("mixedprec.joint.ROUNDS", rounds)
    for seed in range(8):
        groups, changes = made(seed, (3, 2, 4, 3, 2))
        budget = sum(group[1].size_bytes for group in groups)
        for coupling in (0.3, 1.0):
            _, bound = _Joint(groups, changes, [bytes_limit(groups, budget)], coupling, solve(groups, budget)).relaxed()
            assert 0 <= bound <= brute_force(groups, changes, budget, coupling) * (1 + 1e-9)


@pytest.mark.parametrize("seed", [1, 2])
def test_at_the_size_of_a_model_it_is_near_its_bound_and_ahead_of_every_layer_alone(seed: int) -> None:
    groups, changes = made(seed, (9,) * 200, shared=0.35)
    budget = sum(group[4].size_bytes for group in groups)
    alone, found = solve(groups, budget), solve_jointly(groups, changes, budget)
    assert found.size_bytes <= budget
    assert found.bound <= found.damage <= 1.25 * found.bound
    assert found.damage < 0.85 * damage(groups, changes, alone.picks, found.coupling)


def test_errors_that_cancel_are_taken_together() -> None:
    """Two layers at 4 bits undo each other; alone, the third does the least."""
    opposed = np.ones((2, 3, 1)) * np.array([0.0, 1.0])[:, None, None]
    changes = [opposed, -opposed, 0.9 * opposed]
    groups = [[Choice("int8", 2, 0.0), Choice("int4", 1, float(np.square(c[1]).sum()))] for c in changes]
    assert solve(groups, 5).picks == (0, 0, 1)
    assert solve_jointly(groups, changes, 5).picks == (0, 0, 1)  # one has to go: nothing undoes it
    assert solve_jointly(groups, changes, 4).picks == (1, 1, 0)
    assert solve_jointly(groups, changes, 4).damage == pytest.approx(0)


def test_coupling_is_one_minus_the_share_of_noise() -> None:
    """Against plain loops: variance of the mean over scenes, of every product of two groups."""
    changes = np.random.default_rng(0).standard_normal((5, SCENES, SAMPLES)) + 0.5
    noise = size = 0.0
    for one, other in itertools.permutations(range(5), 2):
        products = [SCENES * float(changes[one, scene] @ changes[other, scene]) for scene in range(SCENES)]
        noise += np.var(products, ddof=1) / SCENES
        size += np.mean(products) ** 2
    assert 0 < noise < size
    assert coupling_of(changes) == pytest.approx(1 - noise / size)


def test_scenes_that_do_not_agree_are_not_trusted() -> None:
    rng = np.random.default_rng(1)
    assert coupling_of(rng.standard_normal((30, 4, 8))) < 0.2
    assert coupling_of(rng.standard_normal((30, 1, 8))) == 0  # one scene cannot say
    assert coupling_of(np.zeros((3, 4, 2))) == 0
    groups, changes = made(0, (3, 3, 3))
    one_scene = [change[:, :1] for change in changes]
    assert solve_jointly(groups, one_scene, 70) == solve(groups, 70)


def test_too_small_a_budget_is_refused_by_the_byte() -> None:
    groups, changes = made(2, (3, 4))
    low = sum(min(choice.size_bytes for choice in group) for group in groups)
    assert solve_jointly(groups, changes, low).size_bytes == low
    with pytest.raises(Infeasible) as refusal:
        solve_jointly(groups, changes, low - 1)
    assert refusal.value.minimum_bytes == low


@pytest.mark.usefixtures("spoken_in_options")
def test_the_policy_needs_to_know_what_layers_do_together() -> None:
    layer = Layer("fc", "linear", "mlp", "block", (2, 2), 4)
    with pytest.raises(InputError, match="--policy joint: nothing says what layers do together"):
        joint(Problem([layer], {"fc": (Choice("int4_group_128", 3, 1.0),)}, 10))


@pytest.fixture
def plan_for(planning_model: VGGT, signed_profile: Profile):
    def plan(budget: str, **options: object) -> Planned:
        return planned(signed_profile, planning_model, parse_request(budget, **options))  # type: ignore[arg-type]

    return plan


def summed(profile: Profile, formats: dict[str, str], coupling: float, outputs: tuple[str, ...]) -> dict[str, float]:
    """Damage by output, from the profile's arrays alone."""
    columns = [profile.candidates.index(formats[layer.name]) for layer in profile.layers]
    found = {}
    for name in outputs:
        changes = np.stack([profile.changes[name][row, column] for row, column in enumerate(columns)]).astype(float)
        alone = sum(profile.damage[name][row, column] for row, column in enumerate(columns))
        found[name] = (1 - coupling) * alone + coupling * np.square(changes.sum(0)).mean()
    return found


def test_a_profile_with_signs_is_planned_jointly_unless_told_otherwise(plan_for, signed_profile: Profile) -> None:
    found, alone = plan_for("25%").plan, plan_for("25%", policy="optimal").plan
    assert (found.policy, alone.policy) == ("joint", "optimal")
    assert 0 < found.coupling <= 1
    assert alone.coupling == 0
    assert alone.optimal
    assert found.bound <= found.total_damage
    expected = summed(signed_profile, found.formats, found.coupling, tuple(signed_profile.damage))
    assert found.predicted_damage == pytest.approx(expected)
    assert found.total_damage == pytest.approx(np.mean(list(expected.values())))
    rival = summed(signed_profile, alone.formats, found.coupling, tuple(signed_profile.damage))
    assert found.total_damage < np.mean(list(rival.values()))


def test_heads_and_weights_of_outputs_are_counted(signed_profile: Profile) -> None:
    """What `solve_jointly` is given has the squares of the damages, by layer and choice, whatever is weighed."""
    evidence = Evidence.of(signed_profile).with_heads(("camera", "depth")).weighted({"depth": 3.0})
    keys = evidence.candidates[:4]
    problem = SearchSpace(evidence, {layer.name: keys for layer in evidence.layers}).problem(10**6)
    assert "track_head.tracker.updateformer.flow_head" not in problem.changes
    for layer in problem.layers:
        squares = np.square(problem.changes[layer.name]).sum((1, 2))
        np.testing.assert_allclose(squares, [choice.damage for choice in problem.choices[layer.name]], rtol=1e-6)


def test_layers_that_share_a_format_act_as_one(plan_for) -> None:
    asked = parse_constraints(group=("aggregator.frame_blocks.*.attn.*",), keep_fp=("*patch_embed.proj",))
    found = plan_for("40%", keep="fp32", constraints=asked)
    problem, plan = found.problem, found.plan
    name = next(group[0] for group in found.search_space.groups)
    members = found.search_space.groups[0]
    key = plan.formats[name]
    assert {plan.formats[member] for member in members} == {key}
    row = [choice.key for choice in problem.choices[name]].index(key)
    evidence = found.search_space.evidence
    rows = [i for i, layer in enumerate(evidence.layers) if layer.name in members]
    changes = evidence.joint_changes
    assert changes is not None
    np.testing.assert_allclose(problem.changes[name][row], changes[rows, evidence.column(key)].sum(0))
    kept = next(layer for layer in plan.formats if plan.formats[layer] == "fp32")
    assert not problem.changes[kept].any()
    assert plan.total_damage == pytest.approx(joint_solution(problem).damage, rel=1e-5)  # what members do, too


def test_one_calibration_scene_gives_the_optimal_plan(planning_model: VGGT, signed_profile: Profile) -> None:
    one = {name: values[:, :, :1] for name, values in signed_profile.changes.items()}
    damages = {name: np.square(values, dtype=np.float64).mean((2, 3)) for name, values in one.items()}
    profile = replace(signed_profile, changes=one, damage=damages)
    found = planned(profile, planning_model, parse_request("25%")).plan
    assert (found.policy, found.coupling, found.optimal) == ("joint", 0.0, True)
    assert found.formats == planned(profile, planning_model, parse_request("25%", policy="optimal")).plan.formats
