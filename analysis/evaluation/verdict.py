"""What an evaluation speaks for: what is recommended and how the plan stands, computed once and said everywhere alike.

Sentences are English; reports in other languages find them in their catalogues.
"""

import math
from dataclasses import dataclass

from analysis.evaluation.advice import Standing, advise, damage_of, standing
from analysis.evaluation.cost import describe_cost
from analysis.evaluation.results import Evaluation, SchemeResult, compression_ratio, format_mb, format_number


@dataclass(frozen=True)
class VerdictRow:
    """One uniform scheme against the plan; ``damage_ratio`` is the scheme's damage / the plan's."""

    key: str
    title: str
    size_bytes: int
    damage: float
    damage_ratio: float
    plan_is_smaller: bool  # or of the same size: only then is the comparison asked for
    plan_is_better: bool
    scenes_won: int


@dataclass(frozen=True)
class Verdict:
    """What an evaluation speaks for.

    Attributes:
        holds: whether the plan is better than every uniform scheme of its size or larger; None where none is.
        sentences: what is recommended, and how the plan stands beside the others.
        comparison: of the plan and the uniform schemes of its size or larger, by their number and names.
        rows: the uniform schemes one by one.
        recommended: key of the scheme that is; "" where none was evaluated.
    """

    holds: bool | None
    sentences: tuple[str, ...]
    comparison: str
    rows: tuple[VerdictRow, ...]
    recommended: str = ""

    @property
    def sentence(self) -> str:
        """The sentences as one text."""
        return " ".join(self.sentences)


def verdict(evaluation: Evaluation) -> Verdict:
    """What is recommended, and the plan's damage beside that of every uniform scheme.

    Schemes smaller than the plan are listed and not counted. A damage that is not finite is worse than any
    that is; equal damage is not better.

    >>> size_and_damage = {"fp32": (40, 0.0), "int8_per_tensor_sym": (10, 1e-6), "plan": (5, 1e-4)}
    >>> results = tuple(
    ...     SchemeResult(key, key, mb * 10**6, None, None, None, {}, damage, (damage,))
    ...     for key, (mb, damage) in size_and_damage.items()
    ... )
    >>> answer = verdict(Evaluation({}, "tiny", "", ("room",), (), "", results, {}, None))
    >>> print(*answer.sentences, sep=chr(10))
    Recommended: plan. Its file of 5.00 MB is 8.00 times smaller than FP32's, its damage 1.00e-4.
    The plan (5.00 MB, damage 1.00e-4) is the most accurate of its size: nothing else is both as small and as accurate.
    int8_per_tensor_sym is 100 times more accurate at 2.00 times its bytes.
    >>> print(answer.comparison.split(". ")[1])
    Not better than int8_per_tensor_sym (10.00 MB, 1.00e-6).
    """
    plan = evaluation.plan
    if not evaluation.quantized:
        return Verdict(None, ("Only FP32 was evaluated.",), "", ())
    where = standing(evaluation)
    chosen = recommended(evaluation, where)
    said = [_recommendation(evaluation, chosen), *_standing_sentences(plan, where)]
    rows = tuple(_versus(plan, scheme) for scheme in evaluation.quantized if scheme.is_uniform) if plan else ()
    asked = [row for row in rows if row.plan_is_smaller]
    holds = all(row.plan_is_better for row in asked) if asked else None
    if plan is None:
        said.append("No plan was evaluated.")
    elif not rows:
        said.append("No uniform scheme was evaluated.")
    return Verdict(holds, tuple(said), _comparison(plan, rows) if plan and rows else "", rows, chosen.key)


def recommended(evaluation: Evaluation, where: Standing | None) -> SchemeResult:
    """The plan where nothing of about its size or smaller is more accurate, else what beats it.

    Without a plan it is what is advised for production, and where nothing is, the most accurate scheme. A plan that
    stands alone is recommended, as nothing is known against it.

    Args:
        evaluation: with at least one scheme beside FP32.
        where: its plan stands.
    """
    if where is not None and where.on_front and evaluation.plan is not None:
        return evaluation.plan
    if where is not None and where.beside is not None:
        return where.beside[0]
    return advise(evaluation)[0].chosen or min(evaluation.quantized, key=damage_of)


def _recommendation(evaluation: Evaluation, chosen: SchemeResult) -> str:
    ratio = compression_ratio(chosen, evaluation.results[0])
    return (
        f"Recommended: {chosen.title}. Its file of {format_mb(chosen.size_bytes)} MB is {ratio:.2f} times smaller than "
        f"FP32's, its damage {format_number(chosen.damage)}."
    )


def _standing_sentences(plan: SchemeResult | None, where: Standing | None) -> list[str]:
    """Where the plan stands among the others, in plain words."""
    if plan is None:
        return []
    said = []
    if where is not None:
        said.append(
            f"{_named(plan)} is the most accurate of its size: nothing else is both as small and as accurate."
            if where.on_front
            else f"{_named(plan)} is beaten: a scheme of about its size or smaller is more accurate."
        )
        if where.beside is not None:
            other, ratio = where.beside
            said.append(
                f"{other.title}, the best of about its size ({format_mb(other.size_bytes)} MB), does "
                f"{format_number(ratio)} times its damage."
            )
        if where.better is not None and (where.beside is None or where.beside[0] is not where.better[0]):
            other, ratio, size = where.better
            said.append(f"{other.title} is {format_number(ratio)} times more accurate at {size:.2f} times its bytes.")
    if cost := describe_cost(plan.changes, intervals=True):
        said.append(f"What the plan costs against the truth of the scenes: {cost}.")
    return said


def _comparison(plan: SchemeResult, rows: tuple[VerdictRow, ...]) -> str:
    asked = [row for row in rows if row.plan_is_smaller]
    smaller = len(rows) - len(asked)
    if not asked:
        return f"{_named(plan)} is larger than every uniform scheme here, {smaller} of them."
    won = sum(row.plan_is_better for row in asked)
    said = [f"{_named(plan)} is better than {won} of the {len(asked)} uniform schemes of its size or larger."]
    if lost := [row for row in asked if not row.plan_is_better]:
        listed = ", ".join(f"{row.title} ({format_mb(row.size_bytes)} MB, {format_number(row.damage)})" for row in lost)
        said.append(f"Not better than {listed}.")
    if smaller:
        said.append(f"Not counted, being smaller than the plan: {smaller}.")
    return " ".join(said)


def _named(plan: SchemeResult) -> str:
    return f"The plan ({format_mb(plan.size_bytes)} MB, damage {format_number(plan.damage)})"


def _versus(plan: SchemeResult, scheme: SchemeResult) -> VerdictRow:
    scenes = zip(plan.per_scene, scheme.per_scene, strict=True)
    return VerdictRow(
        scheme.key,
        scheme.title,
        scheme.size_bytes,
        scheme.damage,
        scheme.damage / plan.damage if plan.damage else math.nan if not scheme.damage else math.inf,
        plan_is_smaller=scheme.size_bytes >= plan.size_bytes,
        plan_is_better=damage_of(plan) < damage_of(scheme),
        scenes_won=sum(_worst_if_nan(ours) < _worst_if_nan(theirs) for ours, theirs in scenes),
    )


def _worst_if_nan(damage: float) -> float:
    return math.inf if math.isnan(damage) else damage
