"""Attention, MLP and LayerScale: the blocks that the backbone, the aggregator and the heads are stacked from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROPE_BASE = 100.0


class LayerScale(nn.Module):
    """A learnt gain per channel on a residual branch (Touvron et al., "Going deeper with image transformers", 2021)."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        """``x * gamma``, shape unchanged."""
        return x * self.gamma


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, out or dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., dim]`` to ``[..., out]``."""
        result: Tensor = self.fc2(self.act(self.fc1(x)))
        return result


class Rotary:
    """2D rotary position embedding: half of each head's channels turn with y, the other half with x.

    Source: Su et al., "RoFormer", 2021; the 2D form is that of CroCo v2 (Weinzaepfel et al., ICCV 2023).

    Args:
        positions: ``[T, 2]`` whole (y, x) positions of the tokens.
        head_dim: channels of a head, a multiple of 4.
    """

    def __init__(self, positions: Tensor, head_dim: int) -> None:
        dim = head_dim // 2
        frequency = 1.0 / ROPE_BASE ** (torch.arange(0, dim, 2, device=positions.device).float() / dim)
        angles = positions.float()[:, :, None] * frequency
        angles = torch.cat([angles, angles], dim=-1).flatten(1)
        self.cos, self.sin = angles.cos(), angles.sin()

    def __call__(self, x: Tensor) -> Tensor:
        """Turn queries or keys ``[B, heads, T, head_dim]``."""
        a, b, c, d = x.chunk(4, dim=-1)
        turned = torch.cat([-b, a, -d, c], dim=-1)
        return x * self.cos.to(x.dtype) + turned * self.sin.to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with optional normalised queries and keys and rotary positions."""

    def __init__(self, dim: int, num_heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm: nn.Module = nn.LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.k_norm: nn.Module = nn.LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        """Tokens ``[B, T, dim]`` to ``[B, T, dim]``."""
        mixed = F.scaled_dot_product_attention(*self.parts(x, rotary)).transpose(1, 2).flatten(2)
        result: Tensor = self.proj(mixed)
        return result

    def parts(self, x: Tensor, rotary: Rotary | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens ``[B, T, dim]``, each ``[B, heads, T, dim / heads]``."""
        parts = self.qkv(x).chunk(3, dim=-1)
        # all three moved by one transposition, OpenVINO 2026.4 takes tokens for heads where there are as many
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotary(q), rotary(k)
        return q, k, v


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP, each a scaled residual branch."""

    def __init__(
        self, dim: int, num_heads: int, *, layer_scale: float, norm_eps: float = 1e-5, qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, qk_norm)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, 4 * dim)
        self.ls2 = LayerScale(dim, layer_scale)

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        """Tokens ``[B, T, dim]`` to ``[B, T, dim]``."""
        x = x + self.ls1(self.attn(self.norm1(x), rotary))
        result: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return result


class QKVProjection(nn.Module):
    """The tracker's joint projection to queries, keys and values, one weight ``[3 * dim, dim]`` as in torch.

    It is a module of its own, so that a hook sees what it computes. Queries come from one set of tokens, keys and
    values from another; the three stand one after the other along the token axis.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.bias = nn.Parameter(torch.zeros(3 * dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Queries of ``x [B, N, dim]``, keys and values of ``context [B, M, dim]``, as ``[B, N + 2 M, dim]``."""
        return torch.cat(self.parts(x, context), dim=1)

    def parts(self, x: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        """The same as queries ``[B, N, dim]``, keys and values ``[B, M, dim]``."""
        d = self.dim
        if x is context:
            return tuple(F.linear(x, self.weight, self.bias).split(d, dim=-1))
        query = F.linear(x, self.weight[:d], self.bias[:d])
        return query, *F.linear(context, self.weight[d:], self.bias[d:]).split(d, dim=-1)


class CrossAttention(nn.Module):
    """Multi-head attention with the parameter names of ``torch.nn.MultiheadAttention``.

    In files the projection is ``in_proj_weight`` and ``in_proj_bias``, here ``in_proj.weight`` and ``in_proj.bias``;
    two state-dict hooks translate. The arithmetic is written out instead of fused: the tracker feeds coordinates
    into sines of up to 1000 times their value, so only torch's own order of operations gives the published tracks.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj = QKVProjection(dim)
        self.out_proj = nn.Linear(dim, dim)
        # mypy asks the subclass, not torch, whether these two may be called untyped
        self.register_state_dict_post_hook(_to_official_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_from_official_names)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """``x [B, N, dim]`` attends to ``context [B, M, dim]``; result ``[B, N, dim]``."""
        n, m = x.shape[1], context.shape[1]
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2).contiguous()
            for part in self.in_proj(x, context).split([n, m, m], dim=1)
        )
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1)
        result: Tensor = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        return result


def _to_official_names(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: object) -> None:
    for part in ("weight", "bias"):
        if f"{prefix}in_proj.{part}" in state:
            state[f"{prefix}in_proj_{part}"] = state.pop(f"{prefix}in_proj.{part}")


def _from_official_names(_module: nn.Module, state: Mapping[str, Any], prefix: str, *_rest: object) -> None:
    assert isinstance(state, dict)
    for part in ("weight", "bias"):
        if f"{prefix}in_proj_{part}" in state:
            state[f"{prefix}in_proj.{part}"] = state.pop(f"{prefix}in_proj_{part}")
