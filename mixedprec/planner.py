"""From a profile and a budget to a plan, with the baselines it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from errors import InputError
from mixedprec.budget import format_bytes, parse_budget
from mixedprec.checkpoint import overhead_bytes
from mixedprec.palette import AUTO, DEFAULT, automatic, parse_formats
from mixedprec.plan import Plan, uniform_assignment
from mixedprec.policies import (
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
        formats: as `parse_formats` takes them; ``"auto"`` is INT8 and INT4, with 3-bit groups where the budget is tight.
        keep: how everything that is not quantised is stored, ``"fp16"`` or ``"fp32"``.

    Raises:
        InputError: an unknown policy or budget.
        Infeasible: even the smallest file is larger; the message names its size.
    """
    if policy not in POLICIES:
        raise InputError(f"--policy {policy}: not known; choose one of {', '.join(POLICIES)}")
    overhead = overhead_bytes(model, keep)
    budget_bytes = budget_in_bytes(budget_text, profile, overhead)
    smallest = overhead + int(profile.size_bytes[:, [profile.column(key) for key in DEFAULT]].min(axis=1).sum())
    palette = (
        automatic(profile.candidates, smallest, budget_bytes)
        if formats == AUTO and policy == "optimal"
        else DEFAULT
        if formats == AUTO
        else parse_formats(formats, profile.candidates)
    )
    problem = problem_of(profile, palette, budget_bytes - overhead)
    try:
        best = optimal_solution(problem)
        chosen = assignment_of(problem, best) if policy == "optimal" else POLICIES[policy](problem)
    except Infeasible as error:
        raise _too_small(profile, palette, budget_text, overhead, error) from error
    rows = range(len(profile.layers))
    columns = [profile.column(chosen[layer.name]) for layer in profile.layers]
    return Plan(
        model_fingerprint=str(profile.facts["model_fingerprint"]),
        model=str(profile.facts["model"]),
        policy=policy,
        score=SCORE,
        budget_text=budget_text,
        budget_bytes=budget_bytes,
        keep=keep,
        overhead_bytes=overhead,
        formats=dict(chosen),
        layer_bytes={
            layer.name: int(profile.size_bytes[row, column])
            for row, column, layer in zip(rows, columns, profile.layers, strict=True)
        },
        predicted_damage={name: float(values[rows, columns].sum()) for name, values in profile.damage.items()},
        total_damage=problem.damage(chosen),
        bound=best.bound,
        optimal=best.optimal and policy == "optimal",
        provenance=provenance(
            seed=profile.facts.get("seed"),
            scene_fingerprint=profile.facts["scene_fingerprint"],
            weights=profile.facts["weights"],
        ),
    )


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
    """The plan, every uniform scheme, and at the plan's budget the other policies, random and inverted choices."""
    problem = problem_of(profile, profile.candidates, plan.budget_bytes - plan.overhead_bytes)
    found = [Comparison(f"plan ({plan.policy})", plan.size_bytes, plan.total_damage)]
    for column, scheme in enumerate(profile.schemes):
        assignment = uniform_assignment(profile.layers, scheme)
        size = plan.overhead_bytes + problem.size_bytes(assignment)
        measured = float(profile.total_uniform[column])
        found.append(Comparison(get_format(scheme).title, size, problem.damage(assignment), measured))
    used = tuple(key for key in profile.candidates if key in {*DEFAULT, *plan.formats.values()})
    problem = problem_of(profile, used, plan.budget_bytes - plan.overhead_bytes)
    baselines: dict[str, Assignment] = {}
    for name, policy in POLICIES.items():
        if name != plan.policy:
            baselines[f"policy {name}"] = policy(problem)
    baselines["inverted score"] = inverted(problem)
    baselines |= {f"random choice {seed}": random_assignment(problem, seed) for seed in RANDOM_SEEDS}
    for title, assignment in baselines.items():
        size = plan.overhead_bytes + problem.size_bytes(assignment)
        found.append(Comparison(f"{title}, same budget", size, problem.damage(assignment)))
    return found


def unused_bytes(profile: Profile, plan: Plan) -> int:
    """Bytes that the budget leaves when every layer already has its least damaging format; 0 when it binds."""
    damage, sizes = profile.total_damage, profile.size_bytes
    best = sum(int(sizes[row, np.lexsort((sizes[row], damage[row]))[0]]) for row in range(len(profile.layers)))
    return max(0, plan.budget_bytes - plan.overhead_bytes - best)


def layers_by_format(plan: Plan) -> dict[str, int]:
    """How many layers have each format, the most frequent first."""
    keys: Sequence[str] = list(plan.formats.values())
    counts: Mapping[str, int] = {key: keys.count(key) for key in dict.fromkeys(keys)}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _too_small(profile: Profile, palette: Sequence[str], text: str, overhead: int, error: Infeasible) -> Infeasible:
    """The refusal in terms of the whole file, with the ways out."""
    needed = overhead + error.minimum_bytes
    sizes = {key: int(profile.size_bytes[:, profile.column(key)].sum()) for key in palette}
    smallest = get_format(min(palette, key=sizes.__getitem__)).title
    refusal = Infeasible(error.budget_bytes + overhead, needed)
    refusal.args = (
        f"no plan fits --budget {text} ({format_bytes(error.budget_bytes + overhead)}): the smallest file, every layer "
        f"at {smallest}, needs {format_bytes(needed)}; raise the budget to {needed}B or more{_smaller_formats(profile, palette)}",
    )
    return refusal


def _smaller_formats(profile: Profile, palette: Sequence[str]) -> str:
    narrower = [key for key in INT3_GROUPS if key in profile.candidates and key not in palette]
    return ", or allow 3-bit groups (--formats +int3)" if narrower else ""
