"""What is left of a layer's damage once it is rounded: of the very error that its weight then has.

A profile takes a calibrated rounding to leave as much of a layer's damage as of the squared error of its output
(`sensitivity.rounding_gain`), both on the scenes that it is calibrated with. On others that is wrong by a factor of
three for a typical layer: codes fit the rows that they were chosen by. With D the gradient of a random combination of
the outputs with respect to the weight, an error E changes the outputs by ``<D, E>`` along it to first order, so the
mean of its square, on scenes that codes were not chosen by, is the damage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sensitivity.output_factors import check_gradients_fit, gradients_by_scene
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant import Layer, QuantizedTensor, dequantize, out_first, weight_of
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

PROBES = 8
"""Random combinations of the outputs, for each scene; of 8 scenes a layer's damage is known within a fifth or so."""


def damage_left(
    subject: Subject,
    layers: Sequence[Layer],
    scenes: Sequence[Scene],
    rounded: Mapping[str, QuantizedTensor],
    shares: Mapping[str, float],
    *,
    probes: int = PROBES,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, float]:
    """Damage of every layer's error by itself, to first order.

    Args:
        subject: not packed.
        layers: of `vggtkit.quant.find_layers`.
        scenes: that codes were not chosen by.
        rounded: weights by layer name.
        shares: what each output counts for, all together 1.
        probes: random combinations of the outputs, for each scene.
        seed: of these.
        progress: told about every scene.

    Returns:
        By layer name; layers that no output hears are absent.

    Raises:
        InputError: the model cannot be differentiated, or the gradients do not fit into memory.
    """
    wanted = [layer for layer in layers if layer.name in rounded]
    check_gradients_fit(subject, wanted, probes)
    errors = {layer.name: _error(subject, layer, rounded[layer.name]) for layer in wanted}
    sums: dict[str, float] = {}
    stage = "what rounding leaves of every layer's damage"
    for gradients in gradients_by_scene(subject, layers, wanted, scenes, shares, probes, seed, progress, stage):
        for name, own in gradients.items():
            along = own.flatten(1).double() @ errors[name].double().flatten()
            sums[name] = sums.get(name, 0.0) + float(along.square().sum())
    return {name: total / (probes * len(scenes)) for name, total in sums.items()}


@torch.no_grad()
def _error(subject: Subject, layer: Layer, q: QuantizedTensor) -> Tensor:
    exact = out_first(weight_of(subject.model, layer), layer.kind).float()
    return dequantize(q).to(exact.device) - exact
