"""What a plan says, as rich tables."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from mixedprec.budget import format_bytes
from mixedprec.plan import Plan
from mixedprec.planner import Comparison, comparisons, layers_by_format, unused_bytes
from quant import get_format
from sensitivity import Profile
from sensitivity.tables import role_title


def plan_tables(profile: Profile, plan: Plan) -> list[Table]:
    """The tables that ``plan`` shows: formats, roles, and the plan beside the alternatives."""
    return [_formats(profile, plan), _roles(profile, plan), _comparison(comparisons(profile, plan), plan.budget_bytes)]


def plan_sentences(profile: Profile, plan: Plan) -> list[str]:
    """What a reader of the tables should know: size against budget, optimality, whether the budget binds."""
    bits = 8 * plan.size_bytes / int(profile.facts["parameters"])
    said = [
        f"{format_bytes(plan.size_bytes)} ({plan.size_bytes:,} bytes) of {format_bytes(plan.budget_bytes)} allowed, "
        f"{bits:.2f} bits per parameter; {format_bytes(plan.overhead_bytes)} are header and tensors kept in "
        f"{plan.keep}."
    ]
    if plan.optimal:
        said.append("Proven optimal: no other choice of these formats within the budget has less predicted damage.")
    elif plan.policy == "optimal":
        said.append(f"Not proven optimal: within {plan.total_damage - plan.bound:.1e} of the least possible damage.")
    if spare := unused_bytes(profile, plan):
        said.append(
            f"The budget does not bind: more bytes would not change this plan, and {format_bytes(spare)} are left."
        )
    if profile.facts.get("weights") != "trained":
        said.append("RANDOM WEIGHTS: this plan says nothing about a trained network.")
    return said


def _formats(profile: Profile, plan: Plan) -> Table:
    """Layers, weights and bytes of every format; more bits first, then more bytes."""
    table = Table(title=f"Plan for {escape(plan.model)}, policy {plan.policy}", title_justify="left")
    for name in ("format", "layers", "weights", "MB", "share of bytes"):
        table.add_column(name, justify="left" if name == "format" else "right")
    counts = layers_by_format(plan)
    sizes = {
        key: sum(plan.layer_bytes[name] for name, chosen in plan.formats.items() if chosen == key) for key in counts
    }
    for key in sorted(counts, key=lambda key: (-get_format(key).bits, -sizes[key])):
        weights = sum(layer.weights for layer in profile.layers if plan.formats[layer.name] == key)
        share = f"{sizes[key] / plan.size_bytes:.1%}"
        table.add_row(get_format(key).title, str(counts[key]), f"{weights:,}", f"{sizes[key] / 1e6:.2f}", share)
    table.add_row(
        f"kept in {plan.keep}, header", "", "", f"{plan.overhead_bytes / 1e6:.2f}",
        f"{plan.overhead_bytes / plan.size_bytes:.1%}", end_section=True,
    )  # fmt: skip
    table.add_row("file", str(len(plan.formats)), "", f"{plan.size_bytes / 1e6:.2f}", "100.0%", style="bold")
    return table


def _roles(profile: Profile, plan: Plan) -> Table:
    """Layers of every role by the bits of their codes; bits per weight count the scales too."""
    bits = {layer.name: get_format(plan.formats[layer.name]).bits for layer in profile.layers}
    columns = sorted(set(bits.values()), reverse=True)
    table = Table(title="Layers by role and bits", title_justify="left")
    table.add_column("role")
    for name in (*(f"{column} bit" for column in columns), "bits per weight"):
        table.add_column(name, justify="right")
    for role in dict.fromkeys(layer.role for layer in profile.layers):
        members = [layer for layer in profile.layers if layer.role == role]
        counts = [sum(bits[layer.name] == column for layer in members) for column in columns]
        mean = 8 * sum(plan.layer_bytes[layer.name] for layer in members) / sum(layer.weights for layer in members)
        table.add_row(role_title(role), *(str(count or "·") for count in counts), f"{mean:.2f}")
    return table


def _comparison(rows: list[Comparison], budget_bytes: int) -> Table:
    """The plan, the first of the rows, beside the others; red is what would fit its budget and is better."""
    plan = rows[0]
    table = Table(title="Damage: mean NMSE of the outputs on the calibration scenes", title_justify="left")
    for name in ("", "file MB", "predicted", "measured", "predicted / plan"):
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        better = row.predicted < plan.predicted and row.size_bytes <= budget_bytes
        table.add_row(
            row.title,
            f"{row.size_bytes / 1e6:.2f}",
            f"{row.predicted:.2e}",
            "" if row.measured is None else f"{row.measured:.2e}",
            _ratio(row.predicted, plan.predicted),
            style="bold" if row is plan else "red" if better else "",
        )
    return table


def _ratio(value: float, to: float) -> str:
    """A ratio with one decimal, or as a power where that would be nothing."""
    if not to:
        return "n/a"
    return f"{value / to:.1f}" if value >= 0.1 * to else f"{value / to:.1e}"
