"""What a plan says, as tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.report.document import Row, Table, Tone
from analysis.report.profile_tables import check_sentences, role_title
from mixedprec.alternatives import Alternative
from mixedprec.budget import format_bytes
from mixedprec.comparison import comparisons
from mixedprec.data_free import SAMPLED, SHAPES_ALONE
from mixedprec.evidence import SKETCH
from mixedprec.execution import ExecutionChoice
from mixedprec.plan import Plan
from mixedprec.planner import Planned, layers_by_format, unused_bytes
from mixedprec.policies import SENSITIVE_ROLES, SOLVED
from mixedprec.timing import executions_by_count
from sensitivity.scores import SCORES
from vggtkit.core.program import command, setting
from vggtkit.model import HEADS
from vggtkit.quant import Layer, get_format
from vggtkit.runtime.backends import BACKENDS, REFERENCE

NAMED = 3
"""Layers that a sentence names."""


def plan_tables(planned: Planned) -> list[Table]:
    """The tables that ``plan`` shows: formats, roles, and the plan beside the alternatives."""
    layers, plan = planned.search_space.evidence.layers, planned.plan
    return [_formats(layers, plan), _roles(layers, plan), _comparison(planned)]


def plan_sentences(planned: Planned) -> list[str]:
    """What a reader of the tables should know: size against budget, optimality, what the choice is based on."""
    plan, facts = planned.plan, planned.search_space.evidence.facts
    bits = 8 * plan.size_bytes / int(facts["parameters"])
    said = [
        f"{format_bytes(plan.size_bytes)} ({plan.size_bytes:,} bytes) of {format_bytes(plan.budget_bytes)} allowed, "
        f"{bits:.2f} bits per parameter; {format_bytes(plan.overhead_bytes)} are header and tensors kept in "
        f"{plan.keep}."
    ]
    if planned.widened is not None:
        lowest = min(get_format(key).bits for key in plan.formats.values())
        said.append(
            f"The budget {'is below' if plan.budget_bytes < planned.widened else 'is close to'} the smallest file of "
            f"INT8 and INT4, {format_bytes(planned.widened)}: widened down to {lowest} bits ({setting('strict')} "
            "forbids it)."
        )
    said += _taken(planned)
    said += _optimality(planned)
    if plan.policy == "joint":
        said.append(
            f"What layers do to each other counts {plan.coupling:.0%}: as far as the calibration scenes agree on it."
            if plan.coupling
            else "The calibration scenes do not say what layers do to each other: damage is summed over layers."
        )
    if spare := unused_bytes(planned):
        said.append(
            f"The budget does not bind: more bytes would not change this plan, and {format_bytes(spare)} are left."
        )
    if planned.search_space.groups:
        said.append(f"{len(planned.search_space.groups)} groups of layers share a format ({setting('group')}).")
    if weights := planned.search_space.evidence.weights:
        counts = ", ".join(f"{name} {weights.get(name, 1.0):g}" for name in planned.search_space.evidence.damage)
        said.append(f"Damage counts the outputs by weight: {counts}.")
    said += _unknown(planned)
    if plan.score in SCORES and plan.score != SKETCH:
        title = SCORES[plan.score].title
        said.append(
            f"Planned from the score {title!r}: damage is in its unit, the NMSE of outputs only where it is measured."
        )
    elif plan.score == SAMPLED:
        said.append(f"NO PROFILE of {plan.model}: damage is guessed from its weights' errors and the roles of layers.")
    elif plan.score == SHAPES_ALONE:
        said.append(f"NO PROFILE and no weights of {plan.model} at hand: this plan is by bytes and roles alone.")
    if facts.get("weights") not in ("trained", "none"):
        said.append("RANDOM WEIGHTS: this plan says nothing about a trained network.")
    return said


def alternatives_table(rows: Sequence[Alternative], chosen: tuple[str, ...]) -> Table:
    """What leaving out heads would buy, side by side; the heads that were asked for in bold."""
    shown, tones = list[Row](), dict[int, Tone]()
    for row in rows:
        plan = row.planned.plan if row.planned else None
        tones[len(shown)] = "strong" if row.heads == chosen and row.budget == rows[0].budget else ""
        shown.append(
            (
                "all" if row.heads == HEADS else ", ".join(row.heads),
                row.budget,
                f"{row.int8_int4_floor / 1e6:.1f}",
                f"{row.left_for_int8 / 1e6:+.1f}",
                f"{plan.size_bytes / 1e6:.2f}" if plan else "does not fit",
                str(row.fewest_bits or ""),
                f"{row.int8_share:.0%}" if plan else "",
            )
        )
    columns = (
        "heads", "budget", "INT8+INT4 floor MB", "left for INT8 MB", "plan MB", "fewest bits", "weights at 8 bits"
    )  # fmt: skip
    return Table("What this size buys", columns, shown, wraps="heads", tones=tones)


def execution_sentence(choice: ExecutionChoice) -> str:
    """What a backend that rounds the inputs of layers adds, and which layers keep theirs."""
    if not choice.without:
        return f"{choice.backend} rounds no layer's input."
    added = f"Rounding inputs under {choice.backend} adds a predicted damage of {choice.added:.1e}"
    if not choice.kept:
        return f"{added}: no layer needs floating-point activations."
    count = f"{len(choice.kept)} layer{'s' * (len(choice.kept) > 1)}"
    names = f"{', '.join(choice.kept[:NAMED])}{f' and {len(choice.kept) - NAMED} more' * (len(choice.kept) > NAMED)}"
    others = ", ".join(f"{share:g} keeps {weights:.1%}" for share, weights in choice.otherwise.items())
    instead = f" ({setting('inputs_add')} {others})" if others else ""
    return (
        f"{added}, {choice.without:.1e} if all were rounded: {count} with {choice.share:.1%} of the "
        f"linear weights keep{'s' * (len(choice.kept) == 1)} floating-point activations ({names}), so that the others "
        f"add at most {choice.tolerated:g} of the plan's damage{instead}."
    )


def _taken(planned: Planned) -> list[str]:
    """What a pass takes, where time or memory are limited."""
    plan, takes = planned.plan, planned.plan.takes
    if not takes:
        return []
    said = []
    if "max_memory" in takes:
        said.append(
            f"Memory: {format_bytes(takes['memory_bytes'])} of weights and activations, of which "
            f"{format_bytes(takes['activation_bytes'])} are activations of {takes['views']} pictures; "
            f"{takes['max_memory']} allowed."
        )
    if "seconds" in takes:
        counts = ", ".join(f"{count} {how}" for how, count in executions_by_count(plan.executions).items())
        said.append(
            f"Time: {takes['seconds']:.3f} s predicted for {takes['views']} pictures, FP32 {takes['fp32_seconds']:.3f} "
            f"s ({takes['seconds'] / takes['fp32_seconds']:.2f}x)"
            + (f", {takes['max_time']} allowed" if "max_time" in takes else "")
            + f"; layers run in {counts}. `{command('evaluate', '--execute', 'int8')}` runs them so."
        )
        if not planned.search_space.evidence.input_damage:
            said.append("What 8-bit activations do is not in this profile: executions count by time and memory alone.")
    return said


def _optimality(planned: Planned) -> list[str]:
    """How good the choice is, as far as the estimates can be trusted."""
    plan, evidence = planned.plan, planned.search_space.evidence
    if plan.policy not in SOLVED:
        return check_sentences(evidence.estimate_checks) + _sensitive_share(planned)
    if not evidence.holds:
        return [
            *check_sentences(evidence.estimate_checks),
            "This plan has the least predicted damage that was found, which says little while the prediction does not "
            "hold.",
        ]
    if plan.optimal:
        return ["Proven optimal (gap 0): no other choice of these formats within the budget has less predicted damage."]
    gap = plan.total_damage - plan.bound
    share = f" ({gap / plan.total_damage:.1%})" if plan.total_damage else ""
    return [
        f"Proven to be within {gap:.1e}{share} of the least predicted damage that these formats allow within the "
        "budget."
    ]


def _unknown(planned: Planned) -> list[str]:
    """What the scenes say nothing about, and what they cannot tell."""
    evidence, formats = planned.search_space.evidence, planned.plan.formats
    said = []
    if names := [layer.name for layer in evidence.layers if layer.name in evidence.unreached]:
        bits = sorted({get_format(formats[name]).bits for name in names})
        said.append(
            f"Not reached by the calibration scenes: {', '.join(names[:3])}"
            f"{f' and {len(names) - 3} more' * (len(names) > 3)}; {' and '.join(f'{b:g}' for b in bits)} bits there "
            f"are a precaution, not measured ({setting('pin')} gives others)."
        )
    noise = max((evidence.facts.get("repeatability") or {}).values(), default=0.0)
    if noise > 0:
        said.append(
            f"NOT REPEATABLE: two FP32 passes differ by an NMSE of up to {noise:.1e}; less damage says nothing."
        )
    return said


def _sensitive_share(planned: Planned) -> list[str]:
    """How far the bytes went for the layers that the policy calls sensitive."""
    plan = planned.plan
    sensitive = [layer for layer in planned.search_space.evidence.layers if layer.role in SENSITIVE_ROLES]
    raised = [layer for layer in sensitive if get_format(plan.formats[layer.name]).bits >= 8]
    weights = sum(layer.weights for layer in raised) / max(1, sum(layer.weights for layer in sensitive))
    size = sum(plan.layer_bytes[layer.name] for layer in raised) / plan.size_bytes
    left = len(sensitive) - len(raised)
    return [
        f"Sensitive share: {len(raised)} of {len(sensitive)} attention and head layers have INT8 ({weights:.0%} of "
        f"their weights, {size:.0%} of the file).",
        f"They were taken from the most damage down; {f'{left} did not fit' if left else 'all of them fitted'}.",
    ]


def _formats(layers: Sequence[Layer], plan: Plan) -> Table:
    """Layers, weights and bytes of every format, and what executes it; more bits first, then more bytes."""
    counts = layers_by_format(plan)
    sizes = {
        key: sum(plan.layer_bytes[name] for name, chosen in plan.formats.items() if chosen == key) for key in counts
    }
    rows = list[Row]()
    for key in sorted(counts, key=lambda key: (-get_format(key).bits, -sizes[key])):
        alike = [layer for layer in layers if plan.formats[layer.name] == key]
        rows.append(
            (
                get_format(key).title, str(counts[key]), f"{sum(layer.weights for layer in alike):,}",
                f"{sizes[key] / 1e6:.2f}", f"{sizes[key] / plan.size_bytes:.1%}", ", ".join(_executing(alike, plan)),
            )
        )  # fmt: skip
    kept = (f"{plan.overhead_bytes / 1e6:.2f}", f"{plan.overhead_bytes / plan.size_bytes:.1%}")
    rows.append((f"kept in {plan.keep}, header", "", "", *kept, ""))
    executing = ", ".join(_executing(layers, plan))
    rows.append(("file", str(len(plan.formats)), "", f"{plan.size_bytes / 1e6:.2f}", "100.0%", executing))
    last = len(rows) - 1
    columns = ("format", "layers", "weights", "MB", "share of bytes", "runs also by")
    title = f"Plan for {plan.model}, policy {plan.policy}"
    return Table(title, columns, rows, words=columns[-1:], tones={last: "strong"}, ruled=(last - 1,))


def _executing(layers: Sequence[Layer], plan: Plan) -> list[str]:
    """The backends beside the reference that run these layers as the file says.

    ``int8`` runs all but linear layers in floating point.
    """
    linear = [layer for layer in layers if layer.kind == "linear"]
    return [
        key
        for key, backend in BACKENDS.items()
        if backend.is_listed
        and key != REFERENCE
        and all(backend.runs(plan.formats[layer.name], layer.kind) for layer in linear)
    ]


def _roles(layers: Sequence[Layer], plan: Plan) -> Table:
    """Layers of every role by the bits of their codes; bits per weight count the scales too."""
    bits = {layer.name: get_format(plan.formats[layer.name]).bits for layer in layers}
    columns = sorted(set(bits.values()), reverse=True)
    rows = list[Row]()
    for role in dict.fromkeys(layer.role for layer in layers):
        members = [layer for layer in layers if layer.role == role]
        counts = [sum(bits[layer.name] == column for layer in members) for column in columns]
        mean = 8 * sum(plan.layer_bytes[layer.name] for layer in members) / sum(layer.weights for layer in members)
        rows.append((role_title(role), *(str(count or "·") for count in counts), f"{mean:.2f}"))
    names = ("role", *(f"{column} bit" for column in columns), "bits per weight")
    return Table("Layers by role and bits", names, rows)


def _comparison(planned: Planned) -> Table:
    """The plan, the first of the rows, beside the others; red is what would fit its budget and is better."""
    rows, budget_bytes = comparisons(planned), planned.plan.budget_bytes
    plan = rows[0]
    shown, tones = list[Row](), dict[int, Tone]()
    for row in rows:
        # The others stand at these bytes, whatever time and memory they take.
        better = row.predicted < plan.predicted and row.size_bytes <= budget_bytes and not planned.plan.takes
        tones[len(shown)] = "strong" if row is plan else "warning" if better else ""
        shown.append(
            (
                f"{row.title} BEATS THE PLAN" if better else row.title,
                f"{row.size_bytes / 1e6:.2f}",
                f"{row.predicted:.2e}",
                "" if row.measured is None else f"{row.measured:.2e}",
                _ratio(row.predicted, plan.predicted),
            )
        )
    columns = ("", "file MB", "predicted", "measured", "predicted / plan")
    return Table(f"Damage: {_unit(planned.plan.score)}", columns, shown, tones=tones)


def _unit(score: str) -> str:
    """What numbers of damage are."""
    if score == SKETCH:
        return "mean NMSE of the outputs on the calibration scenes"
    if score in SCORES:
        return f"predicted in the unit of the score {SCORES[score].title!r}, measured as mean NMSE of the outputs"
    return f"a guess ({score})"


def _ratio(value: float, to: float) -> str:
    """A ratio with one decimal, or as a power where that would be nothing."""
    if not to:
        return "n/a"
    return f"{value / to:.1f}" if value >= 0.1 * to else f"{value / to:.1e}"
