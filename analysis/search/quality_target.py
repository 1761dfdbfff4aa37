"""The smallest file that meets a quality target: how far figures may drop, or how large the damage may be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.evaluation.evaluator import Evaluator, MeasuredDamage
from mixedprec.planner import Planned, replanned
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.metrics.geometry import GEOMETRY, Estimate

STEPS = 33
"""Budgets on the front that the search looks at, in equal ratios from the smallest to the largest file."""
_NAMES = {key.replace("_", ""): key for key in GEOMETRY}


@dataclass(frozen=True)
class FigureLimit:
    """How far one figure may get worse.

    Attributes:
        key: of `GEOMETRY`.
        amount: in the unit of the figure; a fraction of FP32's value where ``relative``.
        relative: whether ``amount`` is a fraction.
    """

    key: str
    amount: float
    relative: bool

    def holds(self, fp32: Mapping[str, Estimate], quantized: Mapping[str, Estimate]) -> bool:
        """Whether the mean over the scenes got worse by no more than this."""
        reference, value = fp32[self.key].mean, quantized[self.key].mean
        worse = reference - value if GEOMETRY[self.key].higher_is_better else value - reference
        return worse <= (self.amount * abs(reference) if self.relative else self.amount)

    @property
    def text(self) -> str:
        """For people."""
        metric = GEOMETRY[self.key]
        shown = f"{100 * self.amount:g}%" if self.relative else f"{metric.change_factor * self.amount:g}"
        return f"{metric.title} worse by {shown} at most"


@dataclass(frozen=True)
class QualityTarget:
    """What a plan has to reach on held-out scenes.

    Attributes:
        damage: measured damage, at most; None for no such limit.
        drops: limits of geometry figures.
    """

    damage: float | None = None
    drops: tuple[FigureLimit, ...] = ()

    def list_missed(self, fp32: MeasuredDamage, quantized: MeasuredDamage) -> list[str]:
        """What does not hold, in words."""
        limits = [limit.text for limit in self.drops if not limit.holds(fp32.geometry, quantized.geometry)]
        if self.damage is not None and not quantized.damage <= self.damage:
            limits.append(f"damage {quantized.damage:.2e} of {self.damage:g}")
        return limits

    @property
    def text(self) -> list[str]:
        """What is asked for, in words."""
        asked = [limit.text for limit in self.drops]
        return asked + ([] if self.damage is None else [f"damage {self.damage:g} at most"])


@dataclass(frozen=True)
class Trial:
    """A plan of the search, what was measured, and what of the target it misses."""

    planned: Planned
    measured: MeasuredDamage
    broken: list[str]


def parse_drops(text: str) -> tuple[FigureLimit, ...]:
    """Read limits of figures.

    Args:
        text: such as ``auc30=0.5,absrel=2%``. A percentage is of FP32's value; a plain number is in the unit in which
            changes of the figure are shown: points of 100 for AUC and shares, pixels for tracks.

    Raises:
        InputError: an unknown figure, or no number.

    >>> parse_drops("auc30=0.5,absrel=2%")
    (FigureLimit(key='auc30', amount=0.005, relative=False), FigureLimit(key='abs_rel', amount=0.02, relative=True))
    """
    limits = []
    for entry in text.split(","):
        match = re.fullmatch(r"\s*([A-Za-z0-9_.<@ ]+?)\s*=\s*([0-9.]+(?:e-?[0-9]+)?)\s*(%?)\s*", entry)
        key = _NAMES.get(match[1].lower().replace("_", "").replace("@", "")) if match else None
        if match is None or key is None:
            raise InputError(
                f"{setting('max_drop')}: {entry.strip()!r} is not of the form FIGURE=NUMBER or FIGURE=NUMBER% with a "
                f"figure among {', '.join(GEOMETRY)}"
            )
        try:
            number = float(match[2])
        except ValueError:
            raise InputError(f"{setting('max_drop')}: {match[2]!r} is no number") from None
        amount = number / 100 if match[3] else number / GEOMETRY[key].change_factor
        limits.append(FigureLimit(key, amount, bool(match[3])))
    return tuple(limits)


def read_target(max_drop: str | None, max_damage: float | None) -> QualityTarget | None:
    """What a user asks of the smallest file; None where nothing is asked.

    Args:
        max_drop: as `parse_drops` takes it.
        max_damage: the most measured damage.

    Raises:
        InputError: as `parse_drops`, or a damage that is not above 0.
    """
    if max_drop is None and max_damage is None:
        return None
    if max_damage is not None and not max_damage > 0:
        raise InputError(f"{setting('max_damage', f'{max_damage:g}')}: give a damage above 0, such as 0.001")
    return QualityTarget(max_damage, parse_drops(max_drop) if max_drop else ())


def find_smallest(
    start: Planned, evaluator: Evaluator, target: QualityTarget, progress: Progress = silent
) -> tuple[Trial, list[Trial]]:
    """The smallest plan on the front that meets a quality target, by bisection; every candidate is measured.

    Measured damage falls with the bytes on the whole, not strictly, so the result is the smallest among those that
    bisection measures; that it meets the target is measured, never assumed.

    Args:
        start: whose search space and settings are taken; its budget does not matter.
        evaluator: model and held-out scenes.
        target: what has to hold on them.
        progress: called at every measurement.

    Returns:
        The plan, and all that were measured, by size.

    Raises:
        InputError: even the largest file misses the target, or a figure of it does not apply to these scenes.
    """
    fp32 = evaluator.fp32()
    if absent := [limit.key for limit in target.drops if limit.key not in fp32.geometry]:
        raise InputError(
            f"{setting('max_drop')}: these scenes give no {absent[0]}, they have no ground truth for it; "
            f"known are {', '.join(fp32.geometry) or 'none'}"
        )
    budgets = front_budgets(start, STEPS)
    trials: dict[int, Trial] = {}

    def attempt(position: int) -> Trial:
        progress("measuring plans on held-out scenes", len(trials), len(budgets).bit_length() + 1)
        if position not in trials:
            planned = replanned(start, budgets[position])
            measured = evaluator.measure(planned.plan.formats)
            trials[position] = Trial(planned, measured, target.list_missed(fp32, measured))
        return trials[position]

    low, high = 0, len(budgets) - 1
    if attempt(high).broken:
        raise InputError(
            f"no plan of these formats meets the quality target: the largest, {budgets[high] / 1e6:.2f} MB, breaks "
            f"{'; '.join(attempt(high).broken)}. Allow more ({setting('max_drop')}, "
            f"{setting('max_damage')}) or other formats ({setting('formats', 'all')})"
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if attempt(middle).broken else (low, middle)
    return attempt(high), [trials[position] for position in sorted(trials)]


def front_budgets(start: Planned, count: int) -> Sequence[int]:
    """Bytes of files from the smallest plan to the one that more bytes would not change, in equal ratios."""
    problem, overhead = start.problem, start.plan.overhead_bytes
    choices = list(problem.choices.values())
    low = overhead + sum(min(choice.size_bytes for choice in group) for group in choices)
    best = [min(group, key=lambda choice: (choice.damage, choice.size_bytes)) for group in choices]
    high = overhead + sum(choice.size_bytes for choice in best)
    inner = (round(low * (high / low) ** (step / (count - 1))) for step in range(1, count - 1))
    return [low, *inner, high]
