"""From a profile and a budget to a plan, with the baselines it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from torch import nn

from errors import InputError
from mixedprec.budget import format_bytes, parse_budget
from mixedprec.checkpoint import overhead_bytes
from mixedprec.palette import AUTO, DEFAULT, automatic, parse_formats
from mixedprec.plan import Plan, uniform_assignment
from mixedprec.policies import (
    INT4_GROUPS,
    POLICIES,
    Assignment,
    Problem,
    assignment_of,
    inverted,
    optimal_solution,
    random_assignment,
)
from mixedprec.solver import Choice, Infeasible
from quant import INT3_GROUPS, get_format
from sensitivity import Profile
from sensitivity.provenance import provenance

SCORE = "sketch"
RANDOM_SEEDS = (0, 1, 2)
FP32_BYTES = 4


@dataclass(frozen=True)
class Comparison:
    """One way to spend bytes, beside the plan.

    Attributes:
        title: for people.
        size_bytes: of the whole file.
        predicted: summed damage of its layers.
        measured: damage on the calibration scenes; None where it was not run.
    """

    title: str
    size_bytes: int
    predicted: float
    measured: float | None = None


def budget_in_bytes(text: str, profile: Profile, overhead: int) -> int:
    """A budget as people give it: a size, or the name of a scheme for the file that it would make.

    Raises:
        InputError: neither a size nor a profiled scheme.
    """
    if text in profile.candidates:
        return overhead + int(profile.size_bytes[:, profile.column(text)].sum())
    parameters = int(profile.facts["parameters"])
    return parse_budget(text, parameters=parameters, fp32_bytes=FP32_BYTES * parameters)


def make_plan(
    profile: Profile,
    model: nn.Module,
    budget_text: str,
    *,
    policy: str = "optimal",
    formats: str = AUTO,
    keep: str = "fp16",
) -> Plan:
    """Choose a format for every layer.

    Args:
        profile: of this model.
        model: for the bytes of what is not quantised; may be on the meta device.
        budget_text: as `budget_in_bytes` takes it; the size of the whole file.
        policy: key of `POLICIES`.
        formats: as `parse_formats` takes them, or ``"auto"``: INT8 and INT4, and for the optimal policy 3-bit groups
            where the budget is tight.
        keep: how everything that is not quantised is stored, ``"fp16"`` or ``"fp32"``.

    Raises:
        InputError: an unknown policy, format or budget.
        Infeasible: even the smallest file is larger; the message names its size.
    """
    if policy not in POLICIES:
        raise InputError(f"--policy {policy}: not known; choose one of {', '.join(POLICIES)}")
    overhead = overhead_bytes(model, keep)
    budget_bytes = budget_in_bytes(budget_text, profile, overhead)
    palette = _palette(profile, formats, policy, budget_bytes, overhead)
    problem = problem_of(profile, palette, budget_bytes - overhead)
    try:
        best = optimal_solution(problem)
        chosen = assignment_of(problem, best) if policy == "optimal" else POLICIES[policy](problem)
    except Infeasible as error:
        raise _too_small(profile, palette, policy, budget_text, overhead, error) from error
    return Plan(
        model_fingerprint=str(profile.facts["model_fingerprint"]),
        model=str(profile.facts["model"]),
        policy=policy,
        score=SCORE,
        budget_text=budget_text,
        budget_bytes=budget_bytes,
        keep=keep,
        overhead_bytes=overhead,
        formats=chosen,
        layer_bytes={
            layer.name: choice.size_bytes for layer, choice in zip(profile.layers, problem.chosen(chosen), strict=True)
        },
        predicted_damage=predicted_damage(profile, chosen),
        total_damage=problem.damage(chosen),
        bound=best.bound,
        optimal=best.optimal and policy == "optimal",
        provenance=provenance(
            seed=profile.facts.get("seed"),
            scene_fingerprint=profile.facts["scene_fingerprint"],
            weights=profile.facts["weights"],
            allowed_formats=list(palette),
        ),
    )


def predicted_damage(profile: Profile, assignment: Assignment) -> dict[str, float]:
    """Damage by output, summed over the layers as each is assigned."""
    rows = range(len(profile.layers))
    columns = [profile.column(assignment[layer.name]) for layer in profile.layers]
    return {name: float(values[rows, columns].sum()) for name, values in profile.damage.items()}


def _palette(profile: Profile, formats: str, policy: str, budget_bytes: int, overhead: int) -> tuple[str, ...]:
    """The formats that a plan may use."""
    if formats != AUTO:
        return parse_formats(formats, profile.candidates)
    if policy != "optimal":
        return DEFAULT
    smallest = int(profile.size_bytes[:, [profile.column(key) for key in DEFAULT]].min(axis=1).sum())
    return automatic(profile.candidates, overhead + smallest, budget_bytes)


def problem_of(profile: Profile, palette: Sequence[str], layer_budget: int) -> Problem:
    """What the profile's layers may become, and what each choice costs and does."""
    damage = profile.total_damage
    choices = {
        layer.name: tuple(
            Choice(key, int(profile.size_bytes[row, column]), float(damage[row, column]))
            for key, column in ((key, profile.column(key)) for key in palette)
        )
        for row, layer in enumerate(profile.layers)
    }
    return Problem(profile.layers, choices, layer_budget)


