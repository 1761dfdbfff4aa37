"""What a planner knows of every layer and format: exact bytes, and the damage that is expected of it.

Damage is *estimated* where it comes from a profile (the sketch, or another of its scores), and a *prior* where there is
none and shapes and weights have to do (`mixedprec.data_free`). It is *measured* only for the uniform schemes, which a
profile has run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensitivity import Profile
from sensitivity.estimate_check import EstimateCheck, check_estimates
from sensitivity.store import Changes
from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.model import HEADS, check_heads
from vggtkit.model.outputs import outputs_of_head
from vggtkit.quant import Layer, quantized_nbytes
from vggtkit.quant.activations import INT8_TOKEN
from vggtkit.quant.rounding import NEAREST

SKETCH = "sketch"
TRUST = 0.85
"""In damage that was found on some scenes: of the logarithm of its ratio to what was expected, as much is seen again on
others (bundled network, 8 rooms and 6 others)."""
_ALSO_CALLED = {"pose": "camera", "cameras": "camera", "points": "point", "tracks": "track"}


@dataclass(frozen=True)
class Evidence:
    """Bytes and expected damage of every layer in every candidate format.

    Attributes:
        origin: where it comes from, for messages.
        facts: provenance: model, fingerprints, parameters, scenes, seed.
        layers: quantisable layers, in model order.
        candidates: keys of the formats that are known.
        size_bytes: ``[layers, candidates]`` bytes in a file.
        damage: of each output with only one layer quantised, ``{output: [layers, candidates]}``: estimated NMSE from
            the sketch, a prior without a profile, or in the unit of the score that it comes from.
        score: what ``damage`` is: a key of `sensitivity.scores.SCORES`, or a text that begins with ``"data-free"``.
        uniform: measured NMSE by output and uniform scheme, ``{scheme: {output: value}}``; empty if not measured.
        weights: what each output counts for, relative to the others; 1 for those not named.
        changes: what each layer does to each output with its sign, ``{output: [layers, candidates, scenes, probes]}``,
            as in `Profile`; empty if not known.
        estimate_checks: estimated beside measured damage of the uniform INT4 schemes, by output; empty if not measured.
        input_damage: of each output, what rounding the input of only one layer to INT8 per token does, ``{output:
            [layers]}``: what execution in whole numbers adds; empty if not known, and then counted as nothing.
        roundings: what calibrated roundings leave of a layer's squared error, ``{key: [layers, candidates]}``, NaN
            where a layer cannot be calibrated; empty if not known.
        rounding: key of the rounding that ``damage`` and ``changes`` are of.
    """

    origin: str
    facts: Mapping[str, Any]
    layers: tuple[Layer, ...]
    candidates: tuple[str, ...]
    size_bytes: NDArray[np.int64]
    damage: Mapping[str, Array]
    score: str = SKETCH
    uniform: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    changes: Mapping[str, Changes] = field(default_factory=dict)
    estimate_checks: Mapping[str, EstimateCheck] = field(default_factory=dict)
    input_damage: Mapping[str, Array] = field(default_factory=dict)
    roundings: Mapping[str, Array] = field(default_factory=dict)
    rounding: str = NEAREST

    @staticmethod
    def of(source: Profile | Evidence) -> Evidence:
        """A profile as evidence; evidence stays as it is."""
        if isinstance(source, Evidence):
            return source
        uniform = {
            scheme: {name: float(values[column]) for name, values in source.uniform.items()}
            for column, scheme in enumerate(source.schemes)
        }
        return Evidence(
            str(source.path), source.facts, source.layers, source.candidates, source.size_bytes, source.damage,
            uniform=uniform, changes=source.changes, estimate_checks=check_estimates(source),
            input_damage=source.activation_damage(INT8_TOKEN) if INT8_TOKEN in source.activation_formats else {},
            roundings=source.roundings,
        )  # fmt: skip

    def rounded(self, key: str) -> Evidence:
        """The same with the damage that is expected after a calibrated rounding.

        A layer's damage is that of rounding to the nearest times what is left of the squared error of its own output,
        its changes times the root of that: they keep their signs. Layers that cannot be calibrated stay as they are.

        Args:
            key: of a rounding of ``roundings``.
        """
        return replace(self._times(np.nan_to_num(self.roundings[key], nan=1.0)), rounding=key)

    def corrected(self, formats: Mapping[str, str], damage: Mapping[str, float]) -> Evidence:
        """The same with damage as it was found of layers in some of their formats.

        All formats of such a layer are taken to be wrong by the same factor, to the power of `TRUST`.

        Args:
            formats: of the layers that damage was found of.
            damage: over all outputs, by layer name; where it is 0, and of other layers, nothing changes.
        """
        factors = np.ones((len(self.layers), 1))
        for row, layer in enumerate(self.layers):
            expected = self.of_format(row, formats[layer.name])[1] if layer.name in damage else 0.0
            if expected > 0 and damage[layer.name] > 0:
                factors[row] = (damage[layer.name] / expected) ** TRUST
        return self._times(factors)

    def _times(self, factors: Array) -> Evidence:
        """With damage times something, ``[layers, candidates]`` or ``[layers, 1]``; changes keep their signs."""
        roots = np.sqrt(factors)[:, :, None, None].astype(np.float32)
        return replace(
            self, damage={name: factors * values for name, values in self.damage.items()},
            changes={name: roots * values for name, values in self.changes.items()},
        )  # fmt: skip

    def scored(self, score: str, damage: Mapping[str, Array], candidates: Sequence[str]) -> Evidence:
        """The same with damage from another score, and nothing of what layers do with their signs.

        Args:
            score: its key.
            damage: by output, ``[layers, candidates]``, in its own unit; higher is worse.
            candidates: the formats that it was made for; all others are no longer offered.
        """
        columns = [self.column(key) for key in candidates]
        return replace(
            self, score=score, damage=dict(damage), candidates=tuple(candidates), changes={},
            input_damage={}, size_bytes=self.size_bytes[:, columns], roundings={},
        )  # fmt: skip

    @cached_property
    def total_damage(self) -> Array:
        """``[layers, candidates]``: weighted mean over the outputs; plans are made from it."""
        total: Array = np.zeros(self.size_bytes.shape)
        for name, share in self.shares().items():
            total = total + share * self.damage[name]
        return total

    @cached_property
    def joint_changes(self) -> Array | None:
        """``[layers, candidates, scenes, samples]``: over all outputs, scaled so that the squares sum to the damage."""
        if not self.changes:
            return None
        parts = [
            np.sqrt(share / np.prod(self.changes[name].shape[2:])) * self.changes[name].astype(np.float64)
            for name, share in self.shares().items()
        ]
        return np.concatenate(parts, axis=3)

    @cached_property
    def total_input_damage(self) -> Array:
        """``[layers]``: weighted mean over the outputs; 0 where it is not known."""
        total: Array = np.zeros(len(self.layers))
        for name, share in self.shares().items():
            if name in self.input_damage:
                total = total + share * np.nan_to_num(self.input_damage[name])
        return total

    def input_damage_of(self, row: int, execution: str) -> float:
        """What an execution of a layer does beside its format."""
        return float(self.total_input_damage[row]) if execution.startswith("int8") else 0.0

    def input_damage_by_output(self, executions: Mapping[str, str]) -> dict[str, float]:
        """The same of all layers, by output, for those where it is known."""
        rows = [row for row, layer in enumerate(self.layers) if executions.get(layer.name, "").startswith("int8")]
        return {name: float(np.nan_to_num(values[rows]).sum()) for name, values in self.input_damage.items()}

    @property
    def uncalibrated(self) -> frozenset[str]:
        """Names of the layers that cannot be calibrated: their damage is still that of rounding to the nearest."""
        if self.rounding == NEAREST:
            return frozenset()
        unknown = np.flatnonzero(np.isnan(self.roundings[self.rounding]).any(axis=1))
        return frozenset(self.layers[row].name for row in unknown)

    @property
    def unreached(self) -> frozenset[str]:
        """Names of the layers that the calibration scenes say nothing about."""
        return frozenset(self.facts.get("unreached") or ())

    @property
    def holds(self) -> bool:
        """Whether estimates agree with what was measured, for every output that counts."""
        return all(row.holds for name, row in self.estimate_checks.items() if self.weights.get(name, 1.0))

    def shares(self) -> dict[str, float]:
        """The weight of every output, all together 1."""
        return shares_of(self.damage, self.weights)

    def total(self, by_output: Mapping[str, float]) -> float:
        """The weighted mean of a figure that is known by output."""
        return weighted_mean({name: by_output[name] for name in self.damage}, self.weights)

    def column(self, key: str) -> int:
        """Where a candidate format stands in ``damage`` and ``size_bytes``.

        Raises:
            InputError: it is not known here.
        """
        if key not in self.candidates:
            raise InputError(f"{self.origin}: no scores for {key!r}; it has {', '.join(self.candidates)}")
        return self.candidates.index(key)

    def of_format(self, row: int, key: str) -> tuple[int, float]:
        """Bytes and damage of a layer in a format; ``fp32`` need not have been scored."""
        if key == "fp32":
            return quantized_nbytes(self.layers[row].shape, key), 0.0
        column = self.column(key)
        return int(self.size_bytes[row, column]), float(self.total_damage[row, column])

    def with_heads(self, heads: Sequence[str]) -> Evidence:
        """The same for a model that keeps only these heads; unchanged for a model that has none to choose from.

        Raises:
            InputError: an unknown head.
        """
        if not heads:
            return self
        heads = check_heads(heads, setting("heads"))
        dropped = [head for head in HEADS if head not in heads]
        rows = [row for row, layer in enumerate(self.layers) if layer.role.removesuffix("_head") not in dropped]
        gone = {name for head in dropped for name in outputs_of_head(head)}
        damage = {name: values[rows] for name, values in self.damage.items() if name not in gone}
        uniform = {
            key: {name: value for name, value in by_output.items() if name not in gone}
            for key, by_output in self.uniform.items()
        }
        changes = {name: values[rows] for name, values in self.changes.items() if name not in gone}
        return replace(
            self, layers=tuple(self.layers[row] for row in rows), size_bytes=self.size_bytes[rows], damage=damage,
            uniform=uniform, changes=changes, roundings={key: left[rows] for key, left in self.roundings.items()},
            input_damage={name: values[rows] for name, values in self.input_damage.items() if name not in gone},
            estimate_checks={name: row for name, row in self.estimate_checks.items() if name not in gone},
        )  # fmt: skip

    def weighted(self, asked: Mapping[str, float]) -> Evidence:
        """The same with other weights of the outputs.

        Args:
            asked: by the name of an output, or of a head for all that it predicts; outputs not named keep 1.

        Raises:
            InputError: an unknown name, or weights that leave nothing.
        """
        return replace(self, weights=output_weights(asked, tuple(self.damage)))


def shares_of(outputs: Iterable[str], weights: Mapping[str, float]) -> dict[str, float]:
    """What every output counts for, all together 1.

    >>> shares_of(["depth", "pose_enc"], {"depth": 3.0})
    {'depth': 0.75, 'pose_enc': 0.25}
    """
    own = {name: weights.get(name, 1.0) for name in outputs}
    whole = math.fsum(own.values())
    return {name: weight / whole for name, weight in own.items()}


def weighted_mean(by_output: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The mean over outputs of a figure, each as often as it counts.

    >>> weighted_mean({"depth": 1.0, "pose_enc": 5.0}, {"depth": 3.0})
    2.0
    """
    return math.fsum(share * by_output[name] for name, share in shares_of(by_output, weights).items())


