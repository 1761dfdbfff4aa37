"""From a resolved request to plans: at its own budget, at others, and with other formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from mixedprec.budget import format_bytes
from mixedprec.evidence import Evidence
from mixedprec.limits import OverLimit
from mixedprec.palette import AUTO
from mixedprec.plan import Plan, uniform_assignment
from mixedprec.policies import (
    POLICIES,
    SOLVED,
    Problem,
    assignment_of,
    executions_of,
    optimal_solution,
    smallest,
)
from mixedprec.request import Request, parse_request
from mixedprec.resolve import Resolved, resolve
from mixedprec.search_space import SearchSpace
from mixedprec.solver import Infeasible, solve
from mixedprec.timing import NANOSECONDS, TimeLimit
from sensitivity import Profile
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.core.provenance import provenance
from vggtkit.model import HEADS
from vggtkit.quant import get_format
from vggtkit.quant.rounding import NEAREST
from vggtkit.subject import Subject, subject_of


@dataclass(frozen=True)
class Planned:
    """A plan with what it was chosen from.

    Attributes:
        plan: the plan.
        resolved: what was asked, brought together with evidence and model.
        search_space: all plans that were allowed, with the coupling that the plan's damage is counted with.
    """

    plan: Plan
    resolved: Resolved
    search_space: SearchSpace

    @property
    def palette(self) -> tuple[str, ...]:
        """Formats that were allowed where no constraint says otherwise."""
        return self.resolved.palette

    @property
    def widened(self) -> int | None:
        """The smallest file of INT8 and INT4, where ``auto`` went beyond them because of it."""
        return self.resolved.widened

    @property
    def problem(self) -> Problem:
        """What the policy decided on."""
        return self.search_space.problem(self.plan.budget_bytes - self.plan.overhead_bytes)

    @property
    def rule_problem(self) -> Problem:
        """What a rule of thumb would decide on."""
        return self.resolved.for_rules.problem(self.plan.budget_bytes - self.plan.overhead_bytes)


def make_plan(source: Profile | Evidence, model: nn.Module | Subject, budget: str, **options: str) -> Plan:
    """Choose a format for every layer; `planned` with text that `parse_request` reads, for short.

    Raises:
        InputError, Infeasible: as `parse_request` and `planned`.
    """
    return planned(source, model, parse_request(budget, **options)).plan  # type: ignore[arg-type]


def planned(source: Profile | Evidence, model: nn.Module | Subject, request: Request) -> Planned:
    """Choose a format for every layer: `resolve`, then `solve_plan`.

    Args:
        source: a profile of this model, or other evidence.
        model: the model or subject, for the bytes of what is not quantised; may be on the meta device.
        request: what is asked for.

    Raises:
        InputError, Infeasible: as these two.
    """
    return solve_plan(resolve(request, Evidence.of(source), subject_of(model)))


def solve_plan(resolved: Resolved, budget_bytes: int | None = None) -> Planned:
    """The plan of a resolved request.

    Args:
        resolved: what `resolve` made.
        budget_bytes: of the whole file; the request's own by default.

    Raises:
        Infeasible: even the smallest file is larger; the message names its size and the ways out.
        InputError: the policy cannot be used with these formats or this evidence.
    """
    own = budget_bytes is None or budget_bytes == resolved.budget_bytes
    budget_bytes = resolved.budget_bytes if budget_bytes is None else budget_bytes
    text = resolved.request.budget.text if own else f"{budget_bytes}B"
    problem, policy, space = resolved.problem(budget_bytes), resolved.policy, resolved.search_space
    try:
        best = SOLVED.get(policy, optimal_solution)(problem)
        solved = policy in SOLVED
        formats = space.expanded(assignment_of(problem, best) if solved else POLICIES[policy](problem))
    except Infeasible as error:
        raise _too_small(resolved, problem, text, error) from error
    except OverLimit as error:
        raise _over_limit(space, problem, text, error) from error
    executions = space.expanded_executions(executions_of(problem, best)) if solved else {}
    space = replace(space, coupling=best.coupling)
    facts = resolved.evidence.facts
    plan = Plan(
        model_fingerprint=str(facts["model_fingerprint"]),
        model=str(facts["model"]),
        policy=policy,
        score=resolved.evidence.score,
        budget_text=text,
        budget_bytes=budget_bytes,
        keep=resolved.request.keep,
        overhead_bytes=resolved.overhead_bytes,
        formats=formats,
        layer_bytes=space.layer_bytes(formats),
        predicted_damage=space.damage_by_output(formats, executions),
        total_damage=space.damage(formats, executions),
        bound=best.bound,
        optimal=best.optimal and solved,
        provenance=provenance(
            seed=facts.get("seed"),
            scene_fingerprint=facts["scene_fingerprint"],
            weights=facts["weights"],
            allowed_formats=list(resolved.palette),
            **resolved.request.as_facts(),
            **_known(resolved.evidence),
        ),
        heads=resolved.heads,
        coupling=best.coupling,
        executions=executions,
        takes=space.timing.facts(space.ways_of(formats, executions)) if space.timing else {},
    )
    return Planned(plan, resolved, space)


def replanned(start: Planned, budget_bytes: int) -> Planned:
    """The plan of the same request under another budget; the optimal one where the policy is a rule.

    Raises:
        Infeasible: the smallest plan exceeds it.
    """
    policy = start.resolved.policy if start.resolved.policy in SOLVED else "optimal"
    return solve_plan(replace(start.resolved, policy=policy), budget_bytes)


def with_time(resolved: Resolved, limit: TimeLimit) -> Resolved:
    """The same request within another time; it must have a kernel table."""
    space = resolved.search_space
    assert space.timing is not None
    return replace(resolved, search_space=replace(space, timing=space.timing.with_time(limit)))


def least_seconds(resolved: Resolved, budget_bytes: int) -> float:
    """The least predicted time of a pass of any plan within so many bytes of the whole file.

    Raises:
        Infeasible: even the smallest file is larger.
    """
    problem, timing = resolved.problem(budget_bytes), resolved.search_space.timing
    assert timing is not None
    groups = [[replace(choice, damage=float(choice.nanoseconds)) for choice in group] for group in problem.groups()]
    return timing.rest_seconds + solve(groups, problem.budget_bytes).damage / NANOSECONDS


def with_formats(start: Planned, formats: Mapping[str, str]) -> Planned:
    """The plan with other formats, and the sizes and damages that follow; no longer called optimal."""
    space, chosen = start.search_space, dict(formats)
    plan = replace(
        start.plan, formats=chosen, layer_bytes=space.layer_bytes(chosen),
        predicted_damage=space.damage_by_output(chosen), total_damage=space.damage(chosen), optimal=False,
    )  # fmt: skip
    return replace(start, plan=plan)


def unused_bytes(planned: Planned) -> int:
    """Bytes that the budget leaves when more of them would not change the choice; 0 where it binds."""
    plan, problem = planned.plan, planned.problem
    if problem.timed:
        return 0
    largest = sum(max(choice.size_bytes for choice in choices) for choices in problem.choices.values())
    free = replace(problem, budget_bytes=max(problem.budget_bytes, largest))
    return max(0, problem.budget_bytes - free.size_bytes(POLICIES[plan.policy](free)))


def layers_by_format(plan: Plan) -> dict[str, int]:
    """How many layers have each format, the most frequent first."""
    keys: Sequence[str] = list(plan.formats.values())
    counts: Mapping[str, int] = {key: keys.count(key) for key in dict.fromkeys(keys)}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def uniform_sizes(planned: Planned, keys: Sequence[str]) -> dict[str, int]:
    """Bytes of the file with one format everywhere, by format."""
    space = planned.search_space
    layers = space.evidence.layers
    return {
        key: planned.plan.overhead_bytes + sum(space.layer_bytes(uniform_assignment(layers, key)).values())
        for key in keys
    }


def _known(evidence: Evidence) -> dict[str, object]:
    """What a reader of the plan has to know of its evidence."""
    noise = {name: value for name, value in (evidence.facts.get("repeatability") or {}).items() if value}
    known: dict[str, object] = {
        "estimate_check": {name: row.ratio for name, row in evidence.estimate_checks.items()},
        "estimate_holds": evidence.holds if evidence.estimate_checks else None,
        "unreached": sorted(evidence.unreached & {layer.name for layer in evidence.layers}),
        "repeatability": noise,
        "damage_of": evidence.rounding if evidence.rounding != NEAREST else None,
    }
    return {name: value for name, value in known.items() if value not in (None, [], {})}


def _over_limit(space: SearchSpace, problem: Problem, budget: str, error: OverLimit) -> InputError:
    """The refusal of a limit on time or memory, with the least that is possible within the limits before it."""
    assert space.timing is not None
    assert problem.timed is not None
    name = list(problem.timed.limits(problem.layers))[error.number - 1]
    said = space.timing.said(name, error.smallest)
    return InputError(f"no plan fits {said} within {setting('budget', budget)}; raise one of them")


def _too_small(resolved: Resolved, problem: Problem, budget: str, error: Infeasible) -> Infeasible:
    """The refusal in terms of the whole file, with the ways out."""
    given, needed = (size + resolved.overhead_bytes for size in (error.budget_bytes, error.minimum_bytes))
    ways = [f"raise the budget to {needed}B", *_ways_to_fewer_bits(resolved)]
    is_vggt = "camera_head" in {layer.role for layer in resolved.evidence.layers}
    if is_vggt and resolved.request.heads in (None, HEADS):
        ways.append(f"leave heads out ({setting('heads', 'camera,depth')})")
    refusal = Infeasible(given, needed)
    refusal.args = (
        f"no plan fits {setting('budget', budget)} ({format_bytes(given)}): the smallest file, "
        f"{_smallest_file(resolved, problem)}, needs {format_bytes(needed)}; {' or '.join(ways)}",
    )
    return refusal


def _smallest_file(resolved: Resolved, problem: Problem) -> str:
    """What the smallest file that is allowed consists of."""
    if resolved.request.constraints:
        return f"that {setting('formats')} and the constraints allow"
    if resolved.policy == "sensitive":
        return "of this policy, which starts at INT4 groups"
    keys = [smallest(choices).key for choices in problem.choices.values()]
    lead = max(dict.fromkeys(keys), key=keys.count)
    return f"{'every layer' if len(set(keys)) == 1 else 'most layers'} at {get_format(lead).title}"


def _ways_to_fewer_bits(resolved: Resolved) -> list[str]:
    """The settings that would allow fewer bits, if there are any."""
    request = resolved.request
    least = min(get_format(key).bits for key in resolved.palette)
    bits = {get_format(key).bits for key in resolved.evidence.candidates}
    narrower = max((fewer for fewer in bits if fewer < least), default=None)
    ruled = resolved.policy not in SOLVED
    if narrower is None and not ruled:
        return []
    settings = [setting("policy", "optimal")] * ruled
    strict = request.formats.strict
    if narrower is not None and (request.formats.which != AUTO or strict or request.constraints):
        settings.append(f"without {setting('strict')}" if strict else setting("formats", f"+int{narrower}"))
    return [f"allow {narrower or 3}-bit groups ({' '.join(settings)})"]
