"""The plan beside what else could be made of the same bytes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from mixedprec.baselines import baselines
from mixedprec.plan import uniform_assignment
from mixedprec.planner import Planned
from mixedprec.policies import POLICIES, SOLVED, Assignment
from vggtkit.core.errors import InputError
from vggtkit.quant import UNIFORM_SCHEMES, get_format


@dataclass(frozen=True)
class Comparison:
    """One way to spend bytes, beside the plan.

    Attributes:
        title: for people.
        size_bytes: of the whole file.
        predicted: estimated damage (without a profile a prior) of its layers together.
        measured: measured damage on the calibration scenes; None where it was not run.
    """

    title: str
    size_bytes: int
    predicted: float
    measured: float | None = None


def other_assignments(planned: Planned) -> dict[str, Assignment]:
    """What else the constraints and the budget allow: every baseline and the other policies.

    They have the plan's formats; a policy that is a rule has those that it is written for.
    """
    problem, rule = planned.problem, planned.rule_problem
    others: dict[str, Assignment] = {}
    for name, policy in POLICIES.items():
        if name != planned.plan.policy:
            with suppress(InputError):  # another policy may not get by with these formats or this budget
                others[f"policy {name}"] = policy(problem if name in SOLVED else rule)
    with suppress(InputError):  # nothing but the plan may fit
        others |= baselines(problem)
    return {title: planned.search_space.expanded(assignment) for title, assignment in others.items()}


def comparisons(planned: Planned) -> list[Comparison]:
    """The plan, every uniform scheme, and `other_assignments` within the plan's budget."""
    plan, evidence = planned.plan, planned.search_space.evidence
    rows = [Comparison(f"plan ({plan.policy})", plan.size_bytes, plan.total_damage)]
    for key in UNIFORM_SCHEMES:
        if key in evidence.candidates:
            assignment = uniform_assignment(evidence.layers, key)
            measured = evidence.total(evidence.uniform[key]) if key in evidence.uniform else None
            rows.append(_row(planned, get_format(key).short_title, assignment, measured))
    rows += [_row(planned, f"{title}, same budget", formats) for title, formats in other_assignments(planned).items()]
    return rows


def _row(planned: Planned, title: str, assignment: Assignment, measured: float | None = None) -> Comparison:
    size = planned.plan.overhead_bytes + sum(planned.search_space.layer_bytes(assignment).values())
    return Comparison(title, size, planned.search_space.damage(assignment), measured)
