"""What quantising a layer does to the model's outputs, estimated for all layers from a few backward passes.

To first order, changing a layer's weight from W to W + dW changes an output f, divided by its own norm, by J dW, where
J is the Jacobian with respect to that weight. For a random vector v of independent standard normal numbers,

    E[<J^T v, dW>^2] = E[(v . J dW)^2] = |J dW|^2,

which is the normalised squared error (NMSE) of the output. J^T v is what one backward pass of ``v . f`` leaves at
every weight at once, so a handful of passes gives the damage of every layer in every format. Summing over the calls
of a layer before squaring, which a layer that runs several times needs, is what the gradient of its weight already
does.

The inner products themselves have signs: those of several layers add up before they are squared, so they also say,
to first order, what layers do together (`mixedprec.joint`).

The estimate of a probe has a relative standard deviation of at most sqrt(2); scenes and probes average it down.
Source of the estimator: Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989.

All outputs and probes go back through the model together, a segment at a time (`sensitivity.segments`), so every layer
is quantised once per scene, the gradients of one segment's weights are in memory at a time, and a model at full size
needs no more than its weights and a few gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sensitivity.segments import Gradients, Tape
from vggtkit.model.outputs import OUTPUTS
from vggtkit.quant import Layer, simulate_layer, stored_nbytes, weight_of
from vggtkit.quant.packed import out_first
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

DEFAULT_PROBES = 4
CACHE_BYTES = 2 * 10**9
PART_BYTES = 4 * 10**8
"""Errors of a layer's weight in several schemes are made this many bytes at a time where they are not kept."""


class WeightErrors:
    """Quantisation error of every layer's weight in every scheme; kept in memory where they fit, else made anew.

    Args:
        model: not packed.
        layers: of `vggtkit.quant.find_layers`.
        schemes: keys of formats.
        cache_bytes: how much to keep at most; all errors or none are kept.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        schemes: Sequence[str],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.model, self.layers, self.schemes = model, layers, schemes
        self.keep = 4 * len(schemes) * sum(layer.weights for layer in layers) <= cache_bytes
        self.kept: dict[str, Tensor] = {}

    def __call__(self, layer: Layer) -> Tensor:
        """``[schemes, weights]``: stored minus original weight, in the module's own order of weights."""
        if layer.name not in self.kept:
            errors = self._made(layer, self.schemes)
            if not self.keep:
                return errors
            self.kept[layer.name] = errors
        return self.kept[layer.name]

    def products(self, layer: Layer, gradients: Tensor) -> Tensor:
        """Inner products of the errors with gradients ``[n, weights]``: float64 ``[n, schemes]``."""
        if self.keep:
            return (gradients @ self(layer).T).double().cpu()
        some = max(1, PART_BYTES // (4 * layer.weights))
        parts = [self.schemes[start : start + some] for start in range(0, len(self.schemes), some)]
        return torch.cat([(gradients @ self._made(layer, part).T).double().cpu() for part in parts], dim=1)

    def size_bytes(self) -> list[list[int]]:
        """Bytes of every layer's weight in a file, in every scheme; exact, so all weights are read."""
        sizes = []
        for layer in self.layers:
            weight = out_first(weight_of(self.model, layer), layer.kind)
            sizes.append([stored_nbytes(weight, key, layer.name) for key in self.schemes])
        return sizes

    def _made(self, layer: Layer, schemes: Sequence[str]) -> Tensor:
        module, weight = self.model.get_submodule(layer.name), weight_of(self.model, layer).detach()
        errors = weight.new_empty(len(schemes), layer.weights)
        for row, key in zip(errors, schemes, strict=True):
            torch.sub(simulate_layer(module, key, layer.name).flatten(), weight.flatten(), out=row)
        return errors


def sketch_damage(
    subject: Subject,
    layers: Sequence[Layer],
    errors: WeightErrors,
    scene: Scene,
    *,
    probes: int = DEFAULT_PROBES,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """First-order NMSE of each output on one scene when only one layer is quantised.

    The arguments are those of `sketch_changes`.

    Returns:
        Per output, float64 ``[layers, schemes]``; exactly 0 for layers that the output does not depend on.
    """
    changes = sketch_changes(subject, layers, errors, scene, probes=probes, seed=seed, dtype=dtype)
    return {name: value.square().mean(2) for name, value in changes.items()}


def sketch_changes(
    subject: Subject,
    layers: Sequence[Layer],
    errors: WeightErrors,
    scene: Scene,
    *,
    probes: int = DEFAULT_PROBES,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """First-order change of each output, divided by its norm, along random vectors, by layer and scheme.

    Its mean square over the vectors is the NMSE that the layer alone causes; that of a sum over layers, what they
    cause together.

    Args:
        subject: its weights do not change.
        layers: of `vggtkit.quant.find_layers`.
        errors: of the same layers.
        scene: a calibration scene.
        probes: random vectors per output.
        seed: of the random vectors; give every scene its own.
        dtype: that the trunk computes in here: the gradients need less precision than what they are compared for.

    Returns:
        Per output, float64 ``[layers, schemes, probes]``; exactly 0 for layers that the output does not depend on.
    """
    weights = [weight_of(subject.model, layer) for layer in layers]
    tape = Tape(subject.segments(), weights)
    with torch.enable_grad(), _gradients_of(subject.model, weights), subject.computing_in(dtype):
        with tape.recording():
            outputs = subject.run(scene)
        # The norm of the reference is a constant of the metric, not something to differentiate.
        cotangents = [v / o.detach().norm() for o, v in _probes(outputs, probes, seed)]
        repeated = [value for value in outputs.values() for _ in range(probes)]
        found = torch.zeros(len(layers), len(repeated), len(errors.schemes), dtype=torch.float64)

        def consume(rows: list[int], gradients: list[Gradients]) -> None:
            for row, of_weight in zip(rows, gradients, strict=True):
                there = [c for c, gradient in enumerate(of_weight) if gradient is not None]
                if there:
                    stacked = torch.stack([g.flatten() for g in of_weight if g is not None])
                    of_weight.clear()
                    found[row, there] += errors.products(layers[row], stacked)

        tape.back(repeated, cotangents, consume)
    by_output = found.unflatten(1, (len(outputs), probes)).transpose(2, 3)
    return {name: by_output[:, number].clone() for number, name in enumerate(outputs)}


def _probes(outputs: dict[str, Tensor], probes: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every output with each of its random vectors."""
    for number, value in enumerate(outputs.values()):
        generator = torch.Generator().manual_seed(seed * len(OUTPUTS) + number)
        for _ in range(probes):
            yield value, torch.randn(value.shape, generator=generator).to(value)


@contextmanager
def _gradients_of(model: nn.Module, wanted: Sequence[Tensor]) -> Iterator[None]:
    """Gradients for some parameters alone; all flags are as before afterwards."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    identities = {id(parameter) for parameter in wanted}
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in identities)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
