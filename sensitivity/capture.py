"""Forward hooks that run FP32 and every scheme side by side, in one pass over the model.

The scene is given to the model once per variant, as a batch: row 0 is FP32, row ``1 + s`` is scheme ``s``. At every
quantisable layer a pre-hook takes the batch apart, so that the layer itself computes row 0 only, and a forward hook
computes the other rows with quantised weights, one layer's weight at a time, and puts the batch together again. So

- the rows behave as whole models under their scheme (*accumulated* error),
- the FP32 input is at hand for the error made by this layer alone (*isolated*),
- nothing has to be stored between passes, no copy of the model exists, and layers that run several times a pass
  (camera head, tracker, frames in chunks) are simply seen several times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from quant import Layer, dequantize_layer, quantize_layer, replaced_weights


@dataclass(frozen=True)
class LayerOutputs:
    """What one call of one layer gave.

    Attributes:
        index: of the layer in the list that was hooked.
        reference: its FP32 output, one scene.
        isolated: ``[V, ...]``, clean input and the weight of each of V schemes.
        accumulated: ``[V, ...]``, input and weight of each scheme.
    """

    index: int
    reference: Tensor
    isolated: Tensor
    accumulated: Tensor


class Observer(Protocol):
    """Receives every call of every hooked layer."""

    def __call__(self, outputs: LayerOutputs) -> None:
        """Take note of one call."""


@contextmanager
def side_by_side(
    model: nn.Module, layers: Sequence[Layer], schemes: Sequence[str], observe: Observer
) -> Iterator[None]:
    """Hook the layers of a model; batches of ``1 + len(schemes)`` scenes are then run side by side.

    The batch must be the leading, slowest axis wherever it is merged with another, as in VGGT.

    Args:
        model: not packed; its weights are as before when the context ends, whatever happens.
        layers: of `quant.find_layers`.
        schemes: keys of formats.
        observe: called after every call of a layer.
    """
    hooks = [
        _LayerHooks(model.get_submodule(layer.name), layer.name, index, schemes, observe)
        for index, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _LayerHooks:
    """The pair of hooks on one layer, and the batch between them."""

    def __init__(self, module: nn.Module, name: str, index: int, schemes: Sequence[str], observe: Observer) -> None:
        self.name, self.index, self.schemes, self.observe = name, index, schemes, observe
        self.rows: list[tuple[Any, ...]] = []
        self.handles = (
            module.register_forward_pre_hook(self.before),
            module.register_forward_hook(self.after),
        )

    def before(self, _module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        self.rows = _take_apart(arguments, 1 + len(self.schemes))
        return self.rows[0]

    def after(self, module: nn.Module, _arguments: tuple[Any, ...], reference: Tensor) -> Tensor:
        clean, *others = self.rows
        isolated, accumulated = [], []
        for key, row in zip(self.schemes, others, strict=True):
            weight = dequantize_layer(quantize_layer(module, key, self.name), module)
            with replaced_weights(module, {"": weight}):  # the name of a module in itself
                isolated.append(module.forward(*clean))
                accumulated.append(module.forward(*row))
        self.rows = []
        self.observe(LayerOutputs(self.index, reference, torch.stack(isolated), torch.stack(accumulated)))
        return torch.cat([reference, *accumulated])

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def _take_apart(arguments: tuple[Any, ...], variants: int) -> list[tuple[Any, ...]]:
    """The arguments of each variant; an argument given twice stays one object."""
    parts: dict[int, Sequence[Any]] = {}
    for argument in arguments:
        if isinstance(argument, Tensor):
            if len(argument) % variants:
                raise ValueError(f"a batch of {len(argument)} does not hold {variants} variants")
            parts.setdefault(id(argument), argument.chunk(variants))
        else:
            parts.setdefault(id(argument), [argument] * variants)
    return [tuple(parts[id(argument)][row] for argument in arguments) for row in range(variants)]
