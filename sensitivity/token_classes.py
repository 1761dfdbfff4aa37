"""Which tokens carry a layer's damage: those of the camera, the registers or the patches.

An error dW of a layer's weight changes its output by dY = x dW^T, token by token. With g = J^T v at that output, the
sketch is ``E[(sum_t g_t . dY_t)^2]`` over all tokens t; restricted to the tokens of a class it is the damage, to first
order, that the error would do if it were made in those tokens alone. Classes interfere, so the parts do not add up to
the whole, which stands beside them. Only layers of the trunk see tokens of all classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sensitivity.weight_errors import WeightErrors
from vggtkit.quant import Layer
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, TokenGrid

CLASSES = ("camera", "register", "patch")
"""In the backbone of single frames the place of the camera token is that of DINOv2's class token."""

ROLES = ("attention", "mlp")


@dataclass(frozen=True)
class ClassDamage:
    """First-order damage by token class.

    Attributes:
        layers: of the trunk, in model order.
        parts: per class ``[layers, schemes]``, mean over outputs.
        whole: of all tokens together.
    """

    layers: tuple[Layer, ...]
    parts: dict[str, Tensor]
    whole: Tensor


def class_damage(
    subject: Subject, layers: Sequence[Layer], errors: WeightErrors, scene: Scene, *, probes: int, seed: int = 0
) -> ClassDamage | None:
    """Split the sketch of the trunk's layers by token class.

    Args:
        subject: gradients of activations alone are taken.
        layers: of the model; those outside the trunk are left out.
        errors: of their weights.
        scene: a calibration scene.
        probes: random vectors per output.
        seed: of the random vectors.

    Returns:
        None for a model whose tokens are not known to have classes.
    """
    grid = subject.token_grid(scene)
    if grid is None:
        return None
    trunk = [layer for layer in layers if layer.role in ROLES]
    images = scene.images.clone().requires_grad_()  # so that every activation has a gradient
    with torch.enable_grad(), _watching(subject.model, trunk) as calls:
        outputs = subject.run(replace(scene, images=images), check=False)
    parts = torch.zeros(len(CLASSES), len(trunk), len(errors.schemes), dtype=torch.float64)
    whole = torch.zeros_like(parts[0])
    generator = torch.Generator().manual_seed(seed)
    for value in outputs.values():
        for _ in range(probes):
            probe = torch.randn(value.shape, generator=generator).to(value)
            target = (value * probe).sum() / value.detach().norm()
            ends = [output for _, output in calls]
            gradients = torch.autograd.grad(target, ends, retain_graph=True, allow_unused=True)
            for row, (layer, (tokens, _), gradient) in enumerate(zip(trunk, calls, gradients, strict=True)):
                if gradient is not None:
                    products = _products(errors(layer), tokens, gradient, grid)
                    parts[:, row] += products.square()
                    whole[row] += products.sum(0).square()
    count = probes * len(outputs)
    return ClassDamage(tuple(trunk), dict(zip(CLASSES, parts / count, strict=True)), whole / count)


def _products(errors: Tensor, tokens: Tensor, gradient: Tensor, grid: TokenGrid) -> Tensor:
    """``<g, dY>`` over the tokens of each class: float64 ``[classes, schemes]``."""
    x, g = (value.to(errors.dtype).reshape(-1, grid.tokens, value.shape[-1]) for value in (tokens, gradient))
    spans = (slice(0, 1), slice(1, grid.special), slice(grid.special, grid.tokens))
    ours = [g[:, span].flatten(0, 1).T @ x[:, span].flatten(0, 1) for span in spans]
    return torch.stack([(errors @ product.flatten()).double().cpu() for product in ours])


@contextmanager
def _watching(model: nn.Module, layers: Sequence[Layer]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Input and output of every layer's one call."""
    calls: list[tuple[Tensor, Tensor]] = []

    def keep(_module: object, arguments: tuple[Any, ...], output: Tensor) -> None:
        calls.append((arguments[0].detach(), output))

    handles = [model.get_submodule(layer.name).register_forward_hook(keep) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
