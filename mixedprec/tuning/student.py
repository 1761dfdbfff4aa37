"""The weights of a model while they are tuned: put in place for passes, moved by their gradients, kept and taken up."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mixedprec.tuning.recipe import Recipe
from vggtkit.core.arrays import Arrays
from vggtkit.quant import Layer, QuantizedTensor, dequantize, from_out_first, out_first, twins_of, weight_of
from vggtkit.quant.layers import parameter_name
from vggtkit.quant.learned import LearnedWeight

BETAS, EPSILON = (0.9, 0.99), 1e-16
"""Of Adam; gradients are of any size, and steps are few."""


class Student:
    """Some layers of a model whose weights are tuned.

    Weights in floating-point formats stay what they are.

    Args:
        model: with its original weights; it stays as it is.
        layers: of it.
        start: their quantised weights, where tuning begins.
        recipe: how.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[Layer], start: Mapping[str, QuantizedTensor], recipe: Recipe
    ) -> None:
        self.model, self.layers, self.start, self.recipe = model, layers, start, recipe
        self.learned = {
            layer.name: LearnedWeight(out_first(weight_of(model, layer).detach(), layer.kind), start[layer.name])
            for layer in layers
            if start[layer.name].scales is not None
        }
        self.optimizer = _optimizer(self.learned.values(), recipe)
        self.values: dict[str, Tensor] = {}

    def refresh(self) -> None:
        """Make the weights of now; gradients of earlier ones are forgotten."""
        self.values = {
            layer.name: self._value(layer).requires_grad_(layer.name in self.learned) for layer in self.layers
        }

    def _value(self, layer: Layer) -> Tensor:
        if layer.name not in self.learned:
            return decoded_value(self.model, layer, self.start[layer.name])
        whole = self.learned[layer.name].values()
        return from_out_first(whole, layer.kind).to(weight_of(self.model, layer).dtype)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model computes with the weights of the last `refresh`, and gradients reach them."""
        with standing_in(self.model, self.layers, self.values):
            yield

    def move(self, codes: float, scales: float) -> None:
        """One step against the gradients that the weights have gathered since `refresh`.

        Args:
            codes: share of the recipe's learning rate of latent weights.
            scales: share of that of scales.
        """
        for layer in self.layers:
            learned, gradient = self.learned.get(layer.name), self.values[layer.name].grad
            if learned is None or gradient is None:
                continue
            of_parameters = learned.gradients(out_first(gradient, layer.kind))
            for name, parameter in learned.parameters.items():
                wanted = of_parameters[name]
                parameter.grad = wanted.sign_() if self.recipe.optimizer == "sign" else wanted
        rates = codes * self.recipe.rate, scales * self.recipe.scale_rate
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()

    def encoded(self) -> dict[str, QuantizedTensor]:
        """The weights of now, as a file holds them."""
        return {
            layer.name: self.learned[layer.name].encoded() if layer.name in self.learned else self.start[layer.name]
            for layer in self.layers
        }

    def state(self) -> Arrays:
        """Everything that further steps depend on."""
        arrays: Arrays = {}
        for layer, learned in self.learned.items():
            for name, parameter in learned.parameters.items():
                arrays[f"{layer}/{name}"] = parameter.numpy(force=True)
                for key, value in self.optimizer.state.get(parameter, {}).items():
                    if isinstance(value, Tensor):
                        arrays[f"{layer}/{name}/{key}"] = value.numpy(force=True)
        return arrays

    def load(self, arrays: Arrays) -> None:
        """Go on from a `state`."""
        for layer, learned in self.learned.items():
            learned.load({name: torch.from_numpy(arrays[f"{layer}/{name}"]) for name in learned.parameters})
            for name, parameter in learned.parameters.items():
                start = f"{layer}/{name}/"
                own = {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}
                if own:
                    moved = {
                        key: torch.from_numpy(value).to("cpu" if key == "step" else parameter.device)
                        for key, value in own.items()
                    }
                    self.optimizer.state[parameter] = moved


def decoded_value(model: nn.Module, layer: Layer, q: QuantizedTensor) -> Tensor:
    """What a quantised weight stands for, as the layer's module holds its weight."""
    return from_out_first(dequantize(q), layer.kind).to(weight_of(model, layer).dtype)


@contextmanager
def standing_in(model: nn.Module, layers: Sequence[Layer], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block tensors stand for the weights of layers, wherever these are read, and gradients reach them.

    They stand before the parameters, which stay where they are.

    >>> from vggtkit.quant import find_layers
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False))
    >>> weight = torch.tensor([[3.0]], requires_grad=True)
    >>> with standing_in(model, find_layers(model), {"0": weight}):
    ...     model(torch.tensor([[2.0]])).sum().backward()
    >>> weight.grad, model[0].weight is weight
    (tensor([[2.]]), False)
    """
    placed: list[tuple[nn.Module, str]] = []
    try:
        for layer in layers:
            module = model.get_submodule(layer.name)
            for owner, name in ((module, parameter_name(module)), *twins_of(model, layer)):
                owner.__dict__[name] = values[layer.name]
                placed.append((owner, name))
        yield
    finally:
        for owner, name in placed:
            owner.__dict__.pop(name, None)


def _optimizer(learned: Collection[LearnedWeight], recipe: Recipe) -> torch.optim.Optimizer:
    groups = [
        {"params": [weight.parameters["latent"] for weight in learned]},
        {"params": [p for weight in learned for name, p in weight.parameters.items() if name != "latent"]},
    ]
    if recipe.optimizer == "sign":
        return torch.optim.SGD(groups, lr=recipe.rate)
    return torch.optim.Adam(groups, lr=recipe.rate, betas=BETAS, eps=EPSILON)
