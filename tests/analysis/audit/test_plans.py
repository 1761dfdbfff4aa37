"""Plans made from scores, and regret."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.audit.plans import (
    BUDGETS,
    REGRET_RESAMPLES,
    Market,
    Regret,
    baseline_scores,
    regret_intervals,
    regrets,
    usable_score,
)
from analysis.audit.run import from_scores, halves
from analysis.audit.truth import Truth
from mixedprec import overhead_bytes, parse_request, planned
from mixedprec.joint import coupling_of
from sensitivity import Profile, profile
from vggtkit.model import VGGT, load_vggt
from vggtkit.quant import dequantize_layer, quantize_layer
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of


@pytest.fixture(scope="module")
def market(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Market:
    model = load_vggt(str(model_folder))
    found = made_profile(model, tmp_path_factory.mktemp("profile") / "profile.h5")
    return Market(subject_of(model), found, [room(3), room(4)])


def room(seed: int) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    return Scene(
        f"room {seed}", torch.rand(2, 3, 32, 32, generator=generator), 30 * torch.rand(3, 2, generator=generator)
    )


def made_profile(model: VGGT, path: Path) -> Profile:
    facts = {"model": "tiniest", "weights": "random", "scene_fingerprint": "0" * 16, "seed": 0}
    return profile(model, [room(0)], path, facts=facts, probes=1, activation_bytes=2_000_000)


def test_a_whole_plan_is_measured_as_the_model_with_these_weights(market: Market) -> None:
    picks = np.arange(len(market.layers)) % len(market.schemes)
    found = market.measure_damage(picks)
    original = market.evaluator.subject.model
    changed = load_like(original)
    for layer, pick in zip(market.layers, picks, strict=True):
        module = changed.get_submodule(layer.name)
        module.weight.data = dequantize_layer(quantize_layer(module, market.schemes[pick]), module)
    for name in ("pose_enc", "depth", "world_points"):
        ratios = []
        for scene in market.evaluator.scenes:
            before, after = (subject_of(model).predict(scene)[name].double() for model in (original, changed))
            ratios.append(float((after - before).square().sum() / before.square().sum()))
        assert found[name] == pytest.approx(ratios, rel=0.02)  # other matrix products


def load_like(model: VGGT) -> VGGT:
    copy = VGGT(model.config).eval()
    copy.load_state_dict(model.state_dict())
    return copy


def test_plans_fit_the_budget_and_take_the_least(market: Market) -> None:
    """No single layer can take a better format within what is left."""
    score = np.random.default_rng(0).random(market.sizes.shape)
    for factor in BUDGETS.values():
        room = int(factor * market.anchor)
        picks = market.plan(score, room)
        rows = np.arange(len(picks))
        spent = market.sizes[rows, picks].sum()
        assert spent <= room
        for row, pick in enumerate(picks):
            fits = market.sizes[row] <= market.sizes[row, pick] + room - spent
            assert score[row, fits].min() >= score[row, pick]


def test_the_truth_has_no_regret_by_its_own_sums(market: Market) -> None:
    truth = 10 ** np.random.default_rng(1).uniform(-6, -3, market.sizes.shape)
    scores = {"truth": truth, "scaled": 3 * truth, **baseline_scores(truth, seed=0, draws=1)}
    ways = from_scores(market, scores)
    found = regrets(market, ways, [(truth, truth)], ways, [(truth, truth)])
    assert [regret.budget for regret in found["truth"]] == list(BUDGETS)
    for regret in found["truth"]:
        assert regret.summed == regret.local == 1.0
        assert regret.measured >= 1
    assert [r.damages for r in found["scaled"]] == [r.damages for r in found["truth"]]
    assert min(regret.summed for regret in found["inverted"]) > 5
    assert all(min(found[key][number].measured for key in found) == 1 for number in range(len(BUDGETS)))


@pytest.fixture
def signed(market: Market, tmp_path: Path) -> Market:
    """With made-up changes in three scenes that half agree."""
    generator = np.random.default_rng(0)
    profiled = made_profile(market.evaluator.subject.model, tmp_path / "profile.h5")
    changes = {}
    for name, damage in profiled.damage.items():
        agreed = generator.choice([-1, 1], (len(damage), 1, 1, 1)) * generator.standard_normal(4)
        signs = agreed + generator.standard_normal((*damage.shape, 3, 4))
        changes[name] = (np.sqrt(damage)[:, :, None, None] * signs).astype(np.float32)
    damages = {name: np.square(values, dtype=np.float64).mean((2, 3)) for name, values in changes.items()}
    return Market(
        subject_of(market.evaluator.subject.model), replace(profiled, changes=changes, damage=damages), [room(3)]
    )


@pytest.mark.slow
def test_joint_plans_are_those_that_the_planner_makes(signed: Market) -> None:
    overhead = overhead_bytes(signed.evaluator.subject.model, "fp16")
    for factor in BUDGETS.values():
        budget = int(factor * signed.anchor)
        request = parse_request(f"{overhead + budget}B", policy="joint", formats=",".join(signed.schemes))
        evidence = replace(signed.evidence, facts={**signed.evidence.facts, "parameters": 1, "model_fingerprint": ""})
        plan = planned(evidence, signed.evaluator.subject.model, request).plan
        assert plan.coupling > 0
        picks = signed.plan_jointly(tuple(signed.evidence.damage), budget)
        assert [signed.schemes[pick] for pick in picks] == list(plan.formats.values())


@pytest.mark.slow
def test_layers_together_are_predicted_with_their_signs(signed: Market) -> None:
    """Where scenes agree on everything, the square of the sum; where there is one scene, the sum of the squares."""
    picks = signed.uniform("int4_group_64")
    column = signed.evidence.column("int4_group_64")
    rows = {name: values[:, column].astype(np.float64) for name, values in signed.evidence.changes.items()}
    found = signed.together(picks)
    for name, changes in rows.items():
        coupling = coupling_of(changes)
        alone, together = np.square(changes).mean((1, 2)).sum(), np.square(changes.sum(0)).mean()
        assert min(alone, together) <= found[name] <= max(alone, together)
        assert found[name] == pytest.approx(alone + coupling * (together - alone))
    same = {name: np.repeat(v[:, :, :1], 3, axis=2) for name, v in signed.evidence.changes.items()}
    signed.evidence = replace(signed.evidence, changes=same)
    whole = {name: np.square(v[:, column, 0].astype(np.float64).sum(0)).mean() for name, v in same.items()}
    assert signed.together(picks) == pytest.approx(whole)


@pytest.mark.parametrize(
    "score", [np.full((3, 2), np.nan), np.array([[np.nan, 1.0], [np.inf, 2.0], [-1.0, np.nan]])], ids=["all", "some"]
)
def test_what_a_score_does_not_know_is_made_usable(score: np.ndarray) -> None:
    found = usable_score(score)
    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_halves_of_the_scenes_judge_each_other() -> None:
    values = np.arange(4.0)[:, None, None] * np.ones((4, 2, 3))
    ((choose, judge), (again, _)) = halves(Truth({"depth": values}), None)
    assert (choose[0, 0], judge[0, 0]) == (1.0, 2.0)
    assert again is judge


def test_intervals_of_regret_are_those_of_a_plain_bootstrap() -> None:
    """Three scores, two budgets, five scenes, against a loop with the same draws; the point estimate lies inside."""
    damages = np.random.default_rng(3).uniform(1, 3, size=(3, 2, 5))
    given = {f"score {k}": [Regret("any", tuple(row), 1.0, 1.0, 1.0) for row in damages[k]] for k in range(3)}
    found = regret_intervals(given, seed=7)
    draws = np.random.default_rng(7).integers(5, size=(REGRET_RESAMPLES, 5))
    regret = np.empty((REGRET_RESAMPLES, 3))
    for number, scenes in enumerate(draws):
        per_budget = [[damages[k, b, scenes].mean() for k in range(3)] for b in range(2)]
        regret[number] = np.mean([[value / min(row) for value in row] for row in per_budget], axis=0)
    for k, (low, high) in enumerate(found.values()):
        assert (low, high) == pytest.approx((np.percentile(regret[:, k], 2.5), np.percentile(regret[:, k], 97.5)))
        whole = np.mean([damages[k, b].mean() / damages[:, b].mean(1).min() for b in range(2)])
        assert low <= whole <= high
