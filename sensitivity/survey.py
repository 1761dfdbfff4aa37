"""One FP32 pass that tells how often each layer runs and how much it puts out; sizes are planned from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from errors import InputError
from quant import Layer
from scenes import Scene

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


def as_tokens(output: Tensor, kind: str) -> Tensor:
    """A layer's output as ``[tokens, channels]``; a map ``[N, C, H, W]`` of a convolution has a token per pixel.

    >>> as_tokens(torch.zeros(2, 5, 3, 3), "conv2d").shape, as_tokens(torch.zeros(2, 7, 3, 5), "linear").shape
    (torch.Size([18, 5]), torch.Size([42, 5]))
    """
    return output.movedim(1, -1).flatten(0, 2) if kind in CONVOLUTIONS else output.flatten(0, -2)


def run(model: nn.Module, scene: Scene, copies: int = 1) -> dict[str, Tensor]:
    """The model's predictions for a scene, ``copies`` times the same as a batch; only published outputs.

    Raises:
        InputError: a prediction is not finite.
    """
    device = next(model.parameters()).device
    images = scene.images.to(device).expand(copies, -1, -1, -1, -1)
    query = scene.query_points.to(device).expand(copies, -1, -1)
    found = model(images, query)
    outputs = {name: found[name] for name in OUTPUTS if name in found}
    for name, value in outputs.items():
        if not value[0].isfinite().all():
            raise InputError(f"scene {scene.name}: the FP32 model gives NaN or Inf in {name}; it cannot be a reference")
    return outputs


@torch.no_grad()
def survey(model: nn.Module, layers: Sequence[Layer], scene: Scene) -> list[LayerVolume]:
    """Run the model once in FP32 and count.

    Args:
        model: in eval mode.
        layers: whose outputs are counted.
        scene: any calibration scene.

    Returns:
        One entry per layer; zero calls for a layer that did not run.
    """
    counted = {layer.name: LayerVolume(0, 0, layer.shape[0]) for layer in layers}

    def count(layer: Layer) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _arguments: object, output: Tensor) -> None:
            tokens = as_tokens(output, layer.kind)
            before = counted[layer.name]
            counted[layer.name] = LayerVolume(before.calls + 1, before.tokens + tokens.shape[0], tokens.shape[1])

        return hook

    handles = [model.get_submodule(layer.name).register_forward_hook(count(layer)) for layer in layers]
    try:
        run(model, scene)
    finally:
        for handle in handles:
            handle.remove()
    return [counted[layer.name] for layer in layers]
