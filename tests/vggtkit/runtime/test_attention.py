"""Attention in parts is attention."""

import pytest
import torch
import torch.nn.functional as F

from vggtkit.runtime import attention
from vggtkit.runtime.attention import in_parts


@pytest.mark.parametrize("score_bytes", [1, 700, 5_000, 2**26])
def test_however_it_is_divided(score_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time, some rows, some heads, all at once."""
    monkeypatch.setattr(attention, "SCORE_BYTES", score_bytes)
    q, k, v = torch.randn(3, 2, 3, 17, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(in_parts(q, k, v), F.scaled_dot_product_attention(q, k, v), rtol=1e-12, atol=1e-12)
