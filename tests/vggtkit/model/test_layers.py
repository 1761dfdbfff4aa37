"""The building blocks against closed forms and against torch's own modules."""

import pytest
import torch
from torch import Tensor

from vggtkit.model.layers import Attention, Block, CrossAttention, Rotary


def turned_by_hand(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary embedding as multiplication of complex numbers by unit ones, token by token.

    The first half of the channels belongs to y, the second to x; within a half of 2 k channels, channel i is the real
    part and channel i + k the imaginary part of number i, which turns by position * 100 ** (-i / k).
    """
    half = x.shape[-1] // 2
    k = half // 2
    result = torch.empty_like(x)
    for token, position in enumerate(positions.tolist()):
        for axis in range(2):
            for i in range(k):
                real, imaginary = axis * half + i, axis * half + k + i
                number = torch.complex(x[..., token, real], x[..., token, imaginary])
                number = number * torch.exp(torch.tensor(1j * position[axis] * 100.0 ** (-i / k)))
                result[..., token, real], result[..., token, imaginary] = number.real, number.imag
    return result


@pytest.mark.parametrize("head_dim", [4, 8, 12, 64])
def test_rotary_is_a_product_of_complex_numbers(head_dim: int) -> None:
    torch.manual_seed(0)
    positions = torch.tensor([[0, 0], [1, 1], [1, 7], [5, 2], [37, 36]])
    x = torch.randn(2, 3, len(positions), head_dim)
    torch.testing.assert_close(Rotary(positions, head_dim)(x), turned_by_hand(x, positions), rtol=1e-4, atol=1e-5)


def test_rotary_products_depend_on_distance_only() -> None:
    """What attention sees of positions is their difference."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def product(at: tuple[int, int], other: tuple[int, int]) -> Tensor:
        return (Rotary(torch.tensor([at]), 16)(q) * Rotary(torch.tensor([other]), 16)(k)).sum()

    torch.testing.assert_close(product((1, 2), (4, 9)), product((11, 5), (14, 12)), rtol=1e-4, atol=1e-5)
    assert (product((1, 2), (4, 9)) - product((1, 2), (9, 4))).abs() > 1e-3


def torch_attention(dim: int, heads: int) -> torch.nn.MultiheadAttention:
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(dim, heads, batch_first=True)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


@torch.no_grad()
@pytest.mark.parametrize("is_self", [True, False], ids=["self", "cross"])
@pytest.mark.parametrize(("dim", "heads"), [(8, 1), (24, 4), (48, 8)])
def test_cross_attention_equals_torch(dim: int, heads: int, is_self: bool) -> None:
    """Weights travel by the official names, strictly."""
    theirs, ours = torch_attention(dim, heads), CrossAttention(dim, heads)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(3, 7, dim)
    context = x if is_self else torch.randn(3, 5, dim)
    expected, _ = theirs(x, context, context, need_weights=True)
    torch.testing.assert_close(ours(x, context), expected)


def test_cross_attention_is_saved_under_torch_names() -> None:
    theirs = torch_attention(12, 3)
    ours = CrossAttention(12, 3)
    ours.load_state_dict(theirs.state_dict())
    saved = torch.nn.ModuleDict({"inner": ours}).state_dict()
    expected = {f"inner.{name}": tensor for name, tensor in theirs.state_dict().items()}
    assert saved.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(saved[name], tensor, rtol=0, atol=0)


def test_cross_attention_refuses_a_state_without_its_projection() -> None:
    state = torch_attention(12, 3).state_dict()
    del state["in_proj_bias"]
    with pytest.raises(RuntimeError, match=r"in_proj\.bias"):
        CrossAttention(12, 3).load_state_dict(state)


@torch.no_grad()
def test_attention_equals_torch() -> None:
    """Without normalised queries and positions it is the ordinary one, the three projections stacked."""
    theirs, ours = torch_attention(24, 4), Attention(24, 4, qk_norm=False)
    ours.qkv.weight.copy_(theirs.in_proj_weight)
    ours.qkv.bias.copy_(theirs.in_proj_bias)
    ours.proj.load_state_dict(theirs.out_proj.state_dict())
    x = torch.randn(2, 6, 24)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


@torch.no_grad()
def test_qk_norm_makes_attention_deaf_to_the_size_of_queries_and_keys() -> None:
    torch.manual_seed(0)
    attention, x = Attention(16, 2, qk_norm=True), torch.randn(1, 5, 16)
    before = attention(x)
    attention.qkv.weight[:32] *= 100
    attention.qkv.bias[:32] *= 100
    torch.testing.assert_close(attention(x), before, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_block_without_gain_is_the_identity() -> None:
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(Block(16, 2, layer_scale=0.0)(x), x, rtol=0, atol=0)
