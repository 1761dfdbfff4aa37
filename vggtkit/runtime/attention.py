"""Attention in bfloat16, some heads at a time, for processors on which torch's fused one does not use their products.

torch's fused attention on the CPU is as slow in bfloat16 as in FP32 where there is no AMX; the same in three steps
takes two thirds of the time (docs/log.md). Scores of all heads of many pictures would not fit into memory, so heads,
and then rows, are taken in parts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vggtkit.model.layers import Attention, Rotary

LEAST_TOKENS = 256
"""With fewer, starting three operations costs more than the fused one."""
SCORE_BYTES = 64 * 2**20
"""Scores that are in memory at a time."""


def attend(self: Attention, x: Tensor, rotary: Rotary | None = None) -> Tensor:
    """As `Attention.forward`; in bfloat16 where its projection gives that."""
    q, k, v = self.parts(x, rotary)
    split = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] >= LEAST_TOKENS
    mixed = in_parts(q, k, v) if split else F.scaled_dot_product_attention(q, k, v)
    result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
    return result


def in_parts(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(D)) v`` of ``[B, heads, T, D]``.

    >>> q, k, v = torch.randn(3, 1, 2, 50, 8)
    >>> in_parts(q, k, v).allclose(F.scaled_dot_product_attention(q, k, v), atol=1e-5)
    True
    """
    b, heads, rows, dim = q.shape
    columns = k.shape[2]
    queries = (q * dim**-0.5).reshape(b * heads, rows, dim)
    keys, values = k.reshape(b * heads, columns, dim).transpose(1, 2), v.reshape(b * heads, columns, dim)
    result = torch.empty_like(queries)
    row_bytes = columns * q.element_size()
    most_rows = max(1, min(rows, SCORE_BYTES // row_bytes))
    most_heads = max(1, SCORE_BYTES // (row_bytes * most_rows))
    for head in range(0, b * heads, most_heads):
        some = slice(head, head + most_heads)
        for row in range(0, rows, most_rows):
            part = slice(row, row + most_rows)
            scores = torch.bmm(queries[some, part], keys[some]).softmax(-1)
            result[some, part] = torch.bmm(scores, values[some])
    return result.view(b, heads, rows, dim)
