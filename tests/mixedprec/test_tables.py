"""What the tables of a plan say."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from analysis.report.document import Table
from analysis.report.plan_tables import plan_sentences, plan_tables
from mixedprec import Planned, parse_request, planned
from sensitivity import Profile
from tests.analysis.example import drawn
from vggtkit.model import VGGT
from vggtkit.quant import get_format

MakePlan = Callable[..., Planned]
WIDTH = 100


@pytest.fixture
def plan_for(planning_model: VGGT, planning_profile: Profile) -> MakePlan:
    return lambda budget, **options: planned(planning_profile, planning_model, parse_request(budget, **options))


def column(table: Table, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.texts]


@pytest.mark.parametrize("budget", ["16%", "22%", "100%"])
def test_tables_fit_100_columns_without_ellipsis(plan_for: MakePlan, budget: str) -> None:
    for table in plan_tables(plan_for(budget, formats="+int3")):
        text = drawn(table, WIDTH)
        assert max(map(len, text.splitlines())) <= WIDTH
        assert all(cell in text for row in table.texts for cell in row)


def test_formats_stand_by_bits_then_bytes_and_sum_to_the_file(plan_for: MakePlan, planning_profile: Profile) -> None:
    found = plan_for("int4_group_64", formats="+int3")
    plan, table = found.plan, plan_tables(found)[0]
    titles = column(table, "format")
    by_title = {get_format(key).title: key for key in set(plan.formats.values())}
    assert set(titles[:-2]) == by_title.keys()
    assert titles[-2:] == ["kept in fp16, header", "file"]
    sizes = {key: sum(plan.layer_bytes[n] for n, k in plan.formats.items() if k == key) for key in by_title.values()}
    order = [(-get_format(by_title[title]).bits, -sizes[by_title[title]]) for title in titles[:-2]]
    assert order == sorted(order)
    assert len({bits for bits, _ in order}) == 3
    assert sum(map(int, column(table, "layers")[:-2])) == len(plan.formats) == int(column(table, "layers")[-1])
    weights = (int(cell.replace(",", "")) for cell in column(table, "weights") if cell)
    assert sum(weights) == sum(layer.weights for layer in planning_profile.layers)
    shares = [float(cell.rstrip("%")) for cell in column(table, "share of bytes")]
    assert sum(shares[:-1]) == pytest.approx(shares[-1], abs=0.5)


def test_roles_are_counted_by_bits(plan_for: MakePlan, planning_profile: Profile) -> None:
    found = plan_for("int4_group_64", formats="+int3")
    plan, table = found.plan, plan_tables(found)[1]
    assert list(table.columns) == ["role", "8 bit", "4 bit", "3 bit", "bits per weight"]
    for bits in (8, 4, 3):
        cells = column(table, f"{bits} bit")
        expected = sum(get_format(key).bits == bits for key in plan.formats.values())
        assert sum(int(cell) for cell in cells if cell != "·") == expected
    row = column(table, "role").index("camera head")
    members = [layer for layer in planning_profile.layers if layer.role == "camera_head"]
    mean = 8 * sum(plan.layer_bytes[la.name] for la in members) / sum(la.weights for la in members)
    assert column(table, "bits per weight")[row] == f"{mean:.2f}"


def test_a_single_format_makes_a_single_column(plan_for: MakePlan) -> None:
    table = plan_tables(plan_for("90%", formats="int4"))[1]
    assert list(table.columns) == ["role", "4 bit", "bits per weight"]


def test_alternatives_are_measured_against_the_plan(plan_for: MakePlan) -> None:
    """What fits the budget and is better is red; that happens to a plan by rule, never to an optimal one."""
    for policy, red in (("optimal", False), ("sensitive", True)):
        table = plan_tables(plan_for("int4_group_32", policy=policy))[2]
        ratios = column(table, "predicted / plan")
        assert ratios[0] == "1.0"
        assert table.tones[0] == "strong"
        assert ("warning" in table.tones.values()) == red
        measured = column(table, "measured")
        assert all(measured[1:8])
        assert not any(measured[8:])
        assert any(cell.endswith("BEATS THE PLAN") for cell in column(table, "")) == red


def test_sentences_say_size_proof_and_slack(plan_for: MakePlan, planning_profile: Profile) -> None:
    tight, loose = (plan_sentences(plan_for(budget, strict=True)) for budget in ("int4_group_64", "100%"))
    found = plan_for("int4_group_64", strict=True)
    plan = found.plan
    assert f"({plan.size_bytes:,} bytes)" in tight[0]
    assert f"{8 * plan.size_bytes / planning_profile.facts['parameters']:.2f} bits per parameter" in tight[0]
    assert tight[1].startswith("Proven optimal")
    assert len(tight) == 2
    assert loose[2].startswith("The budget does not bind")
    by_rule = plan_sentences(plan_for("int4_group_64", policy="sensitive"))
    assert not any("ptimal" in line for line in by_rule)
    assert any(line.startswith("Sensitive share: ") for line in by_rule)
    unproven = replace(found, plan=replace(plan, optimal=False, bound=plan.total_damage / 2))
    assert f"within {plan.total_damage / 2:.1e} (50.0%) of the least" in plan_sentences(unproven)[1]


def test_random_weights_are_called_out(planning_model: VGGT, planning_profile: Profile) -> None:
    profile = replace(planning_profile, facts={**planning_profile.facts, "weights": "random"})
    assert plan_sentences(planned(profile, planning_model, parse_request("30%")))[-1].startswith("RANDOM WEIGHTS")
