"""What an audit found: types, what follows from them, JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.audit.plans import Regret, WholePlan, regret_intervals
from analysis.audit.ranks import Agreement, rank_correlation
from analysis.audit.rounding_or_bits import LayerNoise
from analysis.audit.stability import Stability
from analysis.evaluation.results import null_if_not_finite
from mixedprec.evidence import SKETCH
from sensitivity.response import Response
from vggtkit.core.arrays import Array
from vggtkit.core.seal import sealed
from vggtkit.model.outputs import outputs_by_task
from vggtkit.quant import Layer

_LOCAL_TASKS = ("pose", "depth", "points")
ALL, LOCAL, TRACKS = "all outputs", "camera, depth, points", "tracks"


def output_groups(outputs: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Outputs that scores are compared on, with the mean of their damage; of a model without cameras, all of them.

    >>> list(output_groups(["depth", "track"])), output_groups(["logits"])
    (['all outputs', 'camera, depth, points', 'tracks'], {'all outputs': ('logits',)})
    """
    tasks = outputs_by_task(outputs)
    local = tuple(name for task in _LOCAL_TASKS for name in tasks.get(task, ()))
    groups = {ALL: tuple(name for names in tasks.values() for name in names), LOCAL: local}
    groups[TRACKS] = tasks.get("tracks", ())
    return {group: names for group, names in groups.items() if names}


def local_outputs(outputs: Iterable[str]) -> tuple[str, ...]:
    """Those of camera, depth and points, whose damages add up; all of them where there are none of these."""
    groups = output_groups(outputs)
    return groups.get(LOCAL, groups[ALL])


JOINT = "joint"
"""Plans made from it as ``plan`` makes them, by what all layers do together."""
DEFAULTS = (SKETCH, JOINT)

NOT_CHEAP = ("truth", "random", "inverted")
DIGITS = 4


@dataclass(frozen=True)
class ScoreResult:
    """A score, or a baseline, in the audit.

    Attributes:
        key: of `sensitivity.scores.SCORES`, or ``"joint"``, ``"truth"``, ``"random"``, ``"inverted"``.
        title: for people.
        passes: what it costs, in forward passes over one scene.
        agreement: with true damage, by group of outputs.
        regrets: of its plans, by budget.
    """

    key: str
    title: str
    passes: float
    agreement: Mapping[str, Agreement]
    regrets: Sequence[Regret]

    @property
    def regret(self) -> float:
        """Measured regret, mean over the budgets: the number that counts."""
        return float(np.mean([regret.measured for regret in self.regrets])) if self.regrets else float("nan")


@dataclass(frozen=True)
class Additivity:
    """How predicted and measured damage of whole plans agree, for one way to predict.

    Attributes:
        spearman: rank correlation over the plans.
        slope: of the logarithm of measured over that of predicted damage; 1 where they are proportional.
        ratio: measured over predicted, median.
    """

    spearman: float
    slope: float
    ratio: float


@dataclass(frozen=True)
class Audit:
    """Everything that ``audit`` measured.

    Attributes:
        facts: provenance.
        layers: that were measured.
        schemes: formats that were measured.
        scenes: held-out ones, on which damage is true.
        judges: on which the plans made from every score were measured.
        calibration_scenes: on which the scores were made.
        scores: the cheap ones, then the truth and the baselines.
        ceiling: rank correlation that a perfect score would reach, by group of outputs, as the truth itself is noisy.
        damage: true damage per output, ``[layers, schemes]``, mean over scenes.
        sketched: first-order damage per output, ``[layers, schemes]``.
        responses: curve from one to the other, per output.
        worse: change for the worse of figures against ground truth, ``[layers, schemes]``.
        fp32: the same figures of FP32.
        plans: whole plans, predicted and measured.
        classes: damage by token class ``[layers of the trunk, schemes]``, with ``"all"`` of all tokens together.
        trunk: the layers of ``classes``.
        class_schemes: the formats of ``classes``.
        stability: None where it was not asked for.
        noise: damage of the profile's layers in a coarse format beside that of noise; empty if not known.
    """

    facts: Mapping[str, object]
    layers: Sequence[Layer]
    schemes: Sequence[str]
    scenes: Sequence[str]
    judges: Sequence[str]
    calibration_scenes: Sequence[str]
    scores: Sequence[ScoreResult]
    ceiling: Mapping[str, float]
    damage: Mapping[str, Array]
    sketched: Mapping[str, Array]
    responses: Mapping[str, Response]
    worse: Mapping[str, Array]
    fp32: Mapping[str, float]
    plans: Sequence[WholePlan]
    classes: Mapping[str, Array]
    trunk: Sequence[Layer]
    class_schemes: Sequence[str]
    stability: Stability | None
    noise: Sequence[LayerNoise] = ()

    @property
    def total(self) -> Array:
        """True damage ``[layers, schemes]``, mean over outputs."""
        return np.asarray(np.mean(list(self.damage.values()), axis=0))

    @property
    def local(self) -> Array:
        """The same, mean over the outputs of camera, depth and points: without the chaos of the tracks."""
        return np.asarray(np.mean([self.damage[name] for name in local_outputs(self.damage)], axis=0))

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Outputs that scores are compared on."""
        return output_groups(self.damage)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Of every score's mean regret, 95 %."""
        return regret_intervals({score.key: score.regrets for score in self.scores})

    @property
    def favoured(self) -> ScoreResult:
        """The cheapest of the scores whose regret lies within the interval of the least regret of a cheap score."""
        cheap = [score for score in self.scores if score.key not in NOT_CHEAP]
        least = min(cheap, key=lambda score: score.regret)
        good = [score for score in cheap if score is least or score.regret <= self.intervals[least.key][1]]
        return min(good, key=lambda score: (score.passes, score.regret))

    def score(self, key: str) -> ScoreResult:
        """The result of one score.

        Raises:
            KeyError: it was not compared.
        """
        return {score.key: score for score in self.scores}[key]

    def worse_correlation(self, figure: str) -> float:
        """Spearman of the size of a figure's change with true damage, over all layers and formats."""
        return rank_correlation(np.abs(self.worse[figure]), self.total)

    def predictions(self, plan: WholePlan, outputs: Sequence[str]) -> dict[str, float]:
        """Predictions of a whole plan's damage, mean over some outputs."""
        there = [name for name in outputs if name in plan.measured]
        ways = {
            "sum of true damages": [plan.summed[name] for name in there],
            "sum of sketches": [plan.sketched[name] for name in there],
            "sketch of all together": [plan.together[name] for name in there],
            "response of summed sketches": [
                float(self.responses[name](np.array(plan.sketched[name]))) for name in there
            ],
        }
        return {way: float(np.mean(values)) for way, values in ways.items()}

    def additivity(self) -> dict[str, dict[str, Additivity]]:
        """By group of outputs and way to predict."""
        by_group: dict[str, dict[str, Additivity]] = {}
        for group, outputs in self.groups.items():
            there = [name for name in outputs if name in self.damage]
            if there and self.plans:
                measured = np.array([np.mean([plan.measured[name] for name in there]) for plan in self.plans])
                rows = [self.predictions(plan, there) for plan in self.plans]
                by_group[group] = {way: _fit(np.array([row[way] for row in rows]), measured) for way in rows[0]}
        return by_group


