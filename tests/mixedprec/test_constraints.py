"""Pins, kept layers, shared formats, formats and bits by role; conflicts are named."""

import itertools

import numpy as np
import pytest

from mixedprec import Evidence, parse_constraints, parse_request, planned
from mixedprec.constraints import allowed_formats, shared_groups
from mixedprec.evidence import parse_weights
from mixedprec.policies import optimal
from mixedprec.search_space import SearchSpace
from sensitivity import Profile
from vggtkit.core.errors import InputError
from vggtkit.model import VGGT
from vggtkit.quant import Layer, candidates, get_format

pytestmark = pytest.mark.usefixtures("spoken_in_options")

CANDIDATES = candidates()

LAYERS = [Layer(name, "linear", role, block, (4, 32), 128) for name, role, block in [
    ("a.q", "attention", "frame.0"), ("a.k", "attention", "frame.0"), ("a.fc", "mlp", "frame.0"),
    ("head.fc", "depth_head", "depth_head"),
]]  # fmt: skip
PALETTE = ("int8_per_channel_sym", "int4_group_32")


def allowed(**asked: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return allowed_formats(LAYERS, parse_constraints(**asked), PALETTE, CANDIDATES, never_quantized=["a.norm1.weight"])


def test_a_pin_wins_over_the_palette_and_speaks_of_nobody_else() -> None:
    found = allowed(pin=("a.[qk]=int3_group_64",), keep_fp=("head.*",))
    assert found == {
        "a.q": ("int3_group_64",), "a.k": ("int3_group_64",), "a.fc": PALETTE, "head.fc": ("fp16",)
    }  # fmt: skip


def test_roles_have_formats_of_their_own_and_least_bits() -> None:
    assert allowed(role=("mlp=int3_group",))["a.fc"] == ("int3_group_128", "int3_group_64", "int3_group_32")
    found = allowed(min_bits=("attention=5",))
    assert found["a.q"] == found["a.k"] == ("int8_per_channel_sym",)
    assert found["a.fc"] == PALETTE


def test_what_is_kept_anyway_may_be_named() -> None:
    assert allowed(keep_fp=("*.norm*",)) == dict.fromkeys((layer.name for layer in LAYERS), PALETTE)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"pin": ("b.*=int4_group_32",)}, r"--pin b.\*=int4_group_32: no layer matches; layers are named like a.q"),
        ({"pin": ("a.q",)}, "write PATTERN=FORMAT"),
        ({"pin": ("a.q=int9",)}, "unknown format 'int9'"),
        ({"pin": ("a.q=int2_group_16",)}, "no scores for int2_group_16"),
        ({"keep_fp": ("nope*",)}, r"--keep-fp nope\*: no layer matches"),
        (
            {"pin": ("a.*=int4_group_32", "a.q=int8_per_channel_sym")},
            r"a.q: --pin a.q=int8_per_channel_sym contradicts --pin a.\*=int4_group_32",
        ),
        (
            {"pin": ("a.q=int4_group_32",), "min_bits": ("attention=8",)},
            "a.q: --min-bits attention=8 contradicts --pin a.q=int4_group_32",
        ),
        ({"min_bits": ("attention=16",)}, "a.q: --min-bits attention=16 contradicts --formats"),
        ({"min_bits": ("mlp=lots",)}, "bits are 'lots'"),
        ({"min_bits": ("nobody=4",)}, "a role among attention, mlp, depth_head"),
        ({"role": ("mlp=int7",)}, "--role mlp=int7: 'int7' matches none"),
    ],
)
def test_conflicts_and_mistakes_are_named_in_one_line(asked: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        allowed(**asked)
    assert "\n" not in str(caught.value)


def test_groups_that_overlap_are_one() -> None:
    assert shared_groups(LAYERS, ["a.[qk]", "*.fc"]) == [
        ("a.q", "a.k"), ("a.fc", "head.fc")
    ]  # fmt: skip
    assert shared_groups(LAYERS, ["a.[qk]", "a.*"]) == [("a.q", "a.k", "a.fc")]
    assert shared_groups(LAYERS, ["block"]) == [("a.q", "a.k")]
    assert shared_groups(LAYERS, ["shared-input"], [("a.q", "a.fc")]) == [("a.q", "a.fc")]
    with pytest.raises(InputError, match=r"--group a\.q: matches 1 layers"):
        shared_groups(LAYERS, ["a.q"])


def test_a_plan_with_shared_formats_is_the_best_of_all_that_share(planning_profile: Profile) -> None:
    """Against brute force: two groups of two, one free layer, three formats."""
    keys = ("int8_per_channel_sym", "int4_group_32", "int3_group_64")
    evidence = Evidence.of(planning_profile)
    rows = [0, 1, 2, 3, 4]
    few = Evidence(
        "few", evidence.facts, tuple(evidence.layers[row] for row in rows), evidence.candidates,
        evidence.size_bytes[rows], {name: values[rows] for name, values in evidence.damage.items()},
    )  # fmt: skip
    names = [layer.name for layer in few.layers]
    groups = [(names[0], names[3]), (names[1], names[2])]
    space = SearchSpace(few, dict.fromkeys(names, keys), groups)
    columns = [CANDIDATES.index(key) for key in keys]
    sizes, damages = few.size_bytes[:, columns], few.total_damage[:, columns]
    options = [
        (sum(sizes[row, pick[of]] for row, of in enumerate((0, 1, 1, 0, 2))),
         sum(damages[row, pick[of]] for row, of in enumerate((0, 1, 1, 0, 2))), pick)
        for pick in itertools.product(range(3), repeat=3)
    ]  # fmt: skip
    for budget in sorted({size for size, _, _ in options})[::5]:
        best = min(damage for size, damage, _ in options if size <= budget)
        problem = space.problem(int(budget))
        found = space.expanded(optimal(problem))
        assert found[names[0]] == found[names[3]]
        assert found[names[1]] == found[names[2]]
        assert space.damage(found) == pytest.approx(best, rel=1e-12)
        assert sum(space.layer_bytes(found).values()) <= budget


def test_constraints_hold_in_a_plan_and_cost_what_they_cost(planning_model: VGGT, planning_profile: Profile) -> None:
    free = planned(planning_profile, planning_model, parse_request("30%", formats="all"))
    asked = parse_constraints(
        pin=("camera_head.*=int8_per_channel_sym",), keep_fp=("depth_head.projects.*",), min_bits=("attention=5",),
        group=("point_head.projects.*",), role=("mlp=int4",),
    )  # fmt: skip
    found = planned(planning_profile, planning_model, parse_request("30%", formats="all", constraints=asked))
    for layer in planning_profile.layers:
        key = found.plan.formats[layer.name]
        if layer.role == "camera_head":
            assert key == "int8_per_channel_sym"
        if layer.name.startswith("depth_head.projects."):
            assert key == "fp16"
        if layer.role == "attention":
            assert get_format(key).bits >= 5
        if layer.role == "mlp":
            assert get_format(key).bits == 4
    shared = {key for name, key in found.plan.formats.items() if name.startswith("point_head.projects.")}
    assert len(shared) == 1
    assert found.plan.size_bytes <= found.plan.budget_bytes
    assert found.plan.total_damage >= free.plan.total_damage
    assert found.plan.provenance["constraints"]["pins"] == ["camera_head.*=int8_per_channel_sym"]
    kept = planned(
        planning_profile,
        planning_model,
        parse_request("40%", keep="fp32", constraints=parse_constraints(keep_fp=("*embed_pose",))),
    )
    assert kept.plan.formats["camera_head.embed_pose"] == "fp32"


def test_weights_of_outputs_change_what_is_spared(planning_model: VGGT, planning_profile: Profile) -> None:
    depth_only = "pose=0,points=0,tracks=0"
    found = planned(planning_profile, planning_model, parse_request("25%", weights_for=depth_only))
    plain = planned(planning_profile, planning_model, parse_request("25%"))
    both = ("depth", "depth_conf")
    assert sum(found.plan.predicted_damage[name] for name in both) < sum(
        plain.plan.predicted_damage[name] for name in both
    )
    assert found.plan.total_damage == pytest.approx(np.mean([found.plan.predicted_damage[name] for name in both]))
    assert found.plan.provenance["weights_for"] == depth_only
    evidence = Evidence.of(planning_profile).weighted(parse_weights("depth=2, pose=1"))
    assert evidence.shares()["depth"] == pytest.approx(2 / 10)
    assert evidence.shares()["pose_enc"] == pytest.approx(1 / 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depht=2", "'depht=2' is not of the form"),
        ("depth", "is not of the form"),
        ("depth=-1", "weight of depth is '-1'"),
        ("depth=inf", "weight of depth is 'inf'"),
        ("pose=0,depth=0,points=0,tracks=0", "every output has weight 0"),
    ],
)
def test_weights_that_say_nothing_are_refused(planning_profile: Profile, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Evidence.of(planning_profile).weighted(parse_weights(text))
