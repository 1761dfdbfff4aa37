"""Evidence and plans for what a calibrated rounding leaves of the damage."""

from dataclasses import replace

import numpy as np
import pytest

from mixedprec import Evidence, parse_request, planned
from mixedprec.evidence import TRUST
from sensitivity import Profile
from vggtkit.model.vggt import VGGT


@pytest.fixture
def evidence(signed_profile: Profile) -> Evidence:
    """Every second layer keeps a hundredth of its error; the first cannot be calibrated."""
    left = np.ones(signed_profile.size_bytes.shape)
    left[1::2] = 0.01
    left[0] = np.nan
    return Evidence.of(replace(signed_profile, roundings={"gptq": left}))


def test_damage_is_scaled_by_what_is_left_and_changes_by_its_root(evidence: Evidence) -> None:
    rounded = evidence.rounded("gptq")
    assert (evidence.rounding, rounded.rounding) == ("nearest", "gptq")
    for name, damage in evidence.damage.items():
        np.testing.assert_allclose(rounded.damage[name][1::2], 0.01 * damage[1::2])
        np.testing.assert_array_equal(rounded.damage[name][::2], damage[::2])
        np.testing.assert_array_equal(np.sign(rounded.changes[name]), np.sign(evidence.changes[name]))
        np.testing.assert_allclose(np.square(rounded.changes[name]).mean((2, 3)), rounded.damage[name], rtol=1e-4)
    assert rounded.uncalibrated == {evidence.layers[0].name}
    assert evidence.uncalibrated == frozenset()


def test_heads_that_are_left_out_take_their_layers_along(evidence: Evidence) -> None:
    fewer = evidence.with_heads(("camera",))
    assert fewer.roundings["gptq"].shape == fewer.size_bytes.shape
    assert fewer.rounded("gptq").total_damage.shape == fewer.size_bytes.shape


def test_a_plan_made_for_a_rounding_has_less_damage_under_it(evidence: Evidence, planning_model: VGGT) -> None:
    request = parse_request("int4_group_128", policy="optimal")
    rounded = evidence.rounded("gptq")
    before, after = (planned(source, planning_model, request) for source in (evidence, rounded))
    assert after.plan.size_bytes <= before.plan.budget_bytes
    assert after.plan.total_damage < 0.9 * after.search_space.damage(before.plan.formats)
    assert after.plan.provenance["damage_of"] == "gptq"
    assert "damage_of" not in before.plan.provenance


def test_damage_that_was_found_corrects_all_formats_of_a_layer(evidence: Evidence) -> None:
    first, second, third = (layer.name for layer in evidence.layers[:3])
    formats = {layer.name: "int4_group_64" for layer in evidence.layers}
    expected = evidence.total_damage[:, evidence.column("int4_group_64")]
    corrected = evidence.corrected(formats, {first: 10 * expected[0], second: 0.1 * expected[1], third: 0.0})
    factors = np.ones((len(evidence.layers), 1))
    factors[:2, 0] = 10**TRUST, 0.1**TRUST
    np.testing.assert_allclose(corrected.total_damage, factors * evidence.total_damage)
    for name, changes in corrected.changes.items():
        np.testing.assert_array_equal(np.sign(changes), np.sign(evidence.changes[name]))
        np.testing.assert_allclose(np.square(changes).mean((2, 3)), corrected.damage[name], rtol=1e-4)


def test_a_plan_gives_more_bytes_to_layers_that_were_found_to_do_more(evidence: Evidence, planning_model: VGGT) -> None:
    request = parse_request("int4_group_128", policy="optimal")
    before = planned(evidence, planning_model, request)
    formats = before.plan.formats
    damage = {own.name: evidence.of_format(row, formats[own.name])[1] for row, own in enumerate(evidence.layers)}
    found = {name: value * (100 if number % 2 else 0.01) for number, (name, value) in enumerate(damage.items())}
    after = planned(evidence.corrected(formats, found), planning_model, request)
    assert after.plan.size_bytes <= before.plan.budget_bytes
    bits = [sum(plan.layer_bytes[layer.name] for layer in evidence.layers[1::2]) for plan in (before.plan, after.plan)]
    assert bits[1] > bits[0]