def _fit(predicted: Array, measured: Array) -> Additivity:
    positive = (predicted > 0) & (measured > 0)
    if int(positive.sum()) < 2:
        return Additivity(float("nan"), float("nan"), float("nan"))
    x, y = np.log(predicted[positive]), np.log(measured[positive])
    return Additivity(rank_correlation(x, y), float(np.polyfit(x, y, 1)[0]), float(np.exp(np.median(y - x))))


def audit_summary(audit: Audit) -> dict[str, object]:
    """What an audit says, without its arrays."""
    return {
        "question": "which cheap score orders layers and formats as their true damage does, and plans best?",
        "layers": len(audit.layers),
        "formats": list(audit.schemes),
        "scenes": list(audit.scenes),
        "judges": list(audit.judges),
        "calibration_scenes": list(audit.calibration_scenes),
        "default": {"score": SKETCH, "plan": JOINT},
        "favoured": audit.favoured.key,
        "scores": {
            score.key: {
                "title": score.title,
                "passes": score.passes,
                "regret": score.regret,
                "regret_interval": list(audit.intervals[score.key]),
                "agreement": {group: dataclasses.asdict(agreement) for group, agreement in score.agreement.items()},
                "budgets": [dataclasses.asdict(regret) for regret in score.regrets],
            }
            for score in audit.scores
        },
        "ceiling": dict(audit.ceiling),
        "responses": {name: dataclasses.asdict(curve) for name, curve in audit.responses.items()},
        "additivity": {
            group: {way: dataclasses.asdict(fit) for way, fit in ways.items()}
            for group, ways in audit.additivity().items()
        },
        "geometry": {
            figure: {
                "fp32": audit.fp32[figure],
                "largest_change_for_the_worse": float(values.max()),
                "spearman_with_damage": audit.worse_correlation(figure),
            }
            for figure, values in audit.worse.items()
        },
        "stability": dataclasses.asdict(audit.stability) if audit.stability else None,
    }


def audit_to_json(audit: Audit) -> str:
    """The summary and, per layer and format, everything that was measured; numbers with 4 digits."""
    arrays = {
        "layers": [layer.name for layer in audit.layers],
        "damage": {name: _rounded(values) for name, values in audit.damage.items()},
        "sketched": {name: _rounded(values) for name, values in audit.sketched.items()},
        "worse": {name: _rounded(values) for name, values in audit.worse.items()},
        "trunk": [layer.name for layer in audit.trunk],
        "token_classes": {name: _rounded(values) for name, values in audit.classes.items()},
        "token_class_formats": list(audit.class_schemes),
        "plans": [dataclasses.asdict(plan) for plan in audit.plans],
        "beside_noise": [dataclasses.asdict(layer) for layer in audit.noise],
    }
    document = {"schema_version": 1, "provenance": dict(audit.facts), **audit_summary(audit), "measured": arrays}
    finite: Any = null_if_not_finite(document)
    return json.dumps(sealed(finite), allow_nan=False)


def _rounded(values: Array) -> list[list[float]]:
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in values]
