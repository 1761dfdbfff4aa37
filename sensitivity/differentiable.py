"""A forward pass as a function that can be differentiated, whatever it says of gradients itself.

What a model does to its outputs does not depend on ``torch.no_grad``: a part that runs without gradients passes an
error on like any other. So such blocks are ignored while a pass is differentiated, and so is reentrant checkpointing,
which does not work with ``torch.autograd.grad``. Nor does it depend on ``detach``; but straight-through estimators need
that, so where a model uses it both ways are tried (`sensitivity.jacobian_sketch`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import allow_mutation_on_saved_tensors
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

_DATA: Any = vars(torch._C.TensorBase)["data"].__get__
"""The function that reading ``tensor.data`` calls."""


@contextmanager
def differentiable(*, through_no_grad: bool = True, through_detach: bool = False) -> Iterator[None]:
    """Within the block a forward pass can be differentiated.

    Args:
        through_no_grad: ``torch.no_grad``, ``torch.inference_mode`` and ``torch.set_grad_enabled`` have no effect.
        through_detach: neither have ``Tensor.detach`` and ``Tensor.data``.

    >>> weight = torch.ones(1, requires_grad=True)
    >>> with differentiable(), torch.no_grad():
    ...     y = 2 * weight
    >>> y.requires_grad
    True
    """
    with ExitStack() as undo:
        undo.enter_context(warnings.catch_warnings())
        for expected in (".*None of the inputs have requires_grad.*", "Converting a tensor with requires_grad=True"):
            warnings.filterwarnings("ignore", message=expected)
        undo.enter_context(_replaced(CheckpointFunction, "apply", staticmethod(_plain_checkpoint)))
        if through_no_grad:
            undo.enter_context(_replaced(torch.no_grad, "__enter__", _stay))
            undo.enter_context(_replaced(torch.inference_mode, "__enter__", _stay_out))
            undo.enter_context(_replaced(torch, "set_grad_enabled", _NothingSet))
        undo.enter_context(_ThroughDetach() if through_detach else nullcontext())
        yield


@contextmanager
def without_gradients() -> Iterator[None]:
    """``torch.no_grad`` for our own use within `differentiable`, where that has no effect."""
    before = torch.is_grad_enabled()
    torch._C._set_grad_enabled(False)
    try:
        yield
    finally:
        torch._C._set_grad_enabled(before)


@contextmanager
def mutations(allowed: bool) -> Iterator[None]:
    """Within the block, tensors that the way back needs may be worked on in place: they are copied then."""
    with allow_mutation_on_saved_tensors() if allowed else nullcontext():
        yield


class _NothingSet(ContextDecorator):
    """``torch.set_grad_enabled``, in all the ways that it may be used, without its effect."""

    def __init__(self, mode: bool) -> None:
        self.prev = mode

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, *_: object) -> None:
        """Nothing."""


class DetachWatch(TorchFunctionMode):
    """Within this context it is noticed where ``detach`` or ``data`` stops a gradient, and where a hook may change one.

    Attributes:
        noticed: whether one was stopped.
        hooked: whether a tensor got a hook.
    """

    noticed = hooked = False

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Every function is what it is."""
        if _stops_a_gradient(func):
            self.noticed |= args[0].requires_grad
        self.hooked |= func is Tensor.register_hook
        return func(*args, **(kwargs or {}))


def _stops_a_gradient(func: object) -> bool:
    return torch.is_grad_enabled() and (func in (Tensor.detach, torch.detach) or func == _DATA)


class _ThroughDetach(TorchFunctionMode):
    """``detach`` gives a view that gradients pass through, where gradients are taken at all."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Every other function is what it is."""
        if _stops_a_gradient(func):
            return args[0].view_as(args[0])
        return func(*args, **(kwargs or {}))


def _plain_checkpoint(run: Callable[..., Any], _preserve: bool, *arguments: Any) -> Any:  # noqa: ANN401
    return run(*arguments)


def _stay(context: Any) -> None:  # noqa: ANN401
    """Enter ``no_grad`` without its effect; leaving it sets what was before."""
    context.prev = torch.is_grad_enabled()


def _stay_out(context: Any) -> None:  # noqa: ANN401
    context._inference_mode_context = nullcontext()


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:  # noqa: ANN401
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
