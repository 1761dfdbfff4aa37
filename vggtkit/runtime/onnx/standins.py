"""What layers and attention compute while the graph is traced: one operator where torch has a dozen.

Attention is ``MultiHeadAttention`` of ONNX Runtime, which does not write all scores down, so memory does not grow with
the square of tokens. Tokens stay in front of heads all the way, so nothing is transposed.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.model.dpt_head import DPTFeatures
from vggtkit.model.layers import Attention, CrossAttention, QKVProjection, Rotary
from vggtkit.runtime.onnx.qdq import QdqWeight, rounded, step_of
from vggtkit.runtime.onnx.tensors import FileTensor
from vggtkit.runtime.onnx.weights import DOMAIN, OnnxWeight


class Linear:
    """A linear layer, or some of its outputs, as an operator.

    Args:
        module: the layer in the structure that is traced; placeholders are hung on it.
        weight: what the operator multiplies with.
        prefix: of their names there.

    Attributes:
        tensors: of the file, by their names there.
    """

    def __init__(self, module: nn.Module, weight: OnnxWeight, prefix: str = "") -> None:
        self.module, self.weight, self.prefix = module, weight, prefix
        parts = weight.tensors()
        self.parts = tuple(parts)
        self.tensors: Mapping[str, FileTensor] = {f"{prefix}{part}": tensor for part, tensor in parts.items()}
        for name, tensor in self.tensors.items():
            module.register_buffer(name, tensor.placeholder(), persistent=False)

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        bias = self.module.bias
        if isinstance(bias, Tensor) and len(bias) != self.weight.codes.rows:
            bias = bias[self.weight.codes.slice]
        return self.weight.multiply(x, self.values(), bias if isinstance(bias, Tensor) else None)

    def values(self) -> dict[str, Tensor]:
        """The placeholders, as the tracer sees them."""
        return {part: getattr(self.module, f"{self.prefix}{part}") for part in self.parts}


class Convolution(Linear):
    """A convolution whose input is rounded as well."""

    def __call__(self, x: Tensor) -> Tensor:
        """As the module."""
        conv, values = self.module, self.values()
        assert isinstance(self.weight, QdqWeight)
        x, weight = self.weight.rounded(x, values), values["matrix"]
        bias = conv.bias if isinstance(conv.bias, Tensor) else None
        if isinstance(conv, nn.ConvTranspose2d):
            where = conv.stride, conv.padding
            result: Tensor = torch.conv_transpose2d(x, weight, bias, *where)  # type: ignore[arg-type]
            return result
        assert isinstance(conv, nn.Conv2d)
        return F.conv2d(x, weight, bias, conv.stride, conv.padding)


class OfTokens(Linear):
    """A 1x1 convolution of a map that was made of tokens, as a product of these, so nothing is transposed first."""

    def __init__(self, module: nn.Module, weight: QdqWeight) -> None:
        super().__init__(module, weight.of_kind("linear"))

    def __call__(self, x: Tensor) -> Tensor:
        """As the module."""
        y = super().__call__(x.flatten(2).transpose(1, 2))
        result: Tensor = y.transpose(1, 2).unflatten(2, x.shape[-2:])
        return result


class Projections:
    """Queries, and keys and values, of the tracker: other tokens multiplied with rows of one weight."""

    def __init__(self, query: Linear, rest: Linear) -> None:
        self.query, self.rest = query, rest

    def __call__(self, x: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        """As `QKVProjection.parts`."""
        return self.query(x), *self.rest(context).chunk(2, dim=-1)


def multi_head(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of ``[B, T, dim]`` as one operator."""
    result: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::MultiHeadAttention", (q, k, v), {"num_heads": heads}, dtype=q.dtype, shape=q.shape, version=1
    )
    return result


class RoundedAttention:
    """Attention whose queries and keys are rounded to 8 bits, so that their product may be one of whole numbers.

    Args:
        module: in the structure that is traced; placeholders are hung on it.
        largest: magnitude of queries and of keys.

    Attributes:
        tensors: of the file, by their names there.
    """

    def __init__(self, module: Attention, largest: tuple[float, float]) -> None:
        self.module = module
        self.tensors = {"query_step": step_of(largest[0]), "key_step": step_of(largest[1])}
        for name, tensor in self.tensors.items():
            module.register_buffer(name, tensor.placeholder(), persistent=False)

    def __call__(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        """As `Attention.forward`."""
        attention = self.module
        q, k, v = attention.parts(x, rotary)
        steps = [attention.get_buffer(name) for name in self.tensors]
        q, k = (rounded(each, step) for each, step in zip((q, k), steps, strict=True))
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        result: Tensor = attention.proj((weights @ v).transpose(1, 2).flatten(2))
        return result


def attend_symbolic(self: Attention, x: Tensor, rotary: Rotary | None = None) -> Tensor:
    """As `Attention.forward`."""
    q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
    q, k = self.q_norm(q), self.k_norm(k)
    if rotary is not None:
        beside = copy(rotary)
        beside.cos, beside.sin = rotary.cos[:, None], rotary.sin[:, None]  # heads stand behind tokens here
        q, k = beside(q), beside(k)
    result: Tensor = self.proj(multi_head(q.flatten(2), k.flatten(2), v.flatten(2), self.num_heads))
    return result


def attend_across(self: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
    """As `CrossAttention.forward`."""
    assert isinstance(self.in_proj, QKVProjection)
    q, k, v = self.in_proj.parts(x, context)
    result: Tensor = self.out_proj(multi_head(q, k, v, self.num_heads))
    return result


def attend_in_steps(self: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
    """As `CrossAttention.forward`, queries, keys and values never side by side, in operators of standard ONNX."""
    assert isinstance(self.in_proj, QKVProjection)
    parts = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.in_proj.parts(x, context))
    q, k, v = parts
    weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1)
    result: Tensor = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
    return result


def normalise_rows(self: nn.GroupNorm, x: Tensor) -> Tensor:
    """The tracker's normalisation of ``[N, C]`` in one group, which OpenVINO does not take for any number of rows."""
    assert self.num_groups == 1
    assert x.ndim == 2
    return F.layer_norm(x, (self.num_channels,), self.weight, self.bias, self.eps)


def all_frames(self: DPTFeatures, tokens: dict[int, Tensor], size: tuple[int, int]) -> Tensor:
    """As `DPTFeatures.forward`, all at once, so that the graph holds for any number of them."""
    return self._some_frames(tokens, slice(None), size)
