"""Plans within a time and a memory: the limits are kept, the least is named, and brute force finds nothing better."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixedprec import Evidence, Plan, parse_constraints, parse_request, resolve, solve_plan
from mixedprec.plan import load_plan, save_plan
from mixedprec.timing import Conditions, read_memory, read_time
from sensitivity import Profile
from vggtkit.core.errors import InputError
from vggtkit.model import VGGT
from vggtkit.quant import Layer
from vggtkit.runtime.codes import is_int8
from vggtkit.runtime.kernel_table import KernelTable, LayerRow, PassTimes, this_machine
from vggtkit.subject import subject_of

pytestmark = pytest.mark.usefixtures("spoken_in_options")
WAYS = {"plain": 1.0, "fp32": 1.1, "bfloat16": 0.5, "int8": 0.3}
REST = 0.01


def made_table(layers: tuple[Layer, ...], heads: tuple[str, ...]) -> KernelTable:
    """Nanoseconds proportional to the weights, whole numbers faster than bfloat16 faster than FP32."""
    generator = np.random.default_rng(0)
    seconds = {
        layer.name: {
            how: 1e-7 * layer.weights * factor * generator.uniform(0.8, 1.2)
            for how, factor in WAYS.items()
            if how != "int8" or layer.kind == "linear"
        }
        for layer in layers
    }
    rest = {"plain": {"rest": 2 * REST}, "backend": {"rest": REST}}
    one = PassTimes(2, seconds, dict.fromkeys(seconds, 1.0), rest)
    rows = {layer.name: LayerRow(layer.kind, layer.shape, "rest") for layer in layers}
    return KernelTable("small", 2, (28, 28), heads, this_machine(), "made up", rows, {}, {}, {}, (one,))


@pytest.fixture(scope="module")
def table(planning_profile: Profile, planning_model: VGGT) -> KernelTable:
    return made_table(planning_profile.layers, planning_model.config.heads)


@pytest.fixture
def plan_for(planning_model: VGGT, planning_profile: Profile, table: KernelTable) -> Callable[..., Plan]:
    """With what execution in whole numbers does: as much as a format of 7 bits."""
    evidence = Evidence.of(planning_profile)
    column = evidence.column("int8_per_channel_sym")
    of_inputs = {name: 4 * values[:, column] for name, values in evidence.damage.items()}

    def plan(budget: str, activation_bytes: int = 0, **options: str) -> Plan:
        request = parse_request(budget, **options)
        if request.conditions is not None:
            known = replace(request.conditions, views=2, table=table, activation_bytes=activation_bytes)
            request = replace(request, conditions=known)
        return solve_plan(resolve(request, replace(evidence, input_damage=of_inputs), subject_of(planning_model))).plan

    return plan


def seconds_of(plan: Plan, table: KernelTable) -> float:
    return REST + sum(table.passes[0].seconds[name][how] for name, how in plan.executions.items())


@pytest.mark.parametrize("policy", ["optimal"])
@pytest.mark.parametrize("share", [0.5, 0.6, 0.8, 2.0])
def test_a_plan_keeps_its_time_and_its_bytes(
    plan_for: Callable[..., Plan], table: KernelTable, share: float, policy: str
) -> None:
    fp32 = 2 * REST + sum(ways["plain"] for ways in table.passes[0].seconds.values())
    plan = plan_for("30%", max_time=f"{share}x", policy=policy)
    assert plan.executions.keys() == plan.formats.keys()
    assert plan.size_bytes <= plan.budget_bytes
    assert seconds_of(plan, table) <= share * fp32 + 1e-9
    assert plan.takes["seconds"] == pytest.approx(seconds_of(plan, table), abs=1e-6)
    assert plan.takes["fp32_seconds"] == pytest.approx(fp32)
    assert all(is_int8(plan.formats[name]) for name, how in plan.executions.items() if how == "int8")
    assert plan.bound <= plan.total_damage * (1 + 1e-9)
    assert plan.total_damage == pytest.approx(plan.bound, rel=1e-4)
    assert np.mean(list(plan.predicted_damage.values())) == pytest.approx(plan.total_damage)


def test_less_time_costs_damage_and_no_limit_costs_none(plan_for: Callable[..., Plan]) -> None:
    damages = [plan_for("30%", max_time=f"{share}x").total_damage for share in (0.48, 0.55, 0.7, 1.0, 5.0)]
    assert damages == sorted(damages, reverse=True)
    assert damages[0] > 1.01 * damages[-1]
    assert damages[-1] == pytest.approx(plan_for("30%").total_damage)


def test_three_open_layers_equal_exhaustive_search(
    plan_for: Callable[..., Plan], planning_profile: Profile, table: KernelTable
) -> None:
    """All others are pinned; every format and execution of three is tried."""
    evidence, layers = Evidence.of(planning_profile), planning_profile.layers
    free = [layer for layer in layers if layer.kind == "linear"][:3]
    pins = [f"{layer.name}=int8_per_channel_sym" for layer in layers if layer not in free]
    constraints = parse_constraints(pin=pins)
    loose = plan_for("100%", constraints=constraints, formats="runnable", max_time="9x")
    limit = loose.takes["seconds"] - 1e-7 * sum(layer.weights for layer in free) * 0.5
    plan = plan_for("100%", constraints=constraints, formats="runnable", max_time=f"{limit:.9f}s")
    pinned = sum(table.passes[0].seconds[la.name][plan.executions[la.name]] for la in layers if la not in free)
    damage, column = evidence.total_damage, evidence.column("int8_per_channel_sym")
    keys = plan.provenance["allowed_formats"]
    best = np.inf
    rows = [layers.index(layer) for layer in free]
    for picks in itertools.product(itertools.product(keys, ("fp32", "bfloat16", "int8")), repeat=3):
        if any(how == "int8" and not is_int8(key) for key, how in picks):
            continue
        seconds = (
            REST + pinned + sum(table.passes[0].seconds[la.name][how] for la, (_, how) in zip(free, picks, strict=True))
        )
        if seconds <= limit:
            harm = sum(
                damage[row, evidence.column(key)] + (4 * damage[row, column] if how == "int8" else 0)
                for row, (key, how) in zip(rows, picks, strict=True)
            )
            best = min(best, harm)
    others = sum(
        damage[row, column] * (5 if plan.executions[la.name] == "int8" else 1)
        for row, la in enumerate(layers)
        if la not in free
    )
    assert plan.total_damage <= (best + others) * (1 + 1e-9)


def test_a_time_below_the_least_is_refused_with_the_least_that_then_works(plan_for: Callable[..., Plan]) -> None:
    with pytest.raises(InputError, match=r"--max-time 1ms: the least possible is ([0-9.]+)s \(0\.[0-9]+x\)") as caught:
        plan_for("30%", max_time="1ms")
    assert "\n" not in str(caught.value)
    least = str(caught.value).partition("possible is ")[2].partition("s")[0]
    assert plan_for("30%", max_time=f"{least}s").takes["seconds"] <= float(least)
    with pytest.raises(InputError, match="the least possible"):
        plan_for("30%", max_time=f"{float(least) - 2e-4}s")


def test_memory_counts_weights_and_activations(plan_for: Callable[..., Plan], planning_model: VGGT) -> None:
    plan = plan_for("100%", max_memory="3MB", activation_bytes=10**6)
    quantised = sum(layer.weights for layer in subject_of(planning_model).layers)
    kept = 4 * (sum(p.numel() for p in planning_model.parameters()) - quantised)
    assert kept + 10**6 < plan.takes["memory_bytes"] <= 3 * 10**6
    with pytest.raises(InputError, match=r"--max-memory 1MB: the least possible is [0-9]+B .* 1.00 MB are "):
        plan_for("100%", max_memory="1MB", activation_bytes=10**6)


def test_a_plan_without_limits_says_nothing_of_executions(plan_for: Callable[..., Plan], tmp_path: Path) -> None:
    for options, fields in (({}, set()), ({"max_time": "0.6x"}, {"executions", "takes"})):
        plan = plan_for("30%", **options)
        save_plan(plan, tmp_path / "plan.json")
        text = (tmp_path / "plan.json").read_text()
        assert {name for name in ("executions", "takes") if f'"{name}"' in text} == fields
        assert load_plan(tmp_path / "plan.json") == plan


def test_a_rule_knows_nothing_of_time() -> None:
    with pytest.raises(InputError, match="--policy sensitive: a rule knows nothing of time"):
        parse_request("30%", policy="sensitive", max_time="1s")


@pytest.mark.parametrize("text", ["", "fast", "0s", "3", "-1s", "5h", "1e3s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"write it as 15s, 800ms, 2min or 0\.4x"):
        read_time(text)


@pytest.mark.parametrize("text", ["", "15%", "4bpw", "0GB", "int4_group_32"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="memory"):
        read_memory(text)


def test_times_are_read_exactly() -> None:
    assert read_time(" 1.5 S ").in_nanoseconds(0.0) == 1_500_000_000
    assert read_time("2min").in_nanoseconds(0.0) == 120 * 10**9
    assert read_time("0.1x").in_nanoseconds(3.0) == 300_000_000
    assert Conditions(2).table is None
