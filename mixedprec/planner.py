"""From evidence and a budget to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from torch import nn

from mixedprec.apply import split_state
from mixedprec.budget import format_bytes, parse_budget
from mixedprec.checkpoint import overhead_bytes
from mixedprec.constraints import SHARED_INPUT, Constraints, allowed_formats, shared_groups
from mixedprec.evidence import SKETCH, Evidence
from mixedprec.palette import AUTO, default_formats, is_tight, parse_formats
from mixedprec.plan import Plan, uniform_assignment
from mixedprec.policies import POLICIES, SOLVED, Problem, assignment_of, optimal_solution, smallest
from mixedprec.search_space import Space
from mixedprec.solver import Infeasible
from sensitivity import Profile
from vggtkit.core.errors import InputError
from vggtkit.core.provenance import provenance
from vggtkit.model import HEADS, check_heads
from vggtkit.quant import get_format
from vggtkit.subject import Subject, subject_of

FP32_BYTES = 4
NOTHING_FIXED = Constraints()
CAREFUL_BITS = 3
"""Where damage is only guessed, ``auto`` goes below these bits only if nothing else fits."""


@dataclass(frozen=True)
class Request:
    """What a user asks of a plan.

    Attributes:
        budget: a size, or the name of a scheme for the file that it would make; see `budget_in_bytes`.
        policy: key of `POLICIES`, or ``"auto"``: joint where the evidence says what layers do together, else optimal.
        formats: as `parse_formats` takes them, or ``"auto"``: INT8 and INT4, and for policies that minimise damage all
            others too where the budget is tight.
        keep: how everything that is not quantised is stored, ``"fp16"`` or ``"fp32"``.
        strict: ``"auto"`` never goes beyond INT8 and INT4.
        heads: the heads to keep; None for all that the model has.
        weights_for: what each output counts for, as `Evidence.weighted` takes it; None for all alike.
        constraints: pins and the like.
        same_input: names of the layers that read the same tensor, for groups by shared input.
    """

    budget: str
    policy: str = AUTO
    formats: str = AUTO
    keep: str = "fp16"
    strict: bool = False
    heads: tuple[str, ...] | None = None
    weights_for: str | None = None
    constraints: Constraints = NOTHING_FIXED
    same_input: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Planned:
    """A plan with what it was chosen from.

    Attributes:
        plan: the plan.
        space: all plans that were allowed.
        palette: formats that were allowed where no constraint says otherwise.
        widened: the smallest file of INT8 and INT4, where ``auto`` went beyond them because of it.
    """

    plan: Plan
    space: Space
    palette: tuple[str, ...]
    widened: int | None = None

    @property
    def problem(self) -> Problem:
        """What the policy decided on."""
        return self.space.problem(self.plan.budget_bytes - self.plan.overhead_bytes)


def budget_in_bytes(text: str, source: Profile | Evidence, overhead: int) -> int:
    """A budget as people give it: a size, or the name of a scheme for the file that it would make.

    Raises:
        InputError: neither a size nor a scored scheme.
    """
    evidence = Evidence.of(source)
    if text in evidence.candidates:
        return overhead + int(evidence.size_bytes[:, evidence.column(text)].sum())
    parameters = int(evidence.facts["parameters"])
    return parse_budget(text, parameters=parameters, fp32_bytes=FP32_BYTES * parameters)


def make_plan(source: Profile | Evidence, model: nn.Module | Subject, budget: str, **options: str) -> Plan:
    """Choose a format for every layer; `planned` with the options of a `Request`, for short.

    Raises:
        InputError, Infeasible: as `planned`.
    """
    return planned(source, model, Request(budget, **options)).plan  # type: ignore[arg-type]


def planned(source: Profile | Evidence, model: nn.Module | Subject, request: Request) -> Planned:
    """Choose a format for every layer.

    Args:
        source: a profile of this model, or other evidence.
        model: the model or subject, for the bytes of what is not quantised; may be on the meta device.
        request: what is asked for.

    Raises:
        InputError: an unknown policy, format, head or budget, or constraints that contradict each other.
        Infeasible: even the smallest file is larger; the message names its size.
    """
    evidence = Evidence.of(source)
    if request.policy == AUTO:
        request = replace(request, policy="joint" if evidence.changes else "optimal")
    if request.policy not in POLICIES:
        raise InputError(f"--policy {request.policy}: not known; choose one of {', '.join((AUTO, *POLICIES))}")
    subject = subject_of(model)
    heads = subject.heads if request.heads is None else check_heads(request.heads, "--heads")
    subject, evidence = subject.with_heads(heads), evidence.keep_heads(heads)
    if request.weights_for is not None:
        evidence = evidence.weighted(request.weights_for)
    overhead = overhead_bytes(subject, request.keep)
    budget_bytes = budget_in_bytes(request.budget, evidence, overhead)
    palette, widened = _palette(evidence, request, budget_bytes, overhead)
    space = space_of(evidence, subject, palette, request)
    problem = space.problem(budget_bytes - overhead)
    try:
        best = SOLVED.get(request.policy, optimal_solution)(problem)
        solved = request.policy in SOLVED
        chosen = space.expanded(assignment_of(problem, best) if solved else POLICIES[request.policy](problem))
    except Infeasible as error:
        raise _too_small(evidence, problem, palette, request, overhead, error) from error
    space = replace(space, coupling=best.coupling)
    facts = evidence.facts
    plan = Plan(
        model_fingerprint=str(facts["model_fingerprint"]),
        model=str(facts["model"]),
        policy=request.policy,
        score=evidence.score,
        budget_text=request.budget,
        budget_bytes=budget_bytes,
        keep=request.keep,
        overhead_bytes=overhead,
        formats=chosen,
        layer_bytes=space.layer_bytes(chosen),
        predicted_damage=space.damage_by_output(chosen),
        total_damage=space.damage(chosen),
        bound=best.bound,
        optimal=best.optimal and solved,
        provenance=provenance(
            seed=facts.get("seed"),
            scene_fingerprint=facts["scene_fingerprint"],
            weights=facts["weights"],
            allowed_formats=list(palette),
            **_asked(request),
        ),
        heads=heads,
        coupling=best.coupling,
    )
    return Planned(plan, space, palette, widened)


def replanned(found: Planned, budget_bytes: int) -> Planned:
    """The plan of the same space and policy under another budget; the optimal one where the policy is a rule.

    Raises:
        Infeasible: the smallest plan exceeds it.
    """
    plan = found.plan
    problem = found.space.problem(budget_bytes - plan.overhead_bytes)
    policy = plan.policy if plan.policy in SOLVED else "optimal"
    best = SOLVED[policy](problem)
    found = replace(found, space=replace(found.space, coupling=best.coupling))
    return replace(
        found, plan=replace(
            with_formats(found, found.space.expanded(assignment_of(problem, best))),
            policy=policy, budget_text=f"{budget_bytes}B", budget_bytes=budget_bytes, bound=best.bound,
            optimal=best.optimal, coupling=best.coupling,
        ),
    )  # fmt: skip


def with_formats(found: Planned, formats: Mapping[str, str]) -> Plan:
    """The plan with other formats, and the sizes and damages that follow; no longer called optimal."""
    space = found.space
    chosen = dict(formats)
    return replace(
        found.plan, formats=chosen, layer_bytes=space.layer_bytes(chosen),
        predicted_damage=space.damage_by_output(chosen), total_damage=space.damage(chosen), optimal=False,
    )  # fmt: skip


def space_of(evidence: Evidence, subject: Subject, palette: Sequence[str], request: Request) -> Space:
    """All plans that the request's constraints allow.

    Raises:
        InputError: they contradict each other or match nothing.
    """
    asked = request.constraints
    if not asked:
        return Space(evidence, {layer.name: tuple(palette) for layer in evidence.layers})
    if SHARED_INPUT in asked.groups and not request.same_input:
        raise InputError(f"--group {SHARED_INPUT}: no two layers of this model read the same tensor")
    _, kept = split_state(subject.model, subject.layers)
    allowed = allowed_formats(evidence.layers, asked, palette, evidence.candidates, keep=request.keep, kept_names=kept)
    return Space(evidence, allowed, shared_groups(evidence.layers, asked.groups, request.same_input))


def problem_of(source: Profile | Evidence, palette: Sequence[str], layer_budget: int) -> Problem:
    """What the layers may become, and what each choice costs and does, without constraints."""
    evidence = Evidence.of(source)
    return Space(evidence, {layer.name: tuple(palette) for layer in evidence.layers}).problem(layer_budget)


def smallest_bytes(evidence: Evidence, keys: Sequence[str]) -> int:
    """Bytes of all layers, each in the smallest of these formats."""
    return int(evidence.size_bytes[:, [evidence.column(key) for key in keys]].min(axis=1).sum())


def unused_bytes(found: Planned) -> int:
    """Bytes that the budget leaves when more of them would not change the choice; 0 where it binds."""
    plan, problem = found.plan, found.problem
    largest = sum(max(choice.size_bytes for choice in choices) for choices in problem.choices.values())
    free = replace(problem, budget_bytes=max(problem.budget_bytes, largest))
    return max(0, problem.budget_bytes - free.size_bytes(POLICIES[plan.policy](free)))


def layers_by_format(plan: Plan) -> dict[str, int]:
    """How many layers have each format, the most frequent first."""
    keys: Sequence[str] = list(plan.formats.values())
    counts: Mapping[str, int] = {key: keys.count(key) for key in dict.fromkeys(keys)}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def uniform_sizes(found: Planned, keys: Sequence[str]) -> dict[str, int]:
    """Bytes of the file with one format everywhere, by format."""
    space = found.space
    layers = space.evidence.layers
    return {
        key: found.plan.overhead_bytes + sum(space.layer_bytes(uniform_assignment(layers, key)).values())
        for key in keys
    }


def _palette(
    evidence: Evidence, request: Request, budget_bytes: int, overhead: int
) -> tuple[tuple[str, ...], int | None]:
    """The formats that a plan may use, and the floor because of which ``auto`` went beyond INT8 and INT4."""
    if request.formats != AUTO:
        return parse_formats(request.formats, evidence.candidates), None
    default = default_formats(evidence.candidates)
    floor = overhead + smallest_bytes(evidence, default)
    if request.strict or request.policy not in SOLVED or not is_tight(floor, budget_bytes):
        return default, None
    careful = tuple(key for key in evidence.candidates if get_format(key).bits >= CAREFUL_BITS)
    if evidence.score != SKETCH and overhead + smallest_bytes(evidence, careful) <= budget_bytes:
        return careful, floor  # a guess is no reason for 2 bits
    return evidence.candidates, floor


def _asked(request: Request) -> dict[str, object]:
    """What was asked beyond the fields that a plan has."""
    asked = {name: list(entries) for name, entries in asdict(request.constraints).items() if entries}
    found: dict[str, object] = {"constraints": asked} if asked else {}
    if request.weights_for is not None:
        found["weights_for"] = request.weights_for
    return found


def _too_small(
    evidence: Evidence,
    problem: Problem,
    palette: Sequence[str],
    request: Request,
    overhead: int,
    error: Infeasible,
) -> Infeasible:
    """The refusal in terms of the whole file, with the ways out."""
    given, needed = error.budget_bytes + overhead, error.minimum_bytes + overhead
    if request.constraints:
        what = "that --formats and the constraints allow"
    elif request.policy == "sensitive":
        what = "of this policy, which starts at INT4 groups"
    else:
        keys = list(dict.fromkeys(smallest(choices).key for choices in problem.choices.values()))
        lead = max(keys, key=lambda key: sum(smallest(c).key == key for c in problem.choices.values()))
        what = f"{'every layer' if len(keys) == 1 else 'most layers'} at {get_format(lead).title}"
    ways = [f"raise the budget to {needed}B"]
    least = min(get_format(key).bits for key in palette)
    narrower = sorted({get_format(key).bits for key in evidence.candidates if get_format(key).bits < least})
    ruled = request.policy not in SOLVED
    if narrower or ruled:
        options = ["--policy optimal"] * ruled
        if narrower and (request.formats != AUTO or request.strict or request.constraints):
            options += [f"--formats +int{narrower[-1]}" if not request.strict else "without --strict"]
        ways.append(f"allow {narrower[-1] if narrower else 3}-bit groups ({' '.join(options)})")
    if request.heads in (None, HEADS) and "camera_head" in {layer.role for layer in evidence.layers}:
        ways.append("leave heads out (--heads camera,depth)")
    refusal = Infeasible(given, needed)
    refusal.args = (
        f"no plan fits --budget {request.budget} ({format_bytes(given)}): the smallest file, {what}, "
        f"needs {format_bytes(needed)}; {' or '.join(ways)}",
    )
    return refusal
