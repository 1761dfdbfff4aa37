"""A request is read once and resolved once; nothing that is given is changed, and any budget can be solved."""

import copy
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from analysis.report.plan_tables import plan_sentences, plan_tables
from mixedprec import (
    Budget,
    Constraints,
    Evidence,
    FormatChoice,
    Infeasible,
    Request,
    parse_constraints,
    parse_request,
    planned,
    read_budget,
    replanned,
    resolve,
    solve_plan,
)
from mixedprec.constraints import LeastBits, Pin, RoleFormats
from mixedprec.evidence import SKETCH
from sensitivity import Profile
from vggtkit.core.errors import InputError
from vggtkit.model import VGGT
from vggtkit.quant import UNIFORM_SCHEMES
from vggtkit.subject import subject_of


def test_text_becomes_typed_values() -> None:
    constraints = parse_constraints(
        pin=["a.*=int4_group_32"], keep_fp=["b"], group=["block"], role=["mlp=+int3"], min_bits=["attention=4"]
    )
    assert constraints == Constraints(
        (Pin("a.*", "int4_group_32"),), ("b",), ("block",),
        (RoleFormats("mlp", FormatChoice("named", ("int3",), added=True)),), (LeastBits("attention", 4),),
    )  # fmt: skip
    request = parse_request(
        "4.2bpw", policy="optimal", formats="int8, int4", keep="fp32", strict=True, heads="depth, camera",
        weights_for="depth=2,pose=0.5", constraints=constraints,
    )  # fmt: skip
    assert request == Request(
        Budget("parameter", Fraction(42, 80), "4.2bpw"), "optimal",
        FormatChoice("named", ("int8", "int4"), strict=True), "fp32", ("camera", "depth"), {"depth": 2.0, "pose": 0.5},
        constraints,
    )  # fmt: skip
    assert request.as_facts() == {
        "constraints": {
            "pins": ["a.*=int4_group_32"], "keep_fp": ["b"], "groups": ["block"], "roles": ["mlp=+int3"],
            "min_bits": ["attention=4"],
        },
        "weights_for": "depth=2,pose=0.5",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["int4", "int8", "int3", "int4_two_level"])
def test_a_half_named_scheme_lists_those_that_it_could_be(text: str) -> None:
    with pytest.raises(
        InputError, match=rf"budget '{text}' is not a positive size, nor is it one of the schemes"
    ) as caught:
        read_budget(text)
    named = str(caught.value).partition("schemes ")[2].partition(";")[0].split(", ")
    assert named
    assert all(key.startswith(f"{text}_") for key in named)
    assert "\n" not in str(caught.value)


