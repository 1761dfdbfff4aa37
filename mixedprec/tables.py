"""What a plan says, as rich tables."""

from __future__ import annotations

from rich.table import Table

from mixedprec.budget import format_bytes
from mixedprec.plan import Plan
from mixedprec.planner import Comparison, comparisons, layers_by_format, unused_bytes
from quant import get_format
from sensitivity import Profile
from sensitivity.tables import role_title


def plan_tables(profile: Profile, plan: Plan) -> list[Table]:
    """The tables that ``plan`` shows: formats, roles, and the plan beside the alternatives."""
    return [_formats(profile, plan), _roles(profile, plan), _comparison(comparisons(profile, plan))]


def plan_sentences(profile: Profile, plan: Plan) -> list[str]:
    """What a reader of the tables should know: size against budget, optimality, whether the budget binds."""
    bits = 8 * plan.size_bytes / int(profile.facts["parameters"])
    said = [
        f"{format_bytes(plan.size_bytes)} ({plan.size_bytes:,} bytes) of {format_bytes(plan.budget_bytes)} allowed, "
        f"{bits:.2f} bits per parameter; {format_bytes(plan.overhead_bytes)} are header and tensors kept in {plan.keep}."
    ]
    if plan.optimal:
        said.append("Proven optimal: no other choice of these formats within the budget has less predicted damage.")
    elif plan.policy == "optimal":
        said.append(f"Not proven optimal: within {plan.total_damage - plan.bound:.1e} of the least possible damage.")
    if spare := unused_bytes(profile, plan):
        said.append(
            f"The budget does not bind: every layer has its least damaging format and {format_bytes(spare)} are left."
        )
    if profile.facts.get("weights") != "trained":
        said.append("RANDOM WEIGHTS: this plan says nothing about a trained network.")
    return said


def _formats(profile: Profile, plan: Plan) -> Table:
    table = Table(title=f"Plan for {plan.model}, policy {plan.policy}", title_justify="left")
    for name in ("format", "layers", "weights", "MB", "share of bytes"):
        table.add_column(name, justify="left" if name == "format" else "right")
    for key, count in layers_by_format(plan).items():
        members = [layer for layer in profile.layers if plan.formats[layer.name] == key]
        size = sum(plan.layer_bytes[layer.name] for layer in members)
        weights = sum(layer.weights for layer in members)
        share = f"{size / plan.size_bytes:.1%}"
        table.add_row(get_format(key).title, str(count), f"{weights:,}", f"{size / 1e6:.2f}", share)
    table.add_row(
        f"kept in {plan.keep}, header", "", "", f"{plan.overhead_bytes / 1e6:.2f}",
        f"{plan.overhead_bytes / plan.size_bytes:.1%}", end_section=True,
    )  # fmt: skip
    table.add_row("file", str(len(plan.formats)), "", f"{plan.size_bytes / 1e6:.2f}", "100.0%", style="bold")
    return table


def _roles(profile: Profile, plan: Plan) -> Table:
    keys = list(layers_by_format(plan))
    table = Table(title="Layers by role and format", title_justify="left")
    table.add_column("role")
    for key in keys:
        table.add_column(key.replace("_", " "), justify="right")
    table.add_column("bits per weight", justify="right")
    for role in dict.fromkeys(layer.role for layer in profile.layers):
        members = [layer for layer in profile.layers if layer.role == role]
        counts = [sum(plan.formats[layer.name] == key for layer in members) for key in keys]
        bits = 8 * sum(plan.layer_bytes[layer.name] for layer in members) / sum(layer.weights for layer in members)
        table.add_row(role_title(role), *(str(count or "·") for count in counts), f"{bits:.2f}")
    return table


def _comparison(rows: list[Comparison]) -> Table:
    plan = rows[0]
    table = Table(title="Damage: mean NMSE of the outputs on the calibration scenes", title_justify="left")
    for name in ("", "file MB", "predicted", "measured", "predicted / plan"):
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        better = row.predicted < plan.predicted and row.size_bytes <= plan.size_bytes
        table.add_row(
            row.title,
            f"{row.size_bytes / 1e6:.2f}",
            f"{row.predicted:.2e}",
            "" if row.measured is None else f"{row.measured:.2e}",
            f"{row.predicted / plan.predicted:.1f}" if plan.predicted else "n/a",
            style="bold" if row is plan else "red" if better else "",
        )
    return table
