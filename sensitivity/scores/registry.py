"""What a cheap score is, and the one registry of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model import VGGT
from quant import Layer
from scenes import Scene
from sensitivity.sketch import WeightErrors
from sensitivity.store import Profile

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """What scores are made from: the profile, and the model and scenes that it was made on.

    Attributes:
        profile: with the errors of all layers' outputs and the sketch.
        model: the profiled one, in eval mode.
        scenes: calibration scenes.
        probes: random vectors per output and scene, as the profile was made with.
        seed: of what is random.
    """

    profile: Profile
    model: VGGT
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
        return WeightErrors(self.model, self.layers, self.schemes)

    @cached_property
    def sketched(self) -> Mapping[str, Array]:
        """The profile's sketch for the scored formats: per output ``[layers, schemes]``."""
        columns = [self.profile.column(key) for key in self.schemes]
        return {name: values[:, columns] for name, values in self.profile.damage.items()}

    @property
    def backward_passes(self) -> int:
        """Of the sketch, over all scenes."""
        return len(self.scenes) * self.probes * len(self.sketched)


@dataclass(frozen=True)
class Score:
    """A cheap number for every layer and format that is to order them as their damage does.

    Attributes:
        key: in files.
        title: in tables.
        compute: ``[layers, schemes]``, higher is worse; NaN where it does not apply.
        passes: what it costs for all layers and schemes, in forward passes over one scene; a backward pass is two.
    """

    key: str
    title: str
    compute: Callable[[Evidence], Array]
    passes: Callable[[Evidence], float]


SCORES: dict[str, Score] = {}


def register(score: Score) -> Score:
    """Add a score to `SCORES`.

    Raises:
        ValueError: its key is taken.
    """
    if score.key in SCORES:
        raise ValueError(f"score {score.key!r} is registered already")
    SCORES[score.key] = score
    return score
