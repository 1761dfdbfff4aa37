"""A request against evidence and a model: read once, so that solving needs nothing but bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from mixedprec.apply import split_state
from mixedprec.budget import Budget
from mixedprec.checkpoint import overhead_bytes
from mixedprec.constraints import SHARED_INPUT, allowed_formats, shared_groups
from mixedprec.evidence import SKETCH, Evidence
from mixedprec.palette import AUTO, automatic_formats, default_formats, is_tight, runnable_formats
from mixedprec.policies import SOLVED, Problem
from mixedprec.request import Request
from mixedprec.search_space import SearchSpace
from mixedprec.timing import Timing
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.quant import get_format
from vggtkit.quant.rounding import NEAREST
from vggtkit.subject import Subject
from vggtkit.subject.graph import same_input

UNSEEN_BITS = 4
"""Layers of which no calibration scene says anything get no fewer bits, unless nothing else is allowed."""

KEPT_BYTES = 4
"""Of a parameter that is not quantised, in memory, in whatever it is stored."""

CAREFUL_BITS = 3
"""Where damage is a prior, ``auto`` goes below these bits only if nothing else fits."""


@dataclass(frozen=True)
class Resolved:
    """A request that is ready to be solved, at its own budget or at any other.

    Attributes:
        request: what was asked.
        evidence: of the heads that are kept, with the weights of the outputs.
        search_space: all plans that are allowed.
        policy: key of `POLICIES`.
        palette: formats that are allowed where no constraint says otherwise.
        heads: that the model keeps.
        overhead_bytes: of the file, that no choice changes: its header and what is kept.
        budget_bytes: of the whole file.
        for_rules: the plans that rules of thumb may make: with INT8 and INT4 in whatever granularity under ``auto``.
        widened: the smallest file of INT8 and INT4, where ``auto`` went beyond them because of it; else None.
    """

    request: Request
    evidence: Evidence
    search_space: SearchSpace
    policy: str
    palette: tuple[str, ...]
    heads: tuple[str, ...]
    overhead_bytes: int
    budget_bytes: int
    for_rules: SearchSpace
    widened: int | None = None

    def problem(self, budget_bytes: int) -> Problem:
        """What a policy decides on, within so many bytes of the whole file."""
        return self.search_space.problem(budget_bytes - self.overhead_bytes)


def resolve(request: Request, evidence: Evidence, subject: Subject, graph: nx.DiGraph | None = None) -> Resolved:
    """Bring a request, evidence and a model together.

    Args:
        request: what is asked for.
        evidence: of the whole model; stays as it is.
        subject: the whole model, for the bytes of what is not quantised; may be on the meta device, stays as it is.
        graph: which layers feed which, for groups by shared input; asked of the subject where it is not given.

    Raises:
        InputError: an unknown head, format or output, or constraints that contradict each other or match nothing.
    """
    heads = subject.heads if request.heads is None else request.heads
    subject, evidence = subject.with_heads(heads), evidence.with_heads(heads)
    if request.weights:
        evidence = evidence.weighted(request.weights)
    policy = request.policy
    if policy == AUTO:
        # Signs are known of rounding to the nearest alone; after a calibrated one errors of layers hardly go together.
        policy = "joint" if evidence.changes and evidence.rounding == NEAREST else "optimal"
    overhead = overhead_bytes(subject, request.keep, gives_biases=request.gives_biases)
    budget_bytes = budget_in_bytes(request.budget, evidence, overhead)
    palette, widened = _palette(request, evidence, policy, budget_bytes, overhead)
    space = for_rules = _search_space(request, evidence, subject, palette, graph)
    if request.conditions is not None:
        kept = KEPT_BYTES * (subject.parameters - sum(layer.weights for layer in evidence.layers))
        space = replace(space, timing=Timing(request.conditions, evidence.layers, heads, kept))
    if request.formats.which == AUTO and policy in SOLVED:
        for_rules = _search_space(request, evidence, subject, default_formats(evidence.candidates), graph)
    return Resolved(request, evidence, space, policy, palette, heads, overhead, budget_bytes, for_rules, widened)


def budget_in_bytes(budget: Budget, evidence: Evidence, overhead: int) -> int:
    """A budget for the whole file in bytes; of a scheme, the file that it would make.

    Raises:
        InputError: it is less than one byte, or the scheme was not scored.
    """
    if budget.scheme:
        return overhead + sum(evidence.of_format(row, budget.scheme)[0] for row in range(len(evidence.layers)))
    return budget.in_bytes(parameters=int(evidence.facts["parameters"]))


def smallest_bytes(evidence: Evidence, keys: Sequence[str]) -> int:
    """Bytes of all layers, each in the smallest of these formats."""
    return int(evidence.size_bytes[:, [evidence.column(key) for key in keys]].min(axis=1).sum())


def _palette(
    request: Request, evidence: Evidence, policy: str, budget_bytes: int, overhead: int
) -> tuple[tuple[str, ...], int | None]:
    """The formats that a plan may use, and the floor because of which ``auto`` went beyond INT8 and INT4."""
    if request.formats.which == AUTO and policy not in SOLVED:
        return default_formats(evidence.candidates), None  # a rule is followed as it is written
    chosen, wide = request.formats.among(evidence.candidates), runnable_formats(evidence.candidates)
    if not request.formats.may_widen or chosen == wide:
        return chosen, None
    floor = overhead + smallest_bytes(evidence, automatic_formats(evidence.candidates))
    if not is_tight(floor, budget_bytes):
        return chosen, None
    careful = tuple(key for key in wide if get_format(key).bits >= CAREFUL_BITS)
    if evidence.score != SKETCH and overhead + smallest_bytes(evidence, careful) <= budget_bytes:
        return careful, floor  # a prior is no reason for 2 bits
    return wide, floor


def _search_space(
    request: Request, evidence: Evidence, subject: Subject, palette: Sequence[str], graph: nx.DiGraph | None
) -> SearchSpace:
    """All plans that the constraints allow."""
    asked = request.constraints
    space = SearchSpace.unconstrained(evidence, palette)
    if not asked:
        return replace(space, allowed=_at_rest(evidence, space.allowed, ()))
    alike: Sequence[tuple[str, ...]] = ()
    if SHARED_INPUT in asked.groups:
        alike = same_input(subject.graph() if graph is None else graph)
        if not alike:
            raise InputError(f"{setting('group', SHARED_INPUT)}: no two layers of this model read the same tensor")
    _, rest = split_state(subject.model, subject.layers)
    allowed = allowed_formats(
        evidence.layers, asked, palette, evidence.candidates, keep=request.keep, never_quantized=rest
    )
    groups = shared_groups(evidence.layers, asked.groups, alike)
    return replace(space, allowed=_at_rest(evidence, allowed, groups), groups=groups)


def _at_rest(
    evidence: Evidence, allowed: Mapping[str, tuple[str, ...]], groups: Sequence[Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """The same, layers that no scene reaches at their smallest format of 4 bits or more: nothing speaks for fewer."""
    grouped = {name for group in groups for name in group}
    chosen = dict(allowed)
    for row, layer in enumerate(evidence.layers):
        if layer.name in evidence.unreached and layer.name not in grouped:
            keys = [key for key in allowed[layer.name] if get_format(key).bits >= UNSEEN_BITS] or allowed[layer.name]
            chosen[layer.name] = (min(keys, key=lambda key: evidence.of_format(row, key)[0]),)
    return chosen
