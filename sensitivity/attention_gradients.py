"""Gradients of attention for many cotangents, from weights that are worked out once.

The fused kernel works the weights ``softmax(Q K^T)`` out again for every gradient that goes back, which saves their
memory. Where eight go back through the same call and the weights fit, keeping them takes two thirds of the time: on two
cores of a Zen 4, in bfloat16, 59 ms for 93 (two pictures of 930 tokens) and 114 for 193 (1,860 tokens together).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

WEIGHTS_BYTES = 2**28
"""Of one call, up to which its weights are kept; twice as much is at work."""


@contextmanager
def kept_attention_weights(dtype: torch.dtype) -> Iterator[None]:
    """Within the block attention that gradients go back through keeps its weights, on the CPU in bfloat16.

    Args:
        dtype: that gradients are taken in; in any other nothing is different.
    """
    if dtype != torch.bfloat16:
        yield
        return
    with _KeptWeights(dtype):
        yield


class _KeptWeights(TorchFunctionMode):
    """Attention without masks is `_attention`; every other function is what it is."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """As torch calls it."""
        if func is F.scaled_dot_product_attention and not kwargs and len(args) == 3 and self._fits(*args):
            return _attention(*(value.to(self.dtype) for value in args))
        return func(*args, **(kwargs or {}))

    def _fits(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Whether gradients are taken here, in the precision, and the weights are few enough."""
        lowered = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == self.dtype
        wanted = torch.is_grad_enabled() and any(one.requires_grad for one in (query, key, value))
        weights = query.shape[:-1].numel() * key.shape[-2]
        return lowered and wanted and query.device.type == "cpu" and weights * self.dtype.itemsize <= WEIGHTS_BYTES


class _Attention(torch.autograd.Function):
    """The fused kernel; on the way back its weights are made once, and used for every cotangent."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401
        """``[..., heads, tokens, channels]`` each."""
        result: Tensor = F.scaled_dot_product_attention(query, key, value)
        ctx.save_for_backward(query, key, value, result)
        ctx.weights = None
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        """With ``P`` the weights: ``P^T g``, and through the softmax ``P * (g V^T - sum(g * result))``.

        The weights are kept transposed, so that two of the three products with them need not turn them.
        """
        query, key, value, result = ctx.saved_tensors
        scale = 1 / math.sqrt(query.shape[-1])
        if ctx.weights is None:
            weights = (query @ key.transpose(-1, -2)).mul_(scale).softmax(-1)
            ctx.weights = weights.transpose(-1, -2).contiguous()
        of_value = ctx.weights @ gradient
        of_scores = value @ gradient.transpose(-1, -2)  # transposed
        of_scores.sub_((gradient * result).sum(-1).unsqueeze(-2)).mul_(ctx.weights)
        return (of_scores.transpose(-1, -2) @ key).mul_(scale), (of_scores @ query).mul_(scale), of_value


# mypy takes torch's `apply` for untyped
_attention: Callable[..., Tensor] = _Attention.apply
