"""How often each layer runs and how much it puts out; sizes are planned from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vggtkit.core.errors import InputError
from vggtkit.core.memory import LARGE
from vggtkit.quant import Layer
from vggtkit.scenes import Scene
from vggtkit.subject import Subject
from vggtkit.subject.state import unchanged_state

_AXES = {
    "conv1d": -2,
    "conv_transpose1d": -2,
    "conv2d": -3,
    "conv_transpose2d": -3,
    "conv3d": -4,
    "conv_transpose3d": -4,
}
PICTURES = ("conv2d", "conv_transpose2d")
"""Kinds of layers whose output is pictures ``[N, C, H, W]``."""


@dataclass(frozen=True)
class LayerVolume:
    """What a layer puts out in one pass over one scene.

    Attributes:
        calls: how often it runs; 0 where nobody sees its output.
        tokens: token vectors (for a convolution: pixels) over all calls.
        channels: of a token.
    """

    calls: int
    tokens: int
    channels: int


def channel_axis(kind: str) -> int:
    """Where a layer's output has its channels.

    >>> channel_axis("conv2d"), channel_axis("linear")
    (-3, -1)
    """
    return _AXES.get(kind, -1)


def as_tokens(output: Tensor, kind: str) -> Tensor:
    """A layer's output as ``[tokens, channels]``; a map ``[N, C, H, W]`` of a convolution has a token per pixel.

    >>> as_tokens(torch.zeros(2, 5, 3, 3), "conv2d").shape, as_tokens(torch.zeros(2, 7, 3, 5), "linear").shape
    (torch.Size([18, 5]), torch.Size([42, 5]))
    """
    last = output.movedim(channel_axis(kind), -1)
    return last.reshape(-1, last.shape[-1])


@torch.no_grad()
def survey(
    subject: Subject, layers: Sequence[Layer], scene: Scene, watching: AbstractContextManager[None] | None = None
) -> list[LayerVolume]:
    """Count calls and outputs: of large models by shapes alone where they can do that, else by running them.

    Args:
        subject: whose layers are counted.
        layers: of it.
        scene: any calibration scene.
        watching: entered around the pass that counts shapes, for others to count in it too.

    Returns:
        One entry per layer; zero calls for a layer that did not run, or that puts out something else than a tensor.
    """
    volumes: dict[str, LayerVolume] = {}

    def hook(layer: Layer) -> Callable[[nn.Module, object, object], None]:
        def count(_module: nn.Module, _arguments: object, output: object) -> None:
            if isinstance(output, Tensor):
                tokens, before = as_tokens(output, layer.kind), volumes[layer.name]
                volumes[layer.name] = LayerVolume(before.calls + 1, before.tokens + tokens.shape[0], tokens.shape[1])

        return count

    seen = [layer for layer in layers if layer.is_called]
    handles = [subject.model.get_submodule(layer.name).register_forward_hook(hook(layer)) for layer in seen]
    nothing = {layer.name: LayerVolume(0, 0, layer.shape[0]) for layer in layers}
    try:
        volumes |= nothing
        with watching or nullcontext():
            counted = run_for_shapes(subject, scene)
        if not counted:
            volumes |= nothing
            subject.run(scene, check=False)
    finally:
        for handle in handles:
            handle.remove()
    return [volumes[layer.name] for layer in layers]


def with_readers(layers: Sequence[Layer], volumes: Sequence[LayerVolume]) -> list[Layer]:
    """The layers, those whose module was never called read by the model as a whole.

    A weight can be used without a call of its layer (``F.linear(x, layer.weight)``); nobody can tell when.

    >>> layer = Layer("fc", "linear", "mlp", "other", (2, 2), 4)
    >>> with_readers([layer], [LayerVolume(0, 0, 2)])[0].reader
    ''
    """
    return [
        replace(layer, reader="") if layer.is_called and not volume.calls else layer
        for layer, volume in zip(layers, volumes, strict=True)
    ]


def run_for_shapes(subject: Subject, scene: Scene) -> bool:
    """Run a model for the sake of what hooks see; a large one on the meta device, where nothing is computed.

    There every operation is decomposed in Python, 3 s for a VGGT: a small network is faster when it really runs.

    Returns:
        Whether it could be run so; a large model that looks at values cannot.
    """
    if subject.parameters > LARGE:
        return run_on_meta(subject, scene)
    subject.run(scene, check=False)
    return True


def run_on_meta(subject: Subject, scene: Scene) -> bool:
    """Run a model on the meta device: hooks see all shapes, and nothing is computed.

    Returns:
        Whether it could be run so; a model that looks at values cannot.
    """
    meta, model = torch.device("meta"), subject.model
    state: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    weightless = {name: value.detach().to(meta).requires_grad_(value.requires_grad) for name, value in state.items()}
    call = subject.arguments(scene, meta)
    try:
        with unchanged_state(model):
            functional_call(model, weightless, call.arguments, dict(call.keywords))
    except InputError:
        raise
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return False
    return True