HEAVIEST = 1e9
"""What an output may count for; only proportions matter."""


def parse_weights(text: str) -> dict[str, float]:
    """Weights of outputs as people write them.

    Args:
        text: such as ``depth=2,pose=1``; a name is an output's, or a head's for all that it predicts.

    Raises:
        InputError: not of that form, or a weight that is negative or no number.

    >>> parse_weights("depth=2, pose=0.5")
    {'depth': 2.0, 'pose': 0.5}
    """
    weights: dict[str, float] = {}
    for entry in text.split(","):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if not equals or not name:
            raise InputError(
                f"{setting('weights_for')}: {entry.strip()!r} is not of the form NAME=WEIGHT, such as depth=2,pose=1"
            )
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if not 0 <= weight <= HEAVIEST:
            raise InputError(
                f"{setting('weights_for')}: the weight of {name} is {value!r}, must be a number from 0 to {HEAVIEST:g}"
            )
        weights[name] = weight
    return weights


def output_weights(asked: Mapping[str, float], outputs: Sequence[str]) -> dict[str, float]:
    """What each output counts for, where heads may have been named.

    Args:
        asked: weights by output or head.
        outputs: that there are.

    Raises:
        InputError: an unknown name, or every output would count for nothing.

    >>> output_weights({"depth": 2.0}, ["pose_enc", "depth", "depth_conf"])
    {'depth': 2.0, 'depth_conf': 2.0}
    """
    weights: dict[str, float] = {}
    for name, weight in asked.items():
        names = outputs_of_head(_ALSO_CALLED.get(name, name)) or (name,)
        known = [output for output in names if output in outputs]
        if not known:
            raise InputError(
                f"{setting('weights_for')}: {f'{name}={weight:g}'!r} is not of the form NAME=WEIGHT with a name among "
                f"pose, depth, points, tracks or {', '.join(outputs)}"
            )
        weights |= dict.fromkeys(known, weight)
    if not sum(weights.get(name, 1.0) for name in outputs):
        raise InputError(f"{setting('weights_for')}: every output has weight 0; leave one of them in")
    return weights
