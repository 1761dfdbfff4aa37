"""Forward hooks on quantisable layers: see what they compute, and let them compute under a scheme.

One pass over the model is FP32: at every layer its clean input is at hand, from which the error that this layer alone
makes under each scheme is computed on the spot (`alone`, *isolated*). Then one pass per scheme, every layer's weight
quantised for the moment it runs (`under_scheme`), gives the error with everything that earlier layers did
(*accumulated*). One layer's temporary copy exists at a time, nothing is assumed about batches, and layers that run
several times a pass (camera head, tracker, frames in chunks) are simply seen several times.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from sensitivity.survey import channel_axis
from vggtkit.quant import Layer, from_out_first, out_first, readers_of, simulate_formats, simulate_layer, weight_of


@dataclass(frozen=True)
class LayerCall:
    """One call of one layer.

    Attributes:
        index: of the layer in the list that was hooked.
        module: the layer.
        output: what it gave.
        arguments: what it was called with.
        keywords: by name.
    """

    index: int
    module: nn.Module
    output: Tensor
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def kept(self) -> LayerCall:
        """The same with inputs in memory of its own, for later."""
        arguments, keywords = tree_map(_cloned, (self.arguments, dict(self.keywords)))
        return replace(self, arguments=arguments, keywords=keywords)


def _cloned(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


class Observer(Protocol):
    """Receives every call of every hooked layer."""

    def __call__(self, call: LayerCall) -> None:
        """Take note of one call."""


@contextmanager
def observed(model: nn.Module, layers: Sequence[Layer], observe: Observer) -> Iterator[None]:
    """Show every call of the layers to an observer; no hook is left afterwards, whatever happens."""

    def hook(index: int) -> Any:  # noqa: ANN401
        def after(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: object) -> None:
            if isinstance(output, Tensor):
                with torch.no_grad():  # which a forward may have left, by enable_grad or by a thread of its own
                    observe(LayerCall(index, module, output.detach(), arguments, keywords))

        return after

    handles = [
        model.get_submodule(layer.name).register_forward_hook(hook(index), with_kwargs=True)
        for index, layer in enumerate(layers)
        if layer.is_called
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def under_scheme(model: nn.Module, layers: Sequence[Layer], key: str, repeated: Collection[str] = ()) -> Iterator[None]:
    """Run a model with all its layers in one format; its weights are as before afterwards, whatever happens.

    Args:
        model: not packed.
        layers: of `vggtkit.quant.find_layers`; a layer's weight is quantised right before a module runs that reads it
            (see `Layer.reader`), and as it was again right after.
        key: of a format.
        repeated: names of layers that run several times, whose quantised weights are kept in between.
    """
    made: dict[str, Tensor] = {}
    weights = [weight_of(model, layer) for layer in layers]
    originals = [weight.data for weight in weights]
    handles: list[RemovableHandle] = []

    def hang(layer: Layer, weight: nn.Parameter, original: Tensor) -> Iterator[RemovableHandle]:
        owner = model.get_submodule(layer.name)
        running = [0]  # readers may hold one another

        def before(_reader: nn.Module, _arguments: object) -> None:
            running[0] += 1
            if running[0] > 1:
                return
            weight.data = made[layer.name] if layer.name in made else simulate_layer(owner, key, layer.name)
            if layer.name in repeated:
                made[layer.name] = weight.data

        def after(_reader: nn.Module, _arguments: object, _output: object) -> None:
            running[0] = max(0, running[0] - 1)
            if running[0] == 0:
                weight.data = original

        for reader in readers_of(model, layer):
            yield reader.register_forward_pre_hook(before)
            yield reader.register_forward_hook(after, prepend=True, always_call=True)

    try:
        for layer, weight, original in zip(layers, weights, originals, strict=True):
            handles += hang(layer, weight, original)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for weight, original in zip(weights, originals, strict=True):
            weight.data = original


def alone(calls: Sequence[LayerCall], layer: Layer, keys: Sequence[str], channels: Tensor | None) -> Iterator[Tensor]:
    """A layer's outputs on the same inputs when its own weight is quantised.

    Where some channels of one of torch's own layers are wanted, only these are computed, under all formats in one
    product.

    Args:
        calls: of one layer, in FP32.
        layer: the one that was called.
        keys: of V formats.
        channels: output channels wanted, ``[n]``; all by default.

    Yields:
        For every call ``[V, ...]``, each as its output of these channels.
    """
    module, axis = calls[0].module, channel_axis(layer.kind)
    if channels is not None and _channels_are_rows(module):
        rows = [out_first(made, layer.kind) for made in simulate_formats(module, keys, layer.name, channels)]
        swapped = {"weight": from_out_first(torch.cat(rows), layer.kind)}
        if module.bias is not None:
            swapped["bias"] = module.get_parameter("bias").data[channels].repeat(len(keys))
        for call in calls:
            yield torch.stack(_called(call, swapped).chunk(len(keys), axis))
        return
    made = simulate_formats(module, keys, layer.name)
    by_format = [[_called(call, {"weight": weight}) for call in calls] for weight in made]
    for outputs in zip(*by_format, strict=True):
        chosen = outputs if channels is None else [o.index_select(axis, channels.to(o.device)) for o in outputs]
        yield torch.stack(list(chosen))


def _called(call: LayerCall, parameters: Mapping[str, Tensor]) -> Tensor:
    """What the layer gives on the same input with other parameters."""
    originals = {name: getattr(call.module, name).data for name in parameters}
    try:
        for name, value in parameters.items():
            getattr(call.module, name).data = value
        output: Tensor = call.module.forward(*call.arguments, **call.keywords)
    finally:
        for name, value in originals.items():
            getattr(call.module, name).data = value
    return output


def _channels_are_rows(module: nn.Module) -> bool:
    """Whether some rows of the weight give just these output channels."""
    known = (nn.Linear.forward, nn.Conv2d.forward, nn.ConvTranspose2d.forward)
    return type(module).forward in known and getattr(module, "groups", 1) == 1
