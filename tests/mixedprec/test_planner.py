"""Plans from a profile with real sizes and made-up damages: budgets kept to the byte, alternatives beside."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mixedprec import Evidence, Infeasible, Plan, make_plan, parse_budget, parse_request, read_budget, save_quantized
from mixedprec.checkpoint import overhead_bytes
from mixedprec.comparison import comparisons
from mixedprec.constraints import parse_constraints
from mixedprec.plan import load_plan, save_plan
from mixedprec.planner import Planned, layers_by_format, planned, unused_bytes
from mixedprec.resolve import budget_in_bytes
from sensitivity import Profile
from vggtkit.core.errors import InputError
from vggtkit.model import VGGT
from vggtkit.quant import UNIFORM_SCHEMES, candidates, get_format

pytestmark = pytest.mark.usefixtures("spoken_in_options")

CANDIDATES = candidates()

MakePlan = Callable[..., Plan]


@pytest.fixture
def plan_for(planning_model: VGGT, planning_profile: Profile) -> MakePlan:
    return lambda budget, **options: make_plan(planning_profile, planning_model, budget, **options)


def uniform_bytes(profile: Profile, model: VGGT, key: str, keep: str = "fp16") -> int:
    return overhead_bytes(model, keep) + int(profile.size_bytes[:, profile.column(key)].sum())


@pytest.fixture
def found_for(planning_model: VGGT, planning_profile: Profile) -> Callable[..., Planned]:
    return lambda budget, **options: planned(planning_profile, planning_model, parse_request(budget, **options))


DEFAULT = ("int8_per_channel_sym", "int4_two_level_64", "int4_two_level_16", "fp16")
RUNNABLE = tuple(key for key in CANDIDATES if key in ("int8_per_channel_sym", "fp16") or get_format(key).two_level)
INT8_INT4 = tuple(key for key in CANDIDATES if get_format(key).bits in (8, 4))


@pytest.mark.parametrize(
    ("scheme", "formats"),
    [(scheme, "all") for scheme in UNIFORM_SCHEMES]
    + [(scheme, "int8,int4") for scheme in UNIFORM_SCHEMES]
    + [(scheme, "auto") for scheme in ("int8_per_channel_sym", *UNIFORM_SCHEMES[4:])],
)
def test_at_the_bytes_of_a_uniform_scheme_the_plan_is_at_least_as_good(
    plan_for: MakePlan, planning_model: VGGT, planning_profile: Profile, scheme: str, formats: str
) -> None:
    size = uniform_bytes(planning_profile, planning_model, scheme)
    uniform = planning_profile.total_damage[:, planning_profile.column(scheme)].sum()
    by_bytes, by_name = plan_for(f"{size}B", formats=formats), plan_for(scheme, formats=formats)
    assert by_bytes.budget_bytes == by_name.budget_bytes == size
    assert by_bytes.formats == by_name.formats
    assert by_bytes.size_bytes <= size
    assert by_bytes.total_damage <= uniform
    assert by_bytes.optimal
    assert by_bytes.bound == pytest.approx(by_bytes.total_damage)


@pytest.mark.parametrize("policy", ["optimal", "sensitive"])
@pytest.mark.parametrize("share", [0.0, 1e-5, 0.1, 0.5, 1.0, 1.5])
def test_no_plan_is_over_its_budget(
    plan_for: MakePlan, planning_model: VGGT, planning_profile: Profile, policy: str, share: float
) -> None:
    low, high = (uniform_bytes(planning_profile, planning_model, key) for key in ("int4_group_128", UNIFORM_SCHEMES[3]))
    budget = int(low + share * (high - low))
    plan = plan_for(f"{budget}B", policy=policy)
    assert plan.size_bytes <= plan.budget_bytes == budget
    assert plan.policy == policy
    assert plan.bound <= plan.total_damage * (1 + 1e-9)
    assert plan.optimal == (policy == "optimal")
    damage = planning_profile.total_damage
    for row, layer in enumerate(planning_profile.layers):
        column = planning_profile.column(plan.formats[layer.name])
        assert plan.layer_bytes[layer.name] == planning_profile.size_bytes[row, column]
    assert plan.total_damage == pytest.approx(
        sum(damage[row, CANDIDATES.index(key)] for row, key in enumerate(plan.formats.values()))
    )
    assert np.mean(list(plan.predicted_damage.values())) == pytest.approx(plan.total_damage)
    rows = range(len(planning_profile.layers))
    columns = [CANDIDATES.index(key) for key in plan.formats.values()]
    for name, values in planning_profile.damage.items():
        assert plan.predicted_damage[name] == pytest.approx(values[rows, columns].sum())


@pytest.mark.parametrize("keep", ["fp16", "fp32"])
@pytest.mark.parametrize(
    ("options", "floor"),
    [
        ({}, RUNNABLE),
        ({"formats": "all"}, CANDIDATES),
        ({"policy": "sensitive"}, ("int4_group_128", "int4_group_64", "int4_group_32")),
        ({"formats": "int8"}, UNIFORM_SCHEMES[:4]),
    ],
    ids=["auto", "all", "sensitive", "int8"],
)
def test_the_refusal_names_the_very_minimum(
    planning_model: VGGT, planning_profile: Profile, options: dict[str, str], floor: tuple[str, ...], keep: str
) -> None:
    """The named size works, a byte less does not."""
    options = {"policy": "optimal"} | options
    columns = [planning_profile.column(key) for key in floor]
    minimum = overhead_bytes(planning_model, keep) + int(planning_profile.size_bytes[:, columns].min(axis=1).sum())
    with pytest.raises(Infeasible, match=rf"raise the budget to {minimum}B") as caught:
        make_plan(planning_profile, planning_model, f"{minimum - 1}B", keep=keep, **options)
    assert (caught.value.minimum_bytes, caught.value.budget_bytes) == (minimum, minimum - 1)
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)
    plan = make_plan(planning_profile, planning_model, f"{minimum}B", keep=keep, **options)
    assert plan.size_bytes == minimum


@pytest.mark.parametrize(
    ("options", "named", "advice"),
    [
        ({}, "INT2 [a-z0-9 -]*", None),
        ({"formats": "int4"}, "INT4 groups of 128", r"or allow 3-bit groups \(--formats \+int3\)"),
        ({"strict": True}, "INT4 two-level groups of 64", r"or allow 3-bit groups \(without --strict\)"),
        ({"policy": "sensitive"}, None, r"3-bit groups \(--policy optimal\)"),
        ({"policy": "sensitive", "formats": "int4"}, None, r"3-bit groups \(--policy optimal --formats \+int3\)"),
    ],
    ids=["auto", "int4", "strict", "sensitive", "sensitive-int4"],
)
def test_the_refusal_says_what_would_help(
    plan_for: MakePlan, options: dict[str, str], named: str | None, advice: str | None
) -> None:
    what = f"(every layer|most layers) at {named}" if named else "of this policy, which starts at INT4 groups"
    message = rf"no plan fits --budget 1KB \(1\.000 kB\): the smallest file, {what}, needs .* [kM]B; raise"
    with pytest.raises(Infeasible, match=message) as caught:
        plan_for("1KB", **options)
    if advice:
        caught.match(advice)
    else:
        assert "-bit" not in str(caught.value)
    caught.match(r"leave heads out \(--heads camera,depth\)$")


def test_a_refusal_under_constraints_names_the_option_that_adds_formats(
    planning_profile: Profile, planning_model: VGGT
) -> None:
    """Without them the budget is roomy, so `auto` has not gone below INT4 by itself."""
    request = parse_request("int8_per_channel_sym", constraints=parse_constraints(pin=("*=fp32",)))
    with pytest.raises(Infeasible, match=r"or allow 3-bit groups \(--formats \+int3\)"):
        planned(planning_profile, planning_model, request)


def test_automatic_formats_widen_only_where_the_budget_is_tight(
    found_for: Callable[..., Planned], planning_model: VGGT, planning_profile: Profile
) -> None:
    columns = [planning_profile.column(key) for key in DEFAULT]
    smallest = overhead_bytes(planning_model) + int(planning_profile.size_bytes[:, columns].min(axis=1).sum())
    tight, loose = found_for(f"{int(1.09 * smallest)}B"), found_for(f"{int(1.11 * smallest)}B")
    assert {get_format(key).bits for key in tight.plan.formats.values()} & {2, 3}
    assert (tight.widened, loose.widened) == (smallest, None)
    assert tuple(tight.plan.provenance["allowed_formats"]) == tight.palette == RUNNABLE
    assert set(loose.plan.formats.values()) <= set(DEFAULT)
    assert tuple(loose.plan.provenance["allowed_formats"]) == loose.palette == DEFAULT
    columns = [planning_profile.column(key) for key in INT8_INT4]
    floor = overhead_bytes(planning_model) + int(planning_profile.size_bytes[:, columns].min(axis=1).sum())
    for options, least, keys in (({"formats": "int8,int4"}, floor, INT8_INT4), ({"strict": True}, smallest, DEFAULT)):
        strict = found_for(f"{least}B", **options)
        assert set(strict.plan.formats.values()) <= set(keys)
        with pytest.raises(Infeasible):
            found_for(f"{least - 1}B", **options)
    assert set(found_for("90%", formats="int4_group_64").plan.formats.values()) == {"int4_group_64"}


@pytest.mark.parametrize("text", ["4.6bpw", "20%", "0.1MB", "90KiB", "int8_per_channel_sym"])
def test_budgets_are_sizes_or_names_of_schemes(planning_model: VGGT, planning_profile: Profile, text: str) -> None:
    parameters = sum(parameter.numel() for parameter in planning_model.parameters())
    found = budget_in_bytes(read_budget(text), Evidence.of(planning_profile), overhead_bytes(planning_model))
    if text in CANDIDATES:
        assert found == uniform_bytes(planning_profile, planning_model, text)
    else:
        assert found == parse_budget(text, parameters=parameters, fp32_bytes=4 * parameters)
    expected = {"4.6bpw": int(4.6 * parameters / 8), "20%": int(0.8 * parameters), "0.1MB": 100_000, "90KiB": 92_160}
    assert found == expected.get(text, found)


@pytest.mark.parametrize(
    ("budget", "options", "message"),
    [
        ("12parsecs", {}, "budget '12parsecs' has the unknown unit 'parsecs'"),
        ("int5", {}, "budget 'int5' is not a positive size"),
        ("50%", {"policy": "greedy"}, "--policy greedy: not known; choose one of auto, joint, optimal, sensitive"),
        ("50%", {"formats": "int7"}, "'int7' matches none of the scored formats"),
        ("50%", {"keep": "bf16"}, "keep is 'bf16'"),
        ("50%", {"policy": "sensitive", "formats": "int8"}, "allows no INT4 group format .* use the policy 'optimal'"),
    ],
)
def test_what_is_not_known_is_refused(plan_for: MakePlan, budget: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        plan_for(budget, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("policy", ["optimal", "sensitive"])
def test_comparisons_hold_every_alternative(
    found_for: Callable[..., Planned], planning_profile: Profile, policy: str
) -> None:
    found = found_for("int4_group_64", policy=policy)
    plan = found.plan
    first, *others = comparisons(found)
    assert (first.title, first.size_bytes, first.predicted) == (f"plan ({policy})", plan.size_bytes, plan.total_damage)
    titles = [row.title for row in others]
    assert titles[:7] == [get_format(key).short_title for key in UNIFORM_SCHEMES]
    other = "sensitive" if policy == "optimal" else "optimal"
    rules = ["first and last layers", "attention and heads", "inverted score"]
    expected = [f"policy {other}", *rules, *(f"random {seed}" for seed in range(5))]
    assert titles[7:] == [f"{title}, same budget" for title in expected]
    for row, scheme in zip(others[:7], UNIFORM_SCHEMES, strict=True):
        column = planning_profile.column(scheme)
        assert row.size_bytes == plan.overhead_bytes + planning_profile.size_bytes[:, column].sum()
        assert row.predicted == pytest.approx(planning_profile.total_damage[:, column].sum())
        assert row.measured == pytest.approx(planning_profile.total_uniform[UNIFORM_SCHEMES.index(scheme)])
    for row in others[7:]:
        assert row.size_bytes <= plan.budget_bytes
        assert row.measured is None
        if policy == "optimal":
            assert row.predicted >= plan.total_damage
    by_title = {row.title: row.predicted for row in others}
    if policy == "optimal":
        assert by_title["inverted score, same budget"] > plan.total_damage


def test_comparisons_leave_out_a_policy_that_does_not_fit(
    found_for: Callable[..., Planned], planning_model: VGGT, planning_profile: Profile
) -> None:
    """With fewer bits a plan goes below what ``sensitive`` needs at least."""
    below = uniform_bytes(planning_profile, planning_model, "int4_group_128") - 1000
    for found in (found_for(f"{below}B"), found_for("int8_per_channel_sym", formats="int8")):
        titles = [row.title for row in comparisons(found)]
        assert "policy sensitive, same budget" not in titles
        assert "inverted score, same budget" in titles


@pytest.mark.parametrize(
    "options", [{}, {"policy": "sensitive"}, {"formats": "int4"}], ids=["optimal", "sensitive", "int4"]
)
def test_a_budget_that_does_not_bind_is_told_with_what_it_leaves(
    found_for: Callable[..., Planned], options: dict[str, str]
) -> None:
    loose = found_for("100%", **options)
    spare = unused_bytes(loose)
    assert spare == loose.plan.budget_bytes - loose.plan.size_bytes > 0
    exact = found_for(f"{loose.plan.size_bytes}B", **options)
    assert exact.plan.formats == loose.plan.formats
    assert unused_bytes(exact) == 0
    bound = found_for(f"{loose.plan.size_bytes - 1}B", **options)
    assert bound.plan.formats != loose.plan.formats
    assert unused_bytes(bound) == 0


def test_formats_are_counted_most_frequent_first(plan_for: MakePlan) -> None:
    plan = plan_for("int4_group_32")
    counts = layers_by_format(plan)
    assert sum(counts.values()) == len(plan.formats)
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert all(list(plan.formats.values()).count(key) == count for key, count in counts.items())


@pytest.mark.parametrize("keep", ["fp16", "fp32"])
@pytest.mark.parametrize("options", [{}, {"policy": "sensitive"}], ids=["optimal", "sensitive"])
def test_the_bytes_of_a_plan_are_those_of_its_file(
    plan_for: MakePlan, planning_model: VGGT, tmp_path: Path, options: dict[str, str], keep: str
) -> None:
    """To the byte, at a budget in the middle; and the plan survives its own file."""
    plan = plan_for("28%", keep=keep, **options)
    path = tmp_path / "model-plan.safetensors"
    save_quantized(planning_model, plan.formats, path, keep=plan.keep)
    assert path.stat().st_size == plan.size_bytes <= plan.budget_bytes
    save_plan(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan
