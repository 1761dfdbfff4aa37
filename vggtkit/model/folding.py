"""Factors per channel, moved between a norm and the linear layer behind it; what a VGGT computes stays the same.

A norm puts out ``x * weight + bias``, so dividing these two by a factor per channel and multiplying the columns of the
layer behind by it changes nothing, but moves outliers of activations into weights (Xiao et al., "SmoothQuant", ICML
2023). With powers of two nothing is rounded, and outputs are the same bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.model.camera_head import CameraHead
from vggtkit.model.layers import Block
from vggtkit.model.track_head import CrossBlock, SelfBlock, UpdateTransformer

TWIN_SHARE, TWIN_FACTOR = 64, 40.0
"""One in so many channels of the outlier twin is so many times larger."""


LARGEST_EXPONENT = 10
"""FP16, in which norms are stored, holds factors up to 2^10 of theirs without loss."""


class Pair(NamedTuple):
    """A norm and the linear layer that alone reads what it puts out.

    Attributes:
        norm: name of a `torch.nn.LayerNorm`.
        linear: name of a `torch.nn.Linear`.
    """

    norm: str
    linear: str


def norm_linear_pairs(model: nn.Module) -> list[Pair]:
    """The pairs in the transformer blocks and heads of a VGGT; none in a model that has no parts of it.

    Left out are norms that something else reads as well: those before dense heads and the tracker's attention.

    >>> norm_linear_pairs(nn.Sequential(Block(8, 2, layer_scale=1.0)))
    [Pair(norm='0.norm1', linear='0.attn.qkv'), Pair(norm='0.norm2', linear='0.mlp.fc1')]
    """
    pairs = []
    for name, module in model.named_modules():
        start = f"{name}." if name else ""
        pairs += [Pair(start + norm, start + linear) for norm, linear in _PAIRS.get(type(module), ())]
    return pairs


_PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    Block: (("norm1", "attn.qkv"), ("norm2", "mlp.fc1")),
    CameraHead: (("trunk_norm", "pose_branch.fc1"),),
    SelfBlock: (("norm2", "mlp.fc1"),),
    CrossBlock: (("norm2", "mlp.fc1"),),
    UpdateTransformer: (("input_norm", "input_transform"), ("output_norm", "flow_head")),
}


@torch.no_grad()
def move_factors(model: nn.Module, pair: Pair, factors: Tensor) -> None:
    """Multiply a norm's channels by factors, and divide the columns of the layer behind it by them.

    Args:
        model: changed in place.
        pair: of `norm_linear_pairs`.
        factors: ``[channels]``, positive.
    """
    norm, linear = model.get_submodule(pair.norm), model.get_submodule(pair.linear)
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(linear, nn.Linear)
    factors = factors.to(norm.weight)
    norm.weight.mul_(factors)
    if norm.bias is not None:
        norm.bias.mul_(factors)
    linear.weight.div_(factors.to(linear.weight))


def fold(model: nn.Module, exponents: Mapping[str, Sequence[int]]) -> None:
    """Multiply channels of norms by powers of two, which is undone in the layers behind them.

    Args:
        model: a VGGT, changed in place; what it computes stays, bit for bit in FP32.
        exponents: by name of a norm, one whole number a channel.

    Raises:
        InputError: a norm is none of `norm_linear_pairs`, or has another number of channels.
    """
    pairs = {pair.norm: pair for pair in norm_linear_pairs(model)}
    for name, numbers in exponents.items():
        if name not in pairs:
            raise InputError(f"folding: {name} is no norm before a linear layer of this model")
        channels = len(model.get_parameter(f"{name}.weight"))
        if not isinstance(numbers, Sequence) or channels != len(numbers):
            raise InputError(f"folding: {name} is a norm of {channels} channels, given are {numbers!r:.40}")
        if not all(isinstance(number, int) and abs(number) <= LARGEST_EXPONENT for number in numbers):
            raise InputError(f"folding: exponents of {name} must be whole numbers within {LARGEST_EXPONENT} of 0")
        move_factors(model, pairs[name], torch.ldexp(torch.ones(channels), torch.tensor(numbers)))


def outlier_twin(model: nn.Module, *, share: int = TWIN_SHARE, factor: float = TWIN_FACTOR, seed: int = 0) -> nn.Module:
    """A network that computes the same, whose activations have outlier channels as those of large networks have.

    Args:
        model: a VGGT, unchanged.
        share: one in so many channels of every norm-linear pair, at least one, is made larger.
        factor: how many times; the columns of the linear layer are as many times smaller.
        seed: of the choice of channels.
    """
    twin, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for pair in norm_linear_pairs(twin):
        channels = len(twin.get_parameter(f"{pair.norm}.weight"))
        factors = torch.ones(channels)
        factors[torch.randperm(channels, generator=generator)[: max(1, channels // share)]] = factor
        move_factors(twin, pair, factors)
    return twin
