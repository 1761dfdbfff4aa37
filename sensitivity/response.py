"""How an output answers to a first-order error: the curve from sketched to measured damage.

The sketch ``s`` is the damage that an output would have if it were linear. Dense outputs and cameras nearly are. A
tracker that feeds displacements into sines of up to 1000 times their value, as published, is not: the smallest change
scrambles part of its state, and its outputs move by about the same whatever the cause. Both are one curve with three
numbers,

    damage(s) = gain * s + floor * s ** power,        0 <= power <= 1,

fitted to a few measured pairs of layer and format. A flat power law (power near 0) is the floor of chaos, which grows
slowly with the cause; the linear part is what a true error adds. First-order errors add up over layers and chaos does
not: the damage of a whole plan is the curve at the *sum* of its layers' sketches, not the sum of their damages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError

PAIRS = 48
"""Pairs of layer and format that are measured for the curves of all outputs."""

_LEAST = 8
_TINY = 1e-30


@dataclass(frozen=True)
class Response:
    """A fitted curve; the identity by default.

    Attributes:
        gain: of the linear part.
        floor: of the power law.
        power: its exponent; near 0 for chaos.

    >>> Response()(np.array([0.0, 1e-4])).tolist()
    [0.0, 0.0001]
    >>> Response(gain=1.0, floor=1e-5, power=0.0)(np.array([0.0, 1e-9, 1e-2])).round(8).tolist()
    [0.0, 1e-05, 0.01001]
    """

    gain: float = 1.0
    floor: float = 0.0
    power: float = 1.0

    def __call__(self, sketched: Array) -> Array:
        """Damage for sketched damage of any shape; none stays none."""
        sketched = np.asarray(sketched, dtype=np.float64)
        positive = np.maximum(sketched, _TINY)
        curve: Array = np.where(sketched > 0, self.gain * positive + self.floor * positive**self.power, 0.0)
        return curve


def fit_response(sketched: Array, measured: Array) -> Response:
    """The curve through measured pairs, by robust least squares of logarithms.

    Args:
        sketched: ``[pairs]`` first-order damage of one output; pairs with 0 do not count.
        measured: ``[pairs]`` true damage of the same.

    Raises:
        InputError: fewer than 8 pairs that count.

    >>> cause = 10.0 ** np.arange(-12, -2)
    >>> response = fit_response(cause, 0.5 * cause + 2e-5 * cause**0.05)
    >>> round(response.gain, 2), round(response.power, 2)
    (0.5, 0.05)
    """
    used = (sketched > 0) & (measured > 0) & np.isfinite(measured)
    if int(used.sum()) < _LEAST:
        raise InputError(f"a response needs {_LEAST} measured pairs with damage, got {int(used.sum())}: measure more")
    cause, effect = np.log(sketched[used]), np.log(measured[used])

    def deviation(x: Array) -> Array:
        residuals: Array = np.logaddexp(x[0] + cause, x[1] + x[2] * cause) - effect
        return residuals

    level, ratio = float(effect.mean()), float(np.median(effect - cause))
    starts = ((0.0, level, 0.05), (ratio, level - 0.5 * float(cause.mean()) - 3.0, 0.5))
    bounds = ([-25.0, -70.0, 0.0], [25.0, 25.0, 1.0])
    fits = [
        scipy.optimize.least_squares(deviation, start, bounds=bounds, loss="soft_l1") for start in map(_inside, starts)
    ]
    gain, floor, power = min(fits, key=lambda fit: float(fit.cost)).x
    return Response(float(np.exp(gain)), float(np.exp(floor)), float(power))


def _inside(start: Sequence[float]) -> list[float]:
    return [
        float(np.clip(value, low, high)) for value, low, high in zip(start, (-24, -69, 0), (24, 24, 1), strict=True)
    ]


def spread_pairs(sketched: Mapping[str, Array], count: int = PAIRS) -> list[tuple[int, int]]:
    """Which pairs to measure: for every output evenly spread over the order of its sketch.

    Args:
        sketched: per output ``[layers, formats]``.
        count: of all outputs together, at most.

    Returns:
        Different (layer, format) places.

    >>> spread_pairs({"depth": np.array([[4.0, 0.0], [1.0, 2.0], [3.0, 5.0]])}, 3)
    [(1, 0), (2, 0), (2, 1)]
    """
    chosen: dict[tuple[int, int], None] = {}
    for values in sketched.values():
        order = [place for place in np.argsort(values, axis=None, kind="stable") if values.flat[place] > 0]
        places = np.linspace(0, len(order) - 1, max(1, count // len(sketched))).round().astype(int) if order else ()
        chosen |= dict.fromkeys(divmod(int(order[place]), values.shape[1]) for place in places)
    return list(chosen)
