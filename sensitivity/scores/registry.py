"""What a cheap score is, and the one registry of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sensitivity.damage import pair_damage
from sensitivity.response import Response, fit_response, spread_pairs
from sensitivity.store import Profile
from sensitivity.weight_errors import WeightErrors
from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.core.registry import Registry
from vggtkit.quant import Layer
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

MEASURED_SCENES = 2
"""Calibration scenes on which the pairs of response curves are measured, at most."""


@dataclass(frozen=True)
class ScoringContext:
    """What scores are made from: the profile, and the subject and scenes that it was made on.

    Attributes:
        profile: with the errors of all layers' outputs and the sketch.
        subject: the profiled one.
        scenes: calibration scenes.
        probes: random vectors per output and scene, as the profile was made with.
        seed: of what is random.
    """

    profile: Profile
    subject: Subject
    scenes: Sequence[Scene]
    probes: int
    seed: int

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers that are scored."""
        return self.profile.layers

    @property
    def schemes(self) -> Sequence[str]:
        """The formats that every score is given for."""
        return self.profile.schemes

    @cached_property
    def errors(self) -> WeightErrors:
        """Of the layers' weights in the scored formats."""
        return WeightErrors(self.subject.model, self.layers, self.schemes)

    @cached_property
    def sketched(self) -> Mapping[str, Array]:
        """The profile's sketch for the scored formats: per output ``[layers, schemes]``."""
        columns = [self.profile.column(key) for key in self.schemes]
        return {name: values[:, columns] for name, values in self.profile.damage.items()}

    @cached_property
    def responses(self) -> Mapping[str, Response]:
        """The response curve of every output, from pairs measured on calibration scenes; the identity for too few."""
        pairs = spread_pairs(self.sketched)
        if not pairs:
            return dict.fromkeys(self.sketched, Response())
        named = [(self.layers[layer], self.schemes[scheme]) for layer, scheme in pairs]
        measured = [pair_damage(self.subject, named, scene) for scene in self.scenes[:MEASURED_SCENES]]
        rows, columns = np.transpose(pairs)
        return {
            name: _curve(values[rows, columns], np.mean([damage[name] for damage in measured], axis=0))
            for name, values in self.sketched.items()
        }

    def everywhere(self, score: Array) -> dict[str, Array]:
        """A score ``[layers, formats]`` that does not know the outputs, as that of each of them."""
        return dict.fromkeys(self.sketched, score)

    @property
    def backward_passes(self) -> int:
        """Of the sketch, over all scenes."""
        return len(self.scenes) * self.probes * len(self.sketched)


def _curve(sketched: Array, measured: Array) -> Response:
    try:
        return fit_response(sketched, measured)
    except InputError:  # a small network, or an output that hardly anything changes
        return Response()


@dataclass(frozen=True)
class Score:
    """A cheap number for every layer and format that is to order them as their damage does.

    Attributes:
        key: in files.
        title: in tables.
        compute: ``[layers, schemes]`` per output, higher is worse; NaN where it does not apply. A score that does
            not know the outputs is the same for all of them.
        passes: what it costs for all layers and schemes, in forward passes over one scene; a backward pass is two.
        reads_model: whether it needs the weights or the scenes; else the profile alone suffices.
    """

    key: str
    title: str
    compute: Callable[[ScoringContext], Mapping[str, Array]]
    passes: Callable[[ScoringContext], float]
    reads_model: bool = True


SCORES: Registry[Score] = Registry("score")
"""All scores by key."""


def register(score: Score) -> Score:
    """Add a score to `SCORES`.

    Raises:
        ValueError: its key is taken.
    """
    return SCORES.register(score.key, score)


def usable_score(score: Array) -> Array:
    """A score ``[layers, formats]`` as the solver takes it: no NaN, nothing negative, nothing infinite.

    >>> usable_score(np.array([[1.0, np.nan], [-1.0, 3.0], [np.inf, 5.0]])).tolist()
    [[1.0, 4.0], [0.0, 3.0], [10.0, 5.0]]
    """
    finite = np.where(np.isfinite(score), score, np.nan)
    largest = float(np.nanmax(finite)) if np.isfinite(finite).any() else 1.0
    filled = np.where(np.isposinf(score), 2 * largest, score)
    known = np.nan_to_num(np.nanmedian(np.where(np.isnan(finite).all(0), 0.0, finite), axis=0))
    return np.asarray(np.maximum(np.where(np.isnan(filled), known, filled), 0.0))
