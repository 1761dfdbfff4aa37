"""Is it the rounding or the bits? A layer's damage beside that of noise, and beside what calibrated rounding leaves.

An error of the same norm that knows nothing of the layer, Gaussian noise, does what the number of bits alone decides.
Rounding that does more damage has its errors where they count: codes that are chosen better help. Rounding to the
nearest seldom does, as its errors are much like noise; that they can be made better than noise all the same is what
the error left by a calibrated rounding shows.

Source of the control: exllamav3's attribution of a model's error to its layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.evaluation.results import format_number
from analysis.report.document import Row, Table
from analysis.report.profile_tables import role_title
from sensitivity.rounding_gain import CALIBRATED
from sensitivity.store import Profile
from vggtkit.quant import get_format

MORE_THAN_NOISE = 1.5
"""Times the damage of noise, from which on rounding itself is called the reason."""
LEFT = 0.5
"""Of the squared error, up to which calibrated rounding is worth it."""
EXPLANATION = (
    f"damage / noise: above 1 rounding does more than noise of the same norm; rounding: above {MORE_THAN_NOISE:g}, or "
    f"gptq leaves at most {LEFT:.0%} of the squared error of the layer's output: better codes help; else only bits do"
)


def attribution(damage: float, noise: float | None, left: float | None) -> str:
    """``"rounding"`` where better codes help, ``"bits"`` where only more bits do, ``"n/a"`` where there is no damage.

    Args:
        damage: of a layer in a format.
        noise: of Gaussian noise of the norm of its error, if known.
        left: share of the layer's squared error that calibrated rounding leaves, if known.

    >>> attribution(4.0, 2.0, None), attribution(2.0, 2.0, 0.1), attribution(2.0, 2.0, 0.9), attribution(0.0, 0.0, None)
    ('rounding', 'rounding', 'bits', 'n/a')
    """
    if damage == 0 or noise is None:
        return "n/a"
    helps = damage > MORE_THAN_NOISE * noise or (left is not None and left <= LEFT)
    return "rounding" if helps else "bits"


@dataclass(frozen=True)
class LayerNoise:
    """A layer in a format beside noise.

    Attributes:
        name: of the layer.
        role: of it.
        damage: sketched, of rounding to the nearest, mean over outputs.
        noise: the same of Gaussian noise of the error's norm.
        left: what calibrated rounding leaves of the squared error of the layer's output; None where it is not known.
        it_is: what `attribution` says.
    """

    name: str
    role: str
    damage: float
    noise: float
    left: float | None
    it_is: str


def beside_noise(profile: Profile, key: str) -> list[LayerNoise]:
    """Every layer in a format beside noise; none where the profile does not know."""
    if not profile.noise or key not in profile.candidates:
        return []
    column = profile.column(key)
    noise = np.mean(list(profile.noise.values()), axis=0)[:, column]
    left = profile.roundings[CALIBRATED][:, column] if CALIBRATED in profile.roundings else np.full(len(noise), np.nan)
    noises = []
    for layer, *values in zip(profile.layers, profile.total_damage[:, column], noise, left, strict=True):
        damage, of_noise, share = map(float, values)
        known = None if np.isnan(share) else share
        noises.append(LayerNoise(layer.name, layer.role, damage, of_noise, known, attribution(damage, of_noise, known)))
    return noises


def rounding_or_bits_table(layers: Sequence[LayerNoise], key: str) -> Table:
    """By role: damage over that of noise, what calibrated rounding leaves, and for how many layers it is which.

    Args:
        layers: what `beside_noise` gave.
        key: of the format.
    """
    roles: dict[str, list[LayerNoise]] = {}
    for layer in layers:
        roles.setdefault(layer.role, []).append(layer)
    columns = ("role", "layers", "damage / noise", "least", "most", "left by gptq", "rounding", "bits")
    title = f"Is it the rounding or the bits? At {get_format(key).short_title}, medians over layers"
    return Table(title, columns, [_of_role(role, members) for role, members in roles.items()], EXPLANATION)


def _of_role(role: str, layers: Sequence[LayerNoise]) -> Row:
    ratios = [layer.damage / layer.noise for layer in layers if layer.noise]
    left = [layer.left for layer in layers if layer.left is not None]
    verdicts = [layer.it_is for layer in layers]
    shown = [format_number(float(of(ratios))) if ratios else "n/a" for of in (np.median, np.min, np.max)]
    share = f"{np.median(left):.1%}" if left else "n/a"
    return (
        role_title(role),
        str(len(layers)),
        *shown,
        share,
        *(str(verdicts.count(it)) for it in ("rounding", "bits")),
    )
