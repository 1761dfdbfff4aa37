"""Which factors to fold out of the inputs of layers, chosen by the damage that is predicted of weights and inputs.

SmoothQuant's factor of a channel is ``max|x|^a / max|w|^(1-a)``, which divides the input and multiplies the column of
the weight. Here the exponent ``a`` is chosen layer by layer from a small grid, with no folding in it. A folded layer is
a way to round the original one: W becomes ``Q(W s) / s`` and x becomes ``Q(x / s) s``. So one sketch of the original
network tells the damage of all of them (`sensitivity.jacobian_sketch`).

Factors are rounded to powers of two, so that folding itself rounds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sensitivity.input_rounding import InputErrors
from sensitivity.jacobian_sketch import DEFAULT_PROBES, sketch_errors
from sensitivity.weight_errors import WeightErrors
from vggtkit.model.folding import LARGEST_EXPONENT, norm_linear_pairs
from vggtkit.quant import Layer, simulate, weight_of
from vggtkit.quant.activations import INT8_TOKEN, round_activations
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Values of SmoothQuant's exponent: from all into the input to all into the weight."""
WEIGHT_FORMAT = "int4_two_level_64"
"""What weights are taken to be rounded to beside INT8 inputs: about what plans at 4 bits give them."""
WORTH_FOLDING = 0.9
"""A folded layer must do no more than this share of the damage of the original one."""


@dataclass(frozen=True)
class Folding:
    """Factors that are worth folding.

    Attributes:
        exponents: by name of a norm, the powers of two by which its channels are multiplied.
        before: predicted damage of INT8 inputs and 4-bit weights of the layers behind these norms, as they were.
        after: the same, folded.
    """

    exponents: dict[str, list[int]]
    before: float
    after: float


def choose_folding(
    subject: Subject, scenes: Sequence[Scene], *, probes: int = DEFAULT_PROBES, seed: int = 0
) -> Folding:
    """The factors of least predicted damage, layer by layer; none for a model without norms before linear layers.

    Args:
        subject: unchanged.
        scenes: calibration scenes.
        probes: random vectors per output and scene.
        seed: of these.
    """
    named = {layer.name: layer for layer in subject.layers}
    pairs = [pair for pair in norm_linear_pairs(subject.model) if named[pair.linear].is_called]
    layers = [named[pair.linear] for pair in pairs]
    if not layers:
        return Folding({}, 0.0, 0.0)
    peaks = input_peaks(subject, [layer.name for layer in layers], scenes)
    exponents = [
        _exponents(peaks[layer.name], weight_of(subject.model, layer).detach().abs().amax(0)) for layer in layers
    ]
    weights = _FoldedWeights(subject.model, layers, exponents)
    inputs = _FoldedInputs(subject.model, layers, exponents)
    damage = torch.zeros(len(layers), 1 + len(GRID), dtype=torch.float64)
    for number, scene in enumerate(scenes):
        sketched = sketch_errors(
            subject, layers, weights, inputs, scene, probes=probes, seed=seed * len(scenes) + number
        )
        for by_output in (sketched.weights, sketched.inputs):
            damage += sum(value.square().mean(2) for value in by_output.values()) / (len(by_output) * len(scenes))
    best = damage.argmin(1)
    folded = {
        row: int(column)
        for row, column in enumerate(best)
        if column and damage[row, column] <= WORTH_FOLDING * damage[row, 0]
    }
    return Folding(
        {pairs[row].norm: exponents[row][column].int().tolist() for row, column in folded.items()},
        float(sum(damage[row, 0] for row in folded)),
        float(sum(damage[row, column] for row, column in folded.items())),
    )


@torch.no_grad()
def input_peaks(subject: Subject, names: Sequence[str], scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """The largest magnitude of every channel of the inputs of linear layers, over scenes, calls and tokens."""
    peaks: dict[str, Tensor] = {}

    def see(name: str, _module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        peak = arguments[0].abs().flatten(0, -2).amax(0).float()
        peaks[name] = torch.maximum(peaks[name], peak) if name in peaks else peak

    with ExitStack() as undo:
        for name in names:
            module = subject.model.get_submodule(name)
            undo.callback(module.register_forward_pre_hook(partial(see, name)).remove)
        for scene in scenes:
            subject.predict(scene)
    return peaks


def _exponents(inputs: Tensor, weights: Tensor) -> Tensor:
    """``[1 + grid, channels]``: by which powers of two a norm is multiplied; zeros first, for no folding."""
    tiny = torch.finfo(torch.float32).tiny
    x, w = inputs.clamp_min(tiny).log2(), weights.clamp_min(tiny).log2()
    used = (inputs > 0) & (weights > 0)
    rows = [torch.zeros_like(x)]
    for a in GRID:
        factor = a * x - (1 - a) * w
        middle = factor[used].median() if used.any() else factor.new_zeros(())
        exponents = (middle - factor).round().clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
        rows.append(torch.where(used, exponents, 0.0))
    return torch.stack(rows)


class _FoldedWeights(WeightErrors):
    """Errors of weights in their own scale, rounded after folding in each of some ways."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer], exponents: Sequence[Tensor]) -> None:
        super().__init__(model, layers, [str(way) for way in range(len(exponents[0]))])
        self.exponents = {layer.name: rows for layer, rows in zip(layers, exponents, strict=True)}

    def _simulate(self, layer: Layer) -> Tensor:
        weight = weight_of(self.model, layer).detach().float()
        errors = []
        for scheme in self.schemes:
            factors = torch.exp2(self.exponents[layer.name][int(scheme)])
            errors.append((simulate(weight / factors, WEIGHT_FORMAT, layer.name) * factors - weight).flatten())
        return torch.stack(errors)

    def _pieces(self, layer: Layer) -> Iterator[tuple[slice, Tensor]]:
        yield slice(0, layer.weights), self._simulate(layer)


class _FoldedInputs(InputErrors):
    """Errors of inputs in their own scale, rounded after folding in each of some ways."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer], exponents: Sequence[Tensor]) -> None:
        super().__init__(model, layers, [str(way) for way in range(len(exponents[0]))])
        self.exponents = exponents

    def errors(self, row: int, x: Tensor) -> Tensor:
        exact = x.float()
        factors = torch.exp2(self.exponents[row]).to(x.device)
        return torch.stack([round_activations(exact * f, INT8_TOKEN) / f - exact for f in factors])