def comparisons(profile: Profile, plan: Plan) -> list[Comparison]:
    """The plan, every uniform scheme, and at the plan's budget what else could be made of the plan's formats.

    That is the other policies (where one fits the budget), random choices, and the best plan by the inverted score.
    """
    everything = problem_of(profile, profile.candidates, plan.budget_bytes - plan.overhead_bytes)
    found = [Comparison(f"plan ({plan.policy})", plan.size_bytes, plan.total_damage)]
    for column, scheme in enumerate(profile.schemes):
        assignment = uniform_assignment(profile.layers, scheme)
        size = plan.overhead_bytes + everything.size_bytes(assignment)
        measured = float(profile.total_uniform[column])
        found.append(Comparison(get_format(scheme).short_title, size, everything.damage(assignment), measured))
    for title, assignment in _baselines(profile, plan).items():
        size = plan.overhead_bytes + everything.size_bytes(assignment)
        found.append(Comparison(f"{title}, same budget", size, everything.damage(assignment)))
    return found


def _baselines(profile: Profile, plan: Plan) -> dict[str, Assignment]:
    """What else could be chosen among the plan's formats within its budget."""
    problem = problem_of(profile, allowed_formats(profile, plan), plan.budget_bytes - plan.overhead_bytes)
    baselines: dict[str, Assignment] = {}
    for name, policy in POLICIES.items():
        if name != plan.policy:
            with suppress(InputError):  # another policy may not get by with these formats or this budget
                baselines[f"policy {name}"] = policy(problem)
    baselines["inverted score"] = inverted(problem)
    return baselines | {f"random choice {seed}": random_assignment(problem, seed) for seed in RANDOM_SEEDS}


def allowed_formats(profile: Profile, plan: Plan) -> tuple[str, ...]:
    """The formats that a plan could use; those that it does use where it does not say."""
    allowed = {*plan.provenance.get("allowed_formats", ()), *plan.formats.values()}
    return tuple(key for key in profile.candidates if key in allowed)


def unused_bytes(profile: Profile, plan: Plan) -> int:
    """Bytes that the budget leaves when more of them would not change the choice; 0 where it binds."""
    palette = allowed_formats(profile, plan)
    largest = int(profile.size_bytes[:, [profile.column(key) for key in palette]].max(axis=1).sum())
    room = plan.budget_bytes - plan.overhead_bytes
    free = problem_of(profile, palette, max(room, largest))
    return max(0, room - free.size_bytes(POLICIES[plan.policy](free)))


def layers_by_format(plan: Plan) -> dict[str, int]:
    """How many layers have each format, the most frequent first."""
    keys: Sequence[str] = list(plan.formats.values())
    counts: Mapping[str, int] = {key: keys.count(key) for key in dict.fromkeys(keys)}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _too_small(
    profile: Profile, palette: Sequence[str], policy: str, text: str, overhead: int, error: Infeasible
) -> Infeasible:
    """The refusal in terms of the whole file, with the ways out."""
    given, needed = error.budget_bytes + overhead, error.minimum_bytes + overhead
    sizes = {key: int(profile.size_bytes[:, profile.column(key)].sum()) for key in palette}
    smallest = min(palette, key=sizes.__getitem__)
    if policy == "sensitive":
        smallest = min(set(palette) & set(INT4_GROUPS), key=sizes.__getitem__, default=smallest)
    ways = [f"raise the budget to {needed}B"]
    narrower = any(key in profile.candidates and key not in palette for key in INT3_GROUPS)
    if narrower or policy != "optimal":
        options = ["--policy optimal"] * (policy != "optimal") + ["--formats +int3"] * narrower
        ways.append(f"allow 3-bit groups ({' '.join(options)})")
    refusal = Infeasible(given, needed)
    refusal.args = (
        f"no plan fits --budget {text} ({format_bytes(given)}): the smallest file, every layer at "
        f"{get_format(smallest).title}, needs {format_bytes(needed)}; {' or '.join(ways)}",
    )
    return refusal
