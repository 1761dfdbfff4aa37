"""Which layers keep floating-point activations: against all subsets, and through a plan and its file."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.report.plan_tables import execution_sentence
from mixedprec import Planned, load_plan, parse_request, planned, save_plan
from mixedprec.execution import TOLERATED, choose_float, with_execution
from sensitivity import Profile
from sensitivity.input_rounding import has_rounded_input
from vggtkit.core.errors import InputError
from vggtkit.core.seal import sealed
from vggtkit.model.vggt import VGGT
from vggtkit.quant import Layer
from vggtkit.quant.activations import INT8_TOKEN
from vggtkit.runtime.backends import BACKENDS

INT8 = BACKENDS["int8"]
RUNS = "int8_per_channel_sym,int4_two_level"


@pytest.mark.parametrize("allowed", [0.0, 0.3, 1.0, 100.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_single_layer_more_is_kept_than_needed(seed: int, allowed: float) -> None:
    """Within what is allowed; no kept one could be given up; at most a layer's weights over the best subset."""
    generator = np.random.default_rng(seed)
    layers = [Layer(str(n), "linear", "mlp", "b", (1, 1), int(generator.integers(1, 50))) for n in range(9)]
    damage = {layer.name: float(10 ** generator.uniform(-3, 0)) for layer in layers}
    weights = {layer.name: layer.weights for layer in layers}

    def left(kept: tuple[str, ...] | list[str]) -> float:
        return math.fsum(value for name, value in damage.items() if name not in kept)

    kept = choose_float(layers, damage, allowed)
    assert left(kept) <= allowed
    assert all(left([other for other in kept if other != name]) > allowed for name in kept)
    subsets = (s for count in range(10) for s in itertools.combinations(weights, count) if left(s) <= allowed)
    best = min(sum(weights[name] for name in s) for s in subsets)
    assert sum(weights[name] for name in kept) <= best + max(weights.values())


@pytest.fixture
def rounded(planning_profile: Profile, planning_model: VGGT) -> Profile:
    """The profile with inputs of which one layer's does nearly all the damage."""
    generator = np.random.default_rng(3)
    there = np.array([has_rounded_input(planning_model, layer) for layer in planning_profile.layers])
    changes = {}
    for name, damage in planning_profile.damage.items():
        values = np.sqrt(1e-3 * np.median(damage)) * generator.standard_normal((len(there), 1, 2, 4))
        values[~there] = np.nan
        values[_worst(planning_profile)] *= 1000
        changes[name] = values.astype(np.float32)
    return replace(planning_profile, activation_formats=(INT8_TOKEN,), input_changes=changes)


def _worst(profile: Profile) -> int:
    return next(row for row, layer in enumerate(profile.layers) if layer.name.endswith("global_blocks.1.mlp.fc1"))


@pytest.fixture
def chosen(rounded: Profile, planning_model: VGGT) -> Planned:
    return planned(rounded, planning_model, parse_request("60%", formats=RUNS))


def test_the_offending_layer_stays_and_the_rest_adds_little(chosen: Planned, rounded: Profile, tmp_path: Path) -> None:
    found, choice = with_execution(chosen, rounded, INT8)
    name = rounded.layers[_worst(rounded)].name
    assert name in choice.kept
    assert found.plan.executions == dict.fromkeys(choice.kept, "bfloat16")
    assert choice.added <= TOLERATED * found.plan.total_damage < choice.without
    assert 0 < choice.share < 0.5
    assert name in execution_sentence(choice)
    save_plan(found.plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == found.plan


def test_the_more_they_may_add_the_fewer_layers_are_kept(chosen: Planned, rounded: Profile) -> None:
    """What is told of other shares is what is chosen when they are asked for."""
    choice = with_execution(chosen, rounded, INT8)[1]
    assert list(choice.otherwise) == [0.3, 1.0, 3.0]
    assert sorted(choice.otherwise.values(), reverse=True) == list(choice.otherwise.values())
    for tolerated, share in choice.otherwise.items():
        found, other = with_execution(chosen, rounded, INT8, tolerated)
        assert other.share == share <= choice.share
        assert other.added <= tolerated * found.plan.total_damage
        assert other.otherwise[TOLERATED] == choice.share
        assert f"inputs_add 0.1 keeps {choice.share:.1%}, " in execution_sentence(other)
    assert not with_execution(chosen, rounded, INT8, 1e9)[1].kept
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(InputError, match=r"inputs_add=.*from 0 up"):
            with_execution(chosen, rounded, INT8, wrong)


def test_layers_that_are_float_anyway_are_not_rounded(rounded: Profile, planning_model: VGGT) -> None:
    name = rounded.layers[_worst(rounded)].name
    plan = planned(rounded, planning_model, parse_request("100%", formats="fp16"))
    assert with_execution(plan, rounded, INT8)[1].without == 0
    assert not with_execution(plan, rounded, INT8)[0].plan.executions
    assert name in plan.plan.formats


def test_what_cannot_be_executed_is_refused(planning_profile: Profile, rounded: Profile, planning_model: VGGT) -> None:
    groups = planned(rounded, planning_model, parse_request("60%", formats="int4_group_32"))
    with pytest.raises(InputError, match=r"execute.*does not run \d+ linear layers .*int4_group_32.*plan with"):
        with_execution(groups, rounded, INT8)
    without = planned(planning_profile, planning_model, parse_request("60%", formats=RUNS))
    with pytest.raises(InputError, match="no scores of inputs in 'int8_token'; it has none"):
        with_execution(without, planning_profile, INT8)
    guessed = replace(without, plan=replace(without.plan, score="fisher"))
    with pytest.raises(InputError, match="leave out"):
        with_execution(guessed, rounded, INT8)


def test_plans_from_before_have_no_exceptions(chosen: Planned, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save_plan(chosen.plan, path)
    values = json.loads(path.read_text())
    assert "executions" not in values
    assert load_plan(path) == chosen.plan
    path.write_text(json.dumps(sealed(values | {"executions": {"nobody": "bfloat16"}})))
    with pytest.raises(InputError, match="execution of 'nobody'"):
        load_plan(path)


def test_what_a_large_layer_makes_unnecessary_is_not_kept() -> None:
    layers = [Layer(name, "linear", "mlp", "b", (1, n), n) for name, n in (("small", 1), ("large", 100))]
    assert choose_float(layers, {"small": 0.5, "large": 10.0}, allowed=0.6) == ["large"]
    assert choose_float(layers, {"small": 0.5, "large": 10.0}, allowed=0.4) == ["small", "large"]
    assert choose_float(layers, {}, allowed=0.0) == []
