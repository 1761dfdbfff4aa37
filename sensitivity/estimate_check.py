"""Does the estimate hold? What the sketch expects of the uniform INT4 schemes, beside what they were measured to do.

Every profile runs the model under the uniform schemes anyway. Damage of single layers is estimated (to first order,
from gradients), so the sum over the layers under a scheme has to come near to what the scheme does, apart from what
layers do together, which the same sketch knows with its sign. Where neither comes within a factor of `LIMIT`, something
keeps the gradients from seeing what the layers do, and no plan that is made of these estimates can be called optimal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from sensitivity.store import Changes, Profile
from vggtkit.core.arrays import Array

LIMIT = 3.0
"""The factor by which estimate and measurement may differ."""

LARGEST_SHARE = 0.1
"""Damage beyond which first order says no more than that there is much."""

LEAST = 1e-9
"""Damage below which FP32 itself may differ between two ways to compute the same."""

FLOORS = 10
"""Damage counts above this many times what two FP32 passes differ by."""


class EstimateCheck(NamedTuple):
    """Estimate and measurement of one output under the INT4 scheme where they differ most.

    Attributes:
        scheme: key of the format.
        summed: estimated damage, as a sum over layers.
        jointly: the same with what layers do to each other.
        measured: damage.
        ratio: estimate over measurement, of the estimate that is nearer; 1 between the two. Damage above
            `LARGEST_SHARE` counts as that, and below the floor as the floor.
        samples: scenes times probes that the estimate is a mean over.
    """

    scheme: str
    summed: float
    jointly: float
    measured: float
    ratio: float
    samples: int

    @property
    def holds(self) -> bool:
        """Whether the two are within a factor of `LIMIT`, which is wider where few samples scatter by themselves.

        In the worst case, one direction of the output, the samples are squares of normal numbers: their mean is taken
        to lie within one standard deviation.
        """
        least, most = (
            2 * float(scipy.special.gammaincinv(self.samples / 2, share)) / self.samples for share in (0.16, 0.84)
        )
        return least / LIMIT <= self.ratio <= LIMIT * most


def check_estimates(profile: Profile) -> dict[str, EstimateCheck]:
    """Estimate beside measurement, for every output; empty where no INT4 scheme was run."""
    schemes = [key for key in profile.schemes if key.startswith("int4") and key in profile.candidates]
    floors = noise_floors(profile.facts, tuple(profile.damage))
    return {
        name: max(
            (_compared(profile, name, key, floors[name]) for key in schemes), key=lambda row: abs(np.log(row.ratio))
        )
        for name in profile.damage
        if schemes and name in profile.uniform
    }


def _compared(profile: Profile, output: str, scheme: str, floor: float) -> EstimateCheck:
    column = profile.column(scheme)
    summed = float(profile.damage[output][:, column].sum())
    changes: Changes | None = profile.changes.get(output)
    jointly = summed if changes is None else _jointly(changes[:, column])
    measured = float(profile.uniform[output][profile.schemes.index(scheme)])
    samples = 1 if changes is None else int(np.prod(changes.shape[2:]))
    return EstimateCheck(scheme, summed, jointly, measured, ratio(summed, jointly, measured, floor), samples)


def _jointly(changes: Changes) -> float:
    together: Array = changes.astype(np.float64).sum(0)
    return float(np.square(together).mean())


def ratio(summed: float, jointly: float, measured: float, floor: float) -> float:
    """Estimate over measurement, see `EstimateCheck`.

    >>> ratio(2e-3, 4e-3, 3e-3, 1e-9), round(ratio(2e-3, 4e-3, 8e-3, 1e-9), 3)
    (1.0, 0.5)
    >>> round(ratio(0.0, 0.0, 5e-3, 1e-9), 9), ratio(3.0, 2.0, 0.8, 1e-9), ratio(1e-12, 0.0, 1e-11, 1e-9)
    (2e-07, 1.0, 1.0)
    """
    least, most, truth = (
        float(np.clip(np.nan_to_num(value, nan=np.inf), floor, max(floor, LARGEST_SHARE)))
        for value in (min(summed, jointly), max(summed, jointly), measured)
    )
    return most / truth if truth > most else least / truth if truth < least else 1.0


def noise_floors(facts: Mapping[str, object], outputs: Sequence[str]) -> dict[str, float]:
    """Damage that says nothing, by output: what rounding and passes that are not repeatable make."""
    repeated = facts.get("repeatability")
    known: Mapping[str, float] = repeated if isinstance(repeated, Mapping) else {}
    rounding = facts.get("rounding_floor")
    least = max(LEAST, float(rounding) if isinstance(rounding, int | float) else 0.0)
    return {name: max(least, FLOORS * float(known.get(name, 0.0))) for name in outputs}
