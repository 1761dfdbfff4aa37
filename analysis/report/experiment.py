"""Everything that a run folder holds, read once: what a report of the experiment is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from analysis.audit.attribution import ClassShares
from analysis.audit.results import Audit
from analysis.audit.transfer import Transfer
from analysis.evaluation.depth_maps import DepthMaps
from analysis.evaluation.results import Evaluation
from analysis.evaluation.verdict import Verdict
from analysis.inspection.layer import Inspection
from analysis.search.pareto import Pareto
from analysis.search.time_front import TimeFront
from mixedprec import Plan
from sensitivity import Profile
from vggtkit.core.command_log import LoggedCommand


class Absent(NamedTuple):
    """A file that a report would draw on and that is not there, or not of this run.

    Attributes:
        file: its name.
        reason: in words.
        command: that makes it.
    """

    file: str
    reason: str
    command: str


class ParetoPoint(NamedTuple):
    """A model that ``pareto`` looked at.

    Attributes:
        kind: plan, uniform or baseline.
        title: for people.
        size_bytes: of the file.
        predicted: damage.
        measured: damage on held-out scenes; None where it was not run.
    """

    kind: str
    title: str
    size_bytes: int
    predicted: float
    measured: float | None


class ParetoSummary(NamedTuple):
    """What ``pareto`` found.

    Attributes:
        points: all models.
        beating: titles of those that a plan of their bytes or more does not beat.
        whole: all of it, to be drawn; None where the file has less.
        timed: the front over time; None where none was asked for.
    """

    points: tuple[ParetoPoint, ...]
    beating: tuple[str, ...]
    whole: Pareto | None = None
    timed: TimeFront | None = None


class ScoreSummary(NamedTuple):
    """A score in the audit.

    Attributes:
        key: its name.
        passes: forward passes that it costs.
        spearman: rank correlation with true damage, over all outputs.
        regret: damage of its plans over the best plan's,
        low: and its interval,
        high: of 95 %.
    """

    key: str
    passes: float
    spearman: float
    regret: float
    low: float
    high: float


class AuditSummary(NamedTuple):
    """What ``audit`` found.

    Attributes:
        layers: that were measured.
        formats: in which they were.
        favoured: key of the score that is.
        scores: all of them.
        token_classes: which tokens carry the damage of the trunk; empty where that is not known.
        whole: all of it, to be drawn; None where the file has less.
    """

    layers: int
    formats: tuple[str, ...]
    favoured: str
    scores: tuple[ScoreSummary, ...]
    token_classes: tuple[ClassShares, ...] = ()
    whole: Audit | None = None


@dataclass(frozen=True)
class Experiment:
    """A run, as far as it went; what is not there is None and named in ``absent``.

    Attributes:
        run: its folder.
        profile: of the model's layers.
        plan: that was made from it.
        evaluation: of the plan and the uniform schemes.
        verdict: on the plan, computed once.
        maps: depth on one scene.
        pareto: size against damage.
        audit: scores against true damage.
        transfer: the same scores and plans on other scenes.
        inspections: layers from close by.
        commands: that were run in the folder.
        files: bytes by name.
        absent: what is not there.
    """

    run: Path
    profile: Profile | None = None
    plan: Plan | None = None
    evaluation: Evaluation | None = None
    verdict: Verdict | None = None
    maps: DepthMaps | None = None
    pareto: ParetoSummary | None = None
    audit: AuditSummary | None = None
    transfer: Transfer | None = None
    inspections: tuple[Inspection, ...] = ()
    commands: tuple[LoggedCommand, ...] = ()
    files: Mapping[str, int] = field(default_factory=dict)
    absent: tuple[Absent, ...] = ()

    @property
    def model(self) -> str:
        """What the model is called."""
        for part in (self.evaluation, self.plan):
            if part is not None:
                return part.model
        return str(self.profile.facts.get("model", "")) if self.profile else ""

    @property
    def is_random(self) -> bool:
        """Whether the weights are random, so that numbers say nothing about a trained network."""
        if self.profile is not None:
            return self.profile.facts.get("weights") == "random"
        return self.evaluation is not None and self.evaluation.weights_note.startswith("RANDOM")

    @property
    def facts(self) -> Mapping[str, object]:
        """Where the numbers come from: of the evaluation, else of the profile, else of the plan."""
        if self.evaluation is not None:
            return self.evaluation.provenance
        if self.profile is not None:
            return self.profile.facts
        return self.plan.provenance if self.plan else {}
