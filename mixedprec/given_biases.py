"""Biases for layers that have none of their own, where a way of rounding takes mean errors off them.

Every such layer gets one, also where nothing is taken off, so what they add to a file depends on the model and on the
way of rounding alone. A file holds them under the names that they would have, which is how a reader knows of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sensitivity.layer_rows import has_rows
from vggtkit.quant import Layer, QuantizedTensor, own_weight


def without_bias(model: nn.Module, layers: Sequence[Layer]) -> list[Layer]:
    """The layers that can be given a bias: whose inputs calibration sees, and whose module was made without one.

    >>> from vggtkit.quant import find_layers
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False))
    >>> [layer.name for layer in without_bias(model, find_layers(model))]
    ['1']
    """
    modules = ((layer, model.get_submodule(layer.name)) for layer in layers)
    return [layer for layer, own in modules if has_rows(layer, own) and own._parameters.get("bias", own) is None]


def given_biases(
    model: nn.Module, layers: Sequence[Layer], weights: Mapping[str, str], named: Collection[str] | None = None
) -> dict[str, tuple[Layer, Tensor]]:
    """Biases of zeros in the precision of the layers' weights, with their layers, by the name that a file gives them.

    Args:
        model: it stays as it is.
        layers: of it.
        weights: official name of every layer's weight, as `mixedprec.apply.split_state` gives them.
        named: only those of these names; all by default.

    >>> from vggtkit.quant import find_layers
    >>> model = nn.Sequential(nn.Linear(3, 1, bias=False))
    >>> list(given_biases(model, find_layers(model), {"0": "0.weight"}))
    ['0.bias']
    """
    biases = {}
    for layer in without_bias(model, layers):
        name, weight = f"{weights[layer.name].removesuffix('weight')}bias", own_weight(model.get_submodule(layer.name))
        if named is None or name in named:
            biases[name] = layer, torch.zeros(layer.shape[0], dtype=weight.dtype, device=weight.device)
    return biases


def brought_biases(
    model: nn.Module, layers: Sequence[Layer], weights: Mapping[str, str], rest: Mapping[str, Tensor],
    rounded: Mapping[str, QuantizedTensor],
) -> dict[str, Tensor]:  # fmt: skip
    """Biases that rounded weights bring along, by the name that a file gives them.

    Args:
        model: it stays as it is.
        layers: of it.
        weights: official name of every layer's weight.
        rest: all other tensors by official name, the layers' own biases among them.
        rounded: by layer name.
    """
    official = {id(tensor): name for name, tensor in rest.items()}
    given = {layer.name: name for name, (layer, _) in given_biases(model, layers, weights).items()}
    brought = {name: q.bias for name, q in rounded.items() if q.bias is not None}
    return {given.get(name) or official[id(model.get_submodule(name).bias)]: bias for name, bias in brought.items()}


def adopt(model: nn.Module, layer: Layer, bias: Tensor) -> None:
    """Give a layer a bias for good."""
    module = model.get_submodule(layer.name)
    module.bias = nn.Parameter(bias, requires_grad=own_weight(module).requires_grad)


@contextmanager
def lent(model: nn.Module, layer: Layer, bias: Tensor) -> Iterator[None]:
    """Within the block a layer that has none has a bias."""
    adopt(model, layer, bias.to(own_weight(model.get_submodule(layer.name))))
    try:
        yield
    finally:
        model.get_submodule(layer.name).register_parameter("bias", None)