def test_a_library_call_is_told_of_keywords_and_not_of_options(planning_profile: Profile, planning_model: VGGT) -> None:
    with pytest.raises(Infeasible, match=r"no plan fits budget='1KB'.* or leave heads out \(heads='camera,depth'\)$"):
        planned(planning_profile, planning_model, parse_request("1KB"))
    for build, message in (
        (lambda: parse_request("1MB", policy="greedy"), r"^policy='greedy': not known"),
        (lambda: parse_constraints(pin=["a"]), r"^pin='a': write PATTERN=FORMAT"),
        (lambda: parse_constraints(min_bits=["mlp"]), r"^min_bits='mlp': write ROLE=BITS"),
        (lambda: parse_request("1MB", weights_for="depth"), r"^weights_for: 'depth' is not of the form"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            build()
        assert "--" not in str(caught.value)


def test_nothing_that_is_given_is_changed(planning_profile: Profile, planning_model: VGGT) -> None:
    evidence, subject = Evidence.of(planning_profile), subject_of(planning_model)
    before = {name: values.copy() for name, values in evidence.damage.items()}
    layers, state = subject.layers, {name: value.clone() for name, value in planning_model.state_dict().items()}
    constraints = parse_constraints(pin=["camera_head.*=int8_per_channel_sym"], group=["depth_head.projects.*"])
    request = parse_request("30%", heads="camera,depth", weights_for="depth=3", constraints=constraints)
    asked = copy.deepcopy(request)
    resolved = resolve(request, evidence, subject)
    solve_plan(resolved, resolved.budget_bytes + 1000)
    assert request == asked
    assert evidence.weights == {}
    assert list(evidence.damage) == list(before)
    for name, values in before.items():
        np.testing.assert_array_equal(evidence.damage[name], values)
    assert subject.layers is layers
    assert subject.heads == planning_model.config.heads == ("camera", "depth", "point", "track")
    assert all(state[name].equal(value) for name, value in planning_model.state_dict().items())


@pytest.mark.parametrize("policy", ["optimal", "sensitive"])
def test_a_resolved_request_is_solved_at_any_budget(
    planning_profile: Profile, planning_model: VGGT, policy: str
) -> None:
    """As if it had been asked for that budget; a rule is followed by the optimum within it."""
    request = parse_request("int4_group_64", policy=policy, formats="int8,int4")
    start = planned(planning_profile, planning_model, request)
    for extra in (0, 1, 5000):
        budget = start.plan.budget_bytes + extra
        direct = planned(planning_profile, planning_model, replace(request, budget=Budget.of_bytes(budget)))
        solved = solve_plan(start.resolved, budget)
        assert solved.plan.formats == direct.plan.formats
        assert solved.plan.budget_bytes == direct.plan.budget_bytes == budget
        best = planned(
            planning_profile, planning_model, replace(request, policy="optimal", budget=Budget.of_bytes(budget))
        )
        assert replanned(start, budget).plan.formats == best.plan.formats
    assert solve_plan(start.resolved).plan.budget_text == "int4_group_64"


def test_a_plan_from_another_score_says_so(planning_profile: Profile, planning_model: VGGT) -> None:
    """Its formats are the score's, its damage in the score's unit, and nothing is known of signs."""
    evidence = Evidence.of(planning_profile)
    generator = np.random.default_rng(3)
    values = generator.uniform(1, 2, (len(evidence.layers), 1)) * np.linspace(1, 2, len(UNIFORM_SCHEMES))
    scored = evidence.scored("isolated_mae", dict.fromkeys(evidence.damage, values), UNIFORM_SCHEMES)
    found = planned(scored, planning_model, parse_request("int4_group_64"))
    assert (found.plan.score, found.plan.policy) == ("isolated_mae", "optimal")
    assert found.palette == UNIFORM_SCHEMES
    rows = [values[row, UNIFORM_SCHEMES.index(key)] for row, key in enumerate(found.plan.formats.values())]
    assert found.plan.total_damage == pytest.approx(sum(rows))
    assert any("Planned from the score 'isolated MAE'" in line for line in plan_sentences(found))
    assert "unit of the score 'isolated MAE'" in str(plan_tables(found)[2].title)
    assert evidence.score == SKETCH
    with pytest.raises(InputError, match="nothing says what layers do together"):
        planned(scored, planning_model, parse_request("int4_group_64", policy="joint"))


def test_a_scheme_that_was_not_scored_is_no_budget(planning_profile: Profile, planning_model: VGGT) -> None:
    with pytest.raises(InputError, match="no scores for 'int2_group_16'"):
        planned(planning_profile, planning_model, parse_request("int2_group_16"))


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("track_head.input_transform", "track_head.tracker.updateformer.input_transform"),
        ("frame.0 attn.qkv", "aggregator.frame_blocks.0.attn.qkv"),
        ("frame.0 *.qkv", "aggregator.frame_blocks.0.attn.qkv"),
        ("input_transform", "track_head.tracker.updateformer.input_transform"),
        ("camera_head.embed_pose", "camera_head.embed_pose"),
    ],
)
def test_names_that_tables_print_can_be_pinned(
    planning_profile: Profile, planning_model: VGGT, name: str, full: str
) -> None:
    for constraints, key in (
        (parse_constraints(pin=[f"{name}=int8_per_channel_asym"]), "int8_per_channel_asym"),
        (parse_constraints(keep_fp=[name]), "fp16"),
    ):
        formats = planned(planning_profile, planning_model, parse_request("60%", constraints=constraints)).plan.formats
        assert formats[full] == key
