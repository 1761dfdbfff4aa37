"""What a user asks of a plan, as typed values; and how it is read from text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mixedprec.budget import Budget, read_budget
from mixedprec.constraints import Constraints
from mixedprec.evidence import parse_weights
from mixedprec.palette import AUTO, FormatChoice, parse_formats
from mixedprec.plan import KEEPS
from mixedprec.policies import POLICIES, SOLVED
from mixedprec.timing import Conditions, read_memory, read_time
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.model import check_heads

NOTHING_FIXED = Constraints()
ANY_FORMATS = FormatChoice()


@dataclass(frozen=True)
class Request:
    """What a user asks of a plan.

    Attributes:
        budget: for the whole file.
        policy: key of `POLICIES`, or ``"auto"``: joint where the evidence says what layers do together, else optimal.
        formats: which ones the plan may use.
        keep: how everything that is not quantised is stored, ``"fp16"`` or ``"fp32"``.
        heads: the heads to keep; None for all that the model has.
        weights: what outputs count for, by the name of an output or of a head for all that it predicts; others 1.
        constraints: pins and the like.
        conditions: limits on time and memory, and what is known for them; None where neither is limited.
        gives_biases: whether codes will be chosen in a way that gives layers a bias, which takes bytes.

    Raises:
        InputError: an unknown policy, head or precision to keep.

    >>> parse_request("600MB", formats="+int3").formats.among(["int4_group_32", "int3_group_32", "fp16"])
    ('int4_group_32', 'int3_group_32')
    """

    budget: Budget
    policy: str = AUTO
    formats: FormatChoice = ANY_FORMATS
    keep: str = "fp16"
    heads: tuple[str, ...] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    constraints: Constraints = NOTHING_FIXED
    conditions: Conditions | None = None
    gives_biases: bool = False

    def __post_init__(self) -> None:
        if self.policy not in (AUTO, *POLICIES):
            raise InputError(
                f"{setting('policy', self.policy)}: not known; choose one of {', '.join((AUTO, *POLICIES))}"
            )
        if self.conditions and self.policy not in (AUTO, *SOLVED):
            raise InputError(
                f"{setting('policy', self.policy)}: a rule knows nothing of time and memory; use {' or '.join(SOLVED)}"
            )
        if self.keep not in KEEPS:
            raise InputError(f"keep is {self.keep!r}, must be one of {', '.join(KEEPS)} ({setting('keep')})")
        if self.heads is not None:
            object.__setattr__(self, "heads", check_heads(self.heads, setting("heads")))

    def as_facts(self) -> dict[str, object]:
        """What was asked beyond the fields that a plan has, as its file keeps it."""
        asked = self.constraints.as_text()
        facts: dict[str, object] = {"constraints": asked} if asked else {}
        if self.weights:
            facts["weights_for"] = ",".join(f"{name}={weight:g}" for name, weight in self.weights.items())
        return facts


def parse_request(
    budget: str,
    *,
    policy: str = AUTO,
    formats: str = AUTO,
    keep: str = "fp16",
    strict: bool = False,
    heads: str | Sequence[str] | None = None,
    weights_for: str | None = None,
    constraints: Constraints = NOTHING_FIXED,
    max_time: str | None = None,
    max_memory: str | None = None,
    views: int = 0,
) -> Request:
    """Read a request as people write it.

    Args:
        budget: as `read_budget` takes it: ``600MB``, ``4.2bpw``, ``15%``, ``int4_group_128``.
        policy: as in `Request`.
        formats: as `parse_formats` takes them.
        keep: as in `Request`.
        strict: ``formats="auto"`` never goes beyond INT8, INT4 and FP16.
        heads: names, or one text with commas; None for all.
        weights_for: as `parse_weights` takes them: ``depth=2,pose=1``.
        constraints: of `parse_constraints`.
        max_time: of a pass, as `read_time` takes it; whoever has a kernel table puts it into the ``conditions``.
        max_memory: of weights and activations, as `read_memory` takes it.
        views: pictures in a pass; 0 for whatever the table was measured with.

    Raises:
        InputError: what cannot be read, by the name of its setting.
    """
    names = [name.strip() for name in heads.split(",")] if isinstance(heads, str) else heads
    return Request(
        read_budget(budget),
        policy=policy,
        formats=parse_formats(formats, strict=strict),
        keep=keep,
        heads=None if names is None else tuple(names),
        weights={} if weights_for is None else parse_weights(weights_for),
        constraints=constraints,
        conditions=_conditions(max_time, max_memory, views),
    )


def _conditions(max_time: str | None, max_memory: str | None, views: int) -> Conditions | None:
    if max_time is None and max_memory is None:
        return None
    time = None if max_time is None else read_time(max_time)
    return Conditions(views, max_time=time, max_memory=None if max_memory is None else read_memory(max_memory))
