"""Which scheme for whom: a stated rule for every scenario, and what the measurements favour under it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.evaluation.expected import ADVISED, EDGE_COMPRESSION
from analysis.evaluation.results import OTHER_PLAN, Evaluation, SchemeResult
from vggtkit.core.program import command

HARMLESS = 1e-3
"""Damage below which outputs are those of FP32 for most purposes: a signal 30 dB above the error."""
AS_FAST = 0.05
"""Times that differ by less than this share count as equal: repeats on a quiet machine spread as much."""
LAPTOP_SHARE_GB = 4
"""What a model may take of a laptop's 8 GB: the other half is the system's and that of whatever else runs."""
ALIKE = 0.1
"""Files whose sizes differ by less than this share count as of one size."""


@dataclass(frozen=True)
class Advice:
    """A scheme for a scenario.

    Attributes:
        scenario: key of it.
        title: of it, in English.
        rule: by which it was chosen, in English.
        chosen: what the measurements favour; None where nothing keeps the rule.
        advised: the guide's scheme, as measured; None where it was not, or where the guide says nothing.
        lacking: what the rule goes by and was not measured, in English; "" where all was.
    """

    scenario: str
    title: str
    rule: str
    chosen: SchemeResult | None
    advised: SchemeResult | None
    lacking: str = ""

    @property
    def is_of_guide(self) -> bool:
        """Whether the guide advises anything in this scenario."""
        return self.scenario in ADVISED

    @property
    def contradicts(self) -> bool:
        """Whether measurement favours another scheme than the guide does."""
        both = self.chosen is not None and self.advised is not None
        return both and self.chosen is not self.advised


@dataclass(frozen=True)
class Standing:
    """Where the plan stands among the uniform schemes.

    Attributes:
        on_front: no scheme of its size, or about its size, or smaller is more accurate.
        beside: the best scheme of about its size, and that scheme's damage over the plan's.
        better: the smallest scheme with less damage, the plan's damage over that scheme's, its size over the plan's.
    """

    on_front: bool
    beside: tuple[SchemeResult, float] | None
    better: tuple[SchemeResult, float, float] | None


def damage_of(result: SchemeResult) -> float:
    """Its damage; infinite where it is not a number, as what is broken is worst."""
    return math.inf if math.isnan(result.damage) else result.damage


def front(evaluation: Evaluation) -> list[SchemeResult]:
    """The results that no other beats in both size and damage, smallest first; FP32 is not among them."""
    kept: list[SchemeResult] = []
    for result in sorted(evaluation.quantized, key=lambda one: (one.size_bytes, damage_of(one))):
        if not kept or damage_of(result) < damage_of(kept[-1]):
            kept.append(result)
    return kept


def standing(evaluation: Evaluation) -> Standing | None:
    """Where the plan stands; None without a plan or without others."""
    plan = evaluation.plan
    others = [result for result in evaluation.quantized if result is not plan]
    if plan is None or not others:
        return None
    damage = damage_of(plan)
    alike = [one for one in others if abs(one.size_bytes / plan.size_bytes - 1) < ALIKE]
    beside = min(alike, key=damage_of, default=None)
    better = min((one for one in others if damage_of(one) < damage), key=lambda one: one.size_bytes, default=None)
    ratio = damage_of(beside) / damage if beside and damage else None
    return Standing(
        plan in front(evaluation) and (ratio is None or ratio >= 1),
        (beside, ratio) if beside and ratio is not None else None,
        (better, damage / damage_of(better), better.size_bytes / plan.size_bytes)
        if better and damage_of(better)
        else None,
    )


def advise(evaluation: Evaluation) -> list[Advice]:
    """Advice for every scenario: those of the guide, then a server's and a laptop's."""
    results, fp32 = evaluation.quantized, evaluation.results[0]
    by_key = {result.key: result for result in results}
    harmless = [one for one in results if damage_of(one) < HARMLESS]
    small = [one for one in results if fp32.size_bytes / one.size_bytes >= EDGE_COMPRESSION]
    uniform = [one for one in results if one.is_uniform and damage_of(one) < HARMLESS]
    rules = {
        "production": (
            "Production",
            "the smallest file with a damage below {limit}",
            min(harmless, key=lambda one: one.size_bytes, default=None),
        ),
        "edge": (
            "Mobile and edge",
            "the least damage of the files at least {compression} times smaller than FP32",
            min(small, key=damage_of, default=None),
        ),
        "accuracy": ("Highest accuracy", "the least damage of all", min(results, key=damage_of, default=None)),
        "prototype": (
            "Quick prototype",
            "no profile needed: the smallest uniform scheme with a damage below {limit}",
            min(uniform, key=lambda one: one.size_bytes, default=None),
        ),
    }
    of_guide = [Advice(key, *rule, by_key.get(ADVISED[key])) for key, rule in rules.items()]
    return [*of_guide, _on_server(harmless), _on_laptop(results)]


def _on_server(harmless: Sequence[SchemeResult]) -> Advice:
    """For whom time is what a server costs."""
    timed = [(one.seconds, one) for one in harmless if one.seconds is not None]
    least = min((seconds for seconds, _ in timed), default=0.0)
    fastest = [one for seconds, one in timed if seconds <= (1 + AS_FAST) * least]
    rule = (
        "the fastest with a damage below {limit}, as timed on the device of this run; of those within {as_fast} the "
        "smallest"
    )
    lacking = "not timed: evaluate with 1 repeat or more" if harmless and not timed else ""
    return Advice(
        "server", "GPU serving", rule, min(fastest, key=lambda one: one.size_bytes, default=None), None, lacking
    )


def _on_laptop(results: Sequence[SchemeResult]) -> Advice:
    """For whom memory is what there is little of."""
    known = [one for one in results if one.memory_bytes is not None]
    fitting = [one for one in known if (one.memory_bytes or 0) <= LAPTOP_SHARE_GB * 1e9]
    rule = "the least damage of those that take at most {laptop} GB of memory with the pictures of this run"
    lacking = "memory was not measured: evaluate with 1 repeat or more" if results and not known else ""
    return Advice("laptop", "8 GB laptop", rule, min(fitting, key=damage_of, default=None), None, lacking)


def export_command(result: SchemeResult, run: object) -> str:
    """The command that writes a result's packed file.

    >>> plan = SchemeResult("plan", "plan", 1, None, None, None, {}, 0.0, ())
    >>> export_command(plan, "runs/default").endswith("export --run runs/default")
    True
    """
    if result.key.startswith(OTHER_PLAN):
        return command("export", "--run", Path(result.key.removeprefix(OTHER_PLAN)).parent)
    scheme = () if result.key == "plan" else ("--scheme", result.key)
    return command("export", "--run", run, *scheme)
