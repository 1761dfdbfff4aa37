"""What is compared with FP32: uniform schemes, further plans, the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mixedprec import Assignment, Plan, quantized_weights, uniform_assignment
from vggtkit.quant import UNIFORM_SCHEMES, QuantizedTensor, get_format
from vggtkit.subject import Subject

PLAN = "plan"


@dataclass(frozen=True)
class Candidate:
    """Something to compare with FP32: a name and a format for every layer."""

    key: str
    title: str
    assignment: Assignment
    keep: str
    rounded: Mapping[str, QuantizedTensor] | None = None

    def weights(self, subject: Subject) -> Mapping[str, QuantizedTensor]:
        """The quantised weights."""
        return quantized_weights(subject, self.assignment, self.keep) if self.rounded is None else self.rounded


@dataclass(frozen=True)
class Rivals:
    """What stands beside the plan.

    Attributes:
        schemes: formats for every layer.
        others: further plans of the same model, ready to be compared.
    """

    schemes: tuple[str, ...] = UNIFORM_SCHEMES
    others: tuple[Candidate, ...] = ()


def compared_candidates(
    subject: Subject,
    plan: Plan | None,
    rounded: Mapping[str, QuantizedTensor] | None = None,
    rivals: Rivals | None = None,
) -> list[Candidate]:
    """The uniform schemes, further plans and the plan, in this order; the schemes keep the rest as the plan does."""
    layers, rivals = subject.layers, rivals or Rivals()
    keep = plan.keep if plan else "fp16"
    compared = [Candidate(k, get_format(k).title, uniform_assignment(layers, k), keep) for k in rivals.schemes]
    compared += rivals.others
    if plan:
        compared.append(Candidate(PLAN, f"plan ({plan.how})", dict(plan.formats), plan.keep, rounded))
    return compared
