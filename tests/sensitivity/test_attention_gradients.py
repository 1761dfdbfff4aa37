"""Gradients of attention with kept weights against torch's own in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from sensitivity import attention_gradients
from sensitivity.attention_gradients import kept_attention_weights


def some(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(dtype: torch.dtype, cotangents: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """Of queries, keys and values, as a segment is gone back through: several times, one after the other."""
    parts = [some(seed, 1, 2, 40, 8).to(torch.bfloat16).to(dtype).requires_grad_() for seed in range(3)]
    lowered = dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16, enabled=lowered), kept_attention_weights(torch.bfloat16):
        result = F.scaled_dot_product_attention(*parts)
    assert result.dtype == (torch.bfloat16 if lowered else dtype)
    return [torch.autograd.grad(result, parts, c.to(result.dtype), retain_graph=True) for c in cotangents]


def test_every_cotangent_gets_its_own_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    cotangents = [some(7, 1, 2, 40, 8), some(8, 1, 2, 40, 8)]
    kept = gradients(torch.float32, cotangents)
    for found, expected in zip(kept, gradients(torch.float64, cotangents), strict=True):
        for one, other in zip(found, expected, strict=True):
            error = (one.double() - other).norm() / other.norm()
            assert error < 0.02, "three digits of bfloat16 and sums of forty"
    monkeypatch.setattr(attention_gradients, "WEIGHTS_BYTES", 2 * 2 * 40 * 40 - 1)
    fused = gradients(torch.float32, cotangents)
    for found, expected in zip(kept, fused, strict=True):
        for one, other in zip(found, expected, strict=True):
            assert not one.equal(other), "the limit was meant to turn it off"
            assert_close(one, other, rtol=0.1, atol=0.02)


def test_masks_are_left_to_torch() -> None:
    parts = [some(seed, 1, 2, 6, 8).requires_grad_() for seed in range(3)]
    with torch.autocast("cpu", torch.bfloat16), kept_attention_weights(torch.bfloat16):
        causal = F.scaled_dot_product_attention(*parts, is_causal=True)
    assert causal[..., 0, :].allclose(parts[2][..., 0, :].to(causal.dtype), atol=1e-2)
