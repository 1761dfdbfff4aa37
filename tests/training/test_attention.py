"""Written-out attention is the fused one."""

import pytest
import torch
import torch.nn.functional as F

from training.attention import written_out


def test_agrees_with_the_fused_kernel_and_shows_its_logits() -> None:
    query, key, value = torch.randn(3, 2, 4, 7, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    expected = F.scaled_dot_product_attention(query, key, value)
    with written_out() as seen:
        found = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(seen[0].softmax(-1) @ value, expected)


def test_the_fused_kernel_is_back_afterwards_whatever_happens() -> None:
    fused = F.scaled_dot_product_attention
    with pytest.raises(KeyboardInterrupt), written_out():
        raise KeyboardInterrupt
    assert F.scaled_dot_product_attention is fused
