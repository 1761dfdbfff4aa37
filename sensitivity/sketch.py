"""Damage at the model's outputs when one layer alone is quantised, estimated from a few backward passes.

To first order, changing a layer's weight from W to W + dW changes an output f, divided by its own norm, by J dW, where
J is the Jacobian with respect to that weight. For a random vector v of independent standard normal numbers,

    E[<J^T v, dW>^2] = E[(v . J dW)^2] = |J dW|^2,

which is the normalised squared error (NMSE) of the output. J^T v is what one backward pass of ``v . f`` leaves at
every weight at once, so a handful of passes gives the damage of every layer in every format. Summing over the calls
of a layer before squaring, which a layer that runs several times needs, is what the gradient of its weight already
does.

The estimate of a probe has a relative standard deviation of at most sqrt(2); scenes and probes average it down.
Source of the estimator: Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from quant import Layer, dequantize_layer, quantize_layer
from scenes import Scene
from sensitivity.survey import OUTPUTS, run

DEFAULT_PROBES = 4
CACHE_BYTES = 2 * 10**9


class WeightErrors:
    """Quantisation error of every layer's weight in every scheme; kept in memory where they fit, else made anew.

    Args:
        model: not packed.
        layers: of `quant.find_layers`.
        schemes: keys of formats.
        cache_bytes: how much to keep at most; all errors or none are kept.

    Attributes:
        size_bytes: of every scheme's file part, for the layers that were asked for.
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
        self.size_bytes: dict[str, list[int]] = {}

    def __call__(self, layer: Layer) -> Tensor:
        """``[schemes, weights]``: stored minus original weight, in the module's own order of weights."""
        if layer.name in self.kept:
            return self.kept[layer.name]
        module, weight = self.model.get_submodule(layer.name), _weight_of(self.model, layer)
        stored = [quantize_layer(module, key, layer.name) for key in self.schemes]
        self.size_bytes[layer.name] = [quantized.nbytes for quantized in stored]
        errors = torch.stack([(dequantize_layer(q, module) - weight.detach()).flatten() for q in stored])
        if self.keep:
            self.kept[layer.name] = errors
        return errors


def sketch_damage(
    model: nn.Module,
    layers: Sequence[Layer],
    errors: WeightErrors,
    scene: Scene,
    *,
    probes: int = DEFAULT_PROBES,
    seed: int = 0,
) -> dict[str, Tensor]:
    """First-order NMSE of each output on one scene when only one layer is quantised.

    Args:
        model: in eval mode; its weights do not change.
        layers: of `quant.find_layers`.
        errors: of the same layers.
        scene: a calibration scene.
        probes: backward passes per output.
        seed: of the random vectors; give every scene its own.

    Returns:
        Per output, float64 ``[layers, schemes]``; exactly 0 for layers that the output does not depend on.
    """
    weights = [_weight_of(model, layer) for layer in layers]
    damage: dict[str, Tensor] = {}
    with torch.enable_grad(), _gradients_of(model, weights):
        outputs = run(model, scene)
        for number, (name, value) in enumerate(outputs.items()):
            generator = torch.Generator().manual_seed(seed * len(OUTPUTS) + number)
            found = torch.zeros(len(layers), len(errors.schemes), dtype=torch.float64)
            for _ in range(probes):
                probe = torch.randn(value.shape, generator=generator).to(value)
                # The norm of the reference is a constant of the metric, not something to differentiate.
                target = (value * probe).sum() / value.detach().norm()
                gradients = torch.autograd.grad(target, weights, retain_graph=True, allow_unused=True)
                for row, (layer, gradient) in enumerate(zip(layers, gradients, strict=True)):
                    if gradient is not None:
                        found[row] += (errors(layer) @ gradient.flatten()).double().cpu().square()
            damage[name] = found / probes
    return damage


def _weight_of(model: nn.Module, layer: Layer) -> nn.Parameter:
    weight = model.get_submodule(layer.name).weight
    assert isinstance(weight, nn.Parameter)
    return weight


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
