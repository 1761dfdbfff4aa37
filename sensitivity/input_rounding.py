"""What rounding the inputs of layers does to the model's outputs, from the sketch's own backward passes.

A layer puts out y = W x. Rounding its input to Q(x) changes y by W (Q(x) - x), and, to first order, a probed output by
``<g, W (Q(x) - x)> = <W^T g, Q(x) - x>`` with g the gradient at y. W^T g is what the layer hands back to its input, so
an identity in front of the layer sees it pass by: its derivative with respect to a number s in ``x + s (Q(x) - x)``,
at s = 0, is that inner product, summed over calls and tokens. Autograd therefore gives it with the weights' gradients
(`sensitivity.segments`), and what it costs is rounding the input and one inner product a probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vggtkit.quant import Layer
from vggtkit.quant.activations import ACTIVATION_FORMATS, round_activations
from vggtkit.runtime.runners import is_pointwise

AT_ONCE = 2**14
"""Numbers of an inner product that one thread adds up, so that sums do not depend on threads; pieces add in FP64."""


def has_rounded_input(model: nn.Module, layer: Layer) -> bool:
    """Whether a layer is a product with each token, so that a scale per token can be taken out of it.

    >>> from vggtkit.quant import find_layers
    >>> model = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3))
    >>> [has_rounded_input(model, layer) for layer in find_layers(model)]
    [True, True, False]
    """
    module = model.get_submodule(layer.name)
    return layer.is_called and not layer.aliases and (type(module) is nn.Linear or is_pointwise(module))


class InputErrors:
    """Rounding errors of the inputs of a model's layers, and where their gradients pass by.

    Args:
        model: whose layers are called.
        layers: of it.
        formats: keys of activation formats; all by default.

    Attributes:
        rows: numbers of the layers that have a rounded input.
        steps: for each of these, zeros ``[formats]``; the gradients that the sketch is after are theirs.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], formats: Sequence[str] | None = None) -> None:
        self.model, self.layers = model, layers
        self.formats = tuple(ACTIVATION_FORMATS if formats is None else formats)
        self.rows = [row for row, la in enumerate(layers) if self.formats and has_rounded_input(model, la)]
        self.steps = [torch.zeros(len(self.formats), requires_grad=True) for _ in self.rows]

    def errors(self, row: int, x: Tensor) -> Tensor:  # noqa: ARG002 - for those that round layers differently
        """``[formats, *x.shape]``: rounded minus original input of a layer, channels last."""
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        return torch.stack([round_activations(x, key) - exact for key in self.formats])

    def places(self, segments: Mapping[str, nn.Module], row: int) -> set[str | None]:
        """Where a layer's step is met by gradients: the segments that call the layer, None for outside of them."""
        name = self.layers[row].name
        around = {other for other in segments if name.startswith(f"{other}.")}
        return {*around} if around else {None}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block, gradients on their way to the inputs of layers are multiplied with the errors."""
        with ExitStack() as undo:
            for row, step in zip(self.rows, self.steps, strict=True):
                module = self.model.get_submodule(self.layers[row].name)
                hook = partial(self._before, row, step)
                undo.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            yield

    def _before(
        self, row: int, step: Tensor, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not torch.is_grad_enabled():
            return None
        first, *others = arguments or keywords.values()
        if not isinstance(first, Tensor) or not first.is_floating_point():
            return None
        last = (lambda x: x) if isinstance(module, nn.Linear) else _channels_last
        seen = _watched(first, step.to(first.device), lambda x: self.errors(row, last(x)), last)
        return (seen, *others), {}


@contextmanager
def rounded_inputs(model: nn.Module, formats: Mapping[str, str]) -> Iterator[None]:
    """Within the block, layers get rounded inputs, whatever their weights are: what a sketch is held against.

    Args:
        model: whose layers are called.
        formats: key of an activation format, by name of the layer.

    >>> model = nn.Sequential(nn.Identity(), nn.Linear(2, 1, bias=False))
    >>> x = torch.tensor([[127.0, -2.4]])
    >>> with torch.no_grad(), rounded_inputs(model, {"1": "int8_token"}):
    ...     error = model(x) - model[1].weight @ torch.tensor([127.0, -2.0])
    >>> error.abs().item() < 1e-5
    True
    """
    with ExitStack() as undo:
        for name, key in formats.items():
            module = model.get_submodule(name)
            undo.callback(module.register_forward_pre_hook(partial(_rounded, key)).remove)
        yield


def _rounded(key: str, module: nn.Module, arguments: tuple[Any, ...]) -> Tensor:
    (x,) = arguments
    if isinstance(module, nn.Linear):
        return round_activations(x, key).to(x.dtype)
    return round_activations(_channels_last(x), key).movedim(-1, 1).to(x.dtype)


class _Watched(torch.autograd.Function):
    """The identity; on the way back the errors of its input, made once, are multiplied with the gradient."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        step: Tensor,  # noqa: ARG004 - its gradient is what this is for
        errors: Callable[[Tensor], Tensor],
        last: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """``x``."""
        ctx.save_for_backward(x)
        ctx.errors, ctx.last, ctx.made = errors, last, None
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        """The gradient of the input, and of the step in each format."""
        if ctx.made is None:
            (x,) = ctx.saved_tensors
            ctx.made = ctx.errors(x.detach())
        return gradient, _products(ctx.made, ctx.last(gradient)), None, None


# mypy takes torch's `apply` for untyped
_watched: Callable[..., Tensor] = _Watched.apply


def _channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)


def _products(errors: Tensor, gradient: Tensor) -> Tensor:
    """Inner products ``[formats]`` of errors ``[formats, ..., channels]`` with a gradient; pieces in FP32 or more.

    All formats in one product read the gradient once, and nothing as large as the errors is made: an eighth of the time
    of `torch.linalg.vecdot`.
    """
    dtype = torch.float32 if errors.device.type == "mps" else torch.float64
    pieces = zip(
        errors.flatten(1).split(AT_ONCE, dim=1), gradient.flatten().to(errors.dtype).split(AT_ONCE), strict=True
    )
    return torch.stack([torch.mv(made, piece) for made, piece in pieces]).sum(0, dtype=dtype)
