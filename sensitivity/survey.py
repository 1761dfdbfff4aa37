"""How a model is run on a scene, and how often each layer runs and how much it puts out; sizes are planned from it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vggtkit.core.errors import InputError
from vggtkit.core.memory import LARGE
from vggtkit.quant import Layer
from vggtkit.scenes import Scene

OUTPUTS = ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf", "track", "vis", "conf")
"""What VGGT predicts, in the order of tables; scores are kept for each."""

CONVOLUTIONS = ("conv2d", "conv_transpose2d")
"""Kinds of layers whose output is ``[N, C, H, W]``; that of all others ends in channels."""


@dataclass(frozen=True)
class LayerVolume:
    """What a layer puts out in one pass over one scene.

    Attributes:
        calls: how often it runs.
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
    return -3 if kind in CONVOLUTIONS else -1


def as_tokens(output: Tensor, kind: str) -> Tensor:
    """A layer's output as ``[tokens, channels]``; a map ``[N, C, H, W]`` of a convolution has a token per pixel.

    >>> as_tokens(torch.zeros(2, 5, 3, 3), "conv2d").shape, as_tokens(torch.zeros(2, 7, 3, 5), "linear").shape
    (torch.Size([18, 5]), torch.Size([42, 5]))
    """
    last = output.movedim(channel_axis(kind), -1)
    return last.reshape(-1, last.shape[-1])


def run(model: nn.Module, scene: Scene, *, check: bool = True) -> dict[str, Tensor]:
    """The model's predictions for a scene.

    VGGT and its forks are given pictures as a batch of one and query points; a model without query points the
    pictures ``[S, 3, H, W]``; and any model the scene's own ``inputs`` where it has some.

    Args:
        model: in eval mode.
        scene: what it sees.
        check: refuse predictions that are not finite; a scheme that breaks the model is a result instead.

    Returns:
        Of VGGT the published outputs; of others every floating-point tensor of a dict by its name, a single tensor
        as ``output``, those of a tuple as ``output_0`` and so on.

    Raises:
        InputError: a prediction is not finite, or the model gives no tensors.
    """
    device = next(model.parameters()).device
    outputs = _named(model(*_arguments(model, scene, device)))
    for name, value in outputs.items():
        if check and not value.isfinite().all():
            raise InputError(f"scene {scene.name}: the FP32 model gives NaN or Inf in {name}; it cannot be a reference")
    return outputs


def _arguments(model: nn.Module, scene: Scene, device: torch.device) -> tuple[Tensor, ...]:
    if scene.inputs is not None:
        return tuple(value.to(device) for value in scene.inputs)
    images, query = scene.images.to(device), scene.query_points.to(device)
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    takes_query = len(needed) > 1 or any(p.name == "query_points" for p in parameters)
    return (images[None], query[None]) if takes_query else (images,)


def _named(found: Any) -> dict[str, Tensor]:  # noqa: ANN401
    if isinstance(found, Tensor):
        found = {"output": found}
    if isinstance(found, tuple | list):
        found = {f"output_{number}": value for number, value in enumerate(found)}
    if not isinstance(found, dict):
        raise InputError(f"the model returns {type(found).__name__}: it must return tensors, or a dict of them")
    values = {
        str(name): value for name, value in found.items() if isinstance(value, Tensor) and value.is_floating_point()
    }
    published = {name: values[name] for name in OUTPUTS if name in values}
    if not values:
        raise InputError("the model returns no floating-point tensor: nothing can be compared")
    return published or values


@torch.no_grad()
def survey(model: nn.Module, layers: Sequence[Layer], scene: Scene) -> list[LayerVolume]:
    """Count calls and outputs: of large models by shapes alone where they can do that, else by running them.

    Args:
        model: in eval mode.
        layers: whose outputs are counted.
        scene: any calibration scene.

    Returns:
        One entry per layer; zero calls for a layer that did not run.
    """
    counted: dict[str, LayerVolume] = {}

    def hook(layer: Layer) -> Any:  # noqa: ANN401
        def count(_module: nn.Module, _arguments: object, output: Tensor) -> None:
            tokens = as_tokens(output, layer.kind)
            before = counted[layer.name]
            counted[layer.name] = LayerVolume(before.calls + 1, before.tokens + tokens.shape[0], tokens.shape[1])

        return count

    handles = [model.get_submodule(layer.name).register_forward_hook(hook(layer)) for layer in layers]
    try:
        counted |= {layer.name: LayerVolume(0, 0, layer.shape[0]) for layer in layers}
        if not run_for_shapes(model, scene):
            counted |= {layer.name: LayerVolume(0, 0, layer.shape[0]) for layer in layers}
            run(model, scene)
    finally:
        for handle in handles:
            handle.remove()
    return [counted[layer.name] for layer in layers]


def run_for_shapes(model: nn.Module, scene: Scene) -> bool:
    """Run a model for the sake of what hooks see; a large one on the meta device, where nothing is computed.

    There every operation is decomposed in Python, 3 s for a VGGT: a small network is faster when it really runs.

    Returns:
        Whether it could be run so; a large model that looks at values cannot.
    """
    if sum(parameter.numel() for parameter in model.parameters()) > LARGE:
        return run_on_meta(model, scene)
    run(model, scene, check=False)
    return True


def run_on_meta(model: nn.Module, scene: Scene) -> bool:
    """Run a model on the meta device: hooks see all shapes, and nothing is computed.

    Returns:
        Whether it could be run so; a model that looks at values cannot.
    """
    meta = torch.device("meta")
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    weightless = {name: value.detach().to(meta).requires_grad_(value.requires_grad) for name, value in state.items()}
    try:
        functional_call(model, weightless, _arguments(model, scene, meta))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return False
    return True
