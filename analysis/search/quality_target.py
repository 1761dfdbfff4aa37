"""The smallest file that keeps a promise: how far figures may drop, or how large the damage may be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.evaluation.evaluator import Evaluator, Measured
from mixedprec.planner import Planned, replanned
from vggtkit.core.errors import InputError
from vggtkit.core.provenance import Progress, silent
from vggtkit.metrics.geometry import GEOMETRY, Estimate

STEPS = 33
"""Budgets on the front that the search looks at, in equal ratios from the smallest to the largest file."""
_NAMES = {key.replace("_", ""): key for key in GEOMETRY}


@dataclass(frozen=True)
class Limit:
    """How far one figure may get worse.

    Attributes:
        key: of `GEOMETRY`.
        amount: in the unit of the figure; a fraction of FP32's value where ``relative``.
        relative: whether ``amount`` is a fraction.
    """

    key: str
    amount: float
    relative: bool

    def kept(self, fp32: Mapping[str, Estimate], found: Mapping[str, Estimate]) -> bool:
        """Whether the mean over the scenes got worse by no more than this."""
        reference, value = fp32[self.key].mean, found[self.key].mean
        worse = reference - value if GEOMETRY[self.key].higher_is_better else value - reference
        return worse <= (self.amount * abs(reference) if self.relative else self.amount)

    @property
    def text(self) -> str:
        """For people."""
        metric = GEOMETRY[self.key]
        shown = f"{100 * self.amount:g}%" if self.relative else f"{metric.change_factor * self.amount:g}"
        return f"{metric.title} worse by {shown} at most"


@dataclass(frozen=True)
class Promise:
    """What a plan has to keep on held-out scenes.

    Attributes:
        damage: measured damage, at most; None for no such limit.
        drops: limits of geometry figures.
    """

    damage: float | None = None
    drops: tuple[Limit, ...] = ()

    def broken(self, fp32: Measured, found: Measured) -> list[str]:
        """What does not hold, in words."""
        said = [limit.text for limit in self.drops if not limit.kept(fp32.geometry, found.geometry)]
        if self.damage is not None and not found.damage <= self.damage:
            said.append(f"damage {found.damage:.2e} of {self.damage:g}")
        return said


@dataclass(frozen=True)
class Tried:
    """A plan of the search: what it takes, what was measured, and what it breaks of the promise."""

    found: Planned
    measured: Measured
    broken: list[str]


def parse_drops(text: str) -> tuple[Limit, ...]:
    """Limits as ``--max-drop`` takes them.

    Args:
        text: such as ``auc30=0.5,absrel=2%``. A percentage is of FP32's value; a plain number is in the unit in which
            changes of the figure are shown: points of 100 for AUC and shares, pixels for tracks.

    Raises:
        InputError: an unknown figure, or no number.

    >>> parse_drops("auc30=0.5,absrel=2%")
    (Limit(key='auc30', amount=0.005, relative=False), Limit(key='abs_rel', amount=0.02, relative=True))
    """
    limits = []
    for entry in text.split(","):
        match = re.fullmatch(r"\s*([A-Za-z0-9_.<@ ]+?)\s*=\s*([0-9.]+(?:e-?[0-9]+)?)\s*(%?)\s*", entry)
        key = _NAMES.get(match[1].lower().replace("_", "").replace("@", "")) if match else None
        if match is None or key is None:
            raise InputError(
                f"--max-drop: {entry.strip()!r} is not of the form FIGURE=NUMBER or FIGURE=NUMBER% with a figure among "
                f"{', '.join(GEOMETRY)}"
            )
        try:
            number = float(match[2])
        except ValueError:
            raise InputError(f"--max-drop: {match[2]!r} is no number") from None
        amount = number / 100 if match[3] else number / GEOMETRY[key].change_factor
        limits.append(Limit(key, amount, bool(match[3])))
    return tuple(limits)


def smallest_keeping(
    start: Planned, evaluator: Evaluator, promise: Promise, progress: Progress = silent
) -> tuple[Tried, list[Tried]]:
    """The smallest plan on the front that keeps a promise, by bisection; every candidate is measured.

    Measured damage falls with the bytes on the whole, not strictly, so what is found is the smallest among those that
    bisection measures; that it keeps the promise is measured, never assumed.

    Args:
        start: whose space and settings are taken; its budget does not matter.
        evaluator: model and held-out scenes.
        promise: what has to hold on them.
        progress: told about every measurement.

    Returns:
        The plan, and all that were measured, by size.

    Raises:
        InputError: even the largest file breaks the promise, or a figure of it does not apply to these scenes.
    """
    fp32 = evaluator.fp32()
    if absent := [limit.key for limit in promise.drops if limit.key not in fp32.geometry]:
        raise InputError(
            f"--max-drop: these scenes give no {absent[0]}, they have no ground truth for it; "
            f"known are {', '.join(fp32.geometry) or 'none'}"
        )
    budgets = front_budgets(start, STEPS)
    tried: dict[int, Tried] = {}

    def attempt(position: int) -> Tried:
        progress("measuring plans on held-out scenes", len(tried), len(budgets).bit_length() + 1)
        if position not in tried:
            found = replanned(start, budgets[position])
            measured = evaluator.measure(found.plan.formats)
            tried[position] = Tried(found, measured, promise.broken(fp32, measured))
        return tried[position]

    low, high = 0, len(budgets) - 1
    if attempt(high).broken:
        raise InputError(
            f"no plan of these formats keeps the promise: the largest, {budgets[high] / 1e6:.2f} MB, breaks "
            f"{'; '.join(attempt(high).broken)}. Allow more (--max-drop, --max-damage) or other formats (--formats all)"
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if attempt(middle).broken else (low, middle)
    return attempt(high), [tried[position] for position in sorted(tried)]


def front_budgets(found: Planned, count: int) -> Sequence[int]:
    """Bytes of files from the smallest plan to the one that more bytes would not change, in equal ratios."""
    problem, overhead = found.problem, found.plan.overhead_bytes
    choices = list(problem.choices.values())
    low = overhead + sum(min(choice.size_bytes for choice in group) for group in choices)
    best = [min(group, key=lambda choice: (choice.damage, choice.size_bytes)) for group in choices]
    high = overhead + sum(choice.size_bytes for choice in best)
    inner = (round(low * (high / low) ** (step / (count - 1))) for step in range(1, count - 1))
    return [low, *inner, high]
