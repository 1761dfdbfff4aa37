"""Formats of activations: how the input of a layer is rounded where it is computed in whole numbers.

Symmetric, with scales that follow each input as it comes (dynamic quantisation), so nothing is calibrated and nothing
is stored. `int8_token` is, bit for bit, what `vggtkit.runtime.kernels.quantize_rows` computes with. `int8_tensor` is
what runtimes compute with whose scales are fixed, as far as these fit the input at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vggtkit.core.registry import Registry

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class ActivationFormat:
    """How the inputs of a layer are rounded.

    Attributes:
        key: name in files and on the command line.
        title: name in tables.
        bits: of a code.
        block_size: channels that share a scale; None: all channels of a token. The last block may be shorter.
        is_shared: one scale for all tokens of an input.

    >>> ActivationFormat("int4_token", "INT4 per token", 4).largest
    7
    """

    key: str
    title: str
    bits: int
    block_size: int | None = None
    is_shared: bool = False

    @property
    def short_title(self) -> str:
        """The title for narrow tables.

        >>> ACTIVATION_FORMATS["int4_block_128"].short_title
        'INT4 b128'
        """
        return self.title.replace("per ", "").replace("block of ", "b")

    @property
    def largest(self) -> int:
        """The largest code; the smallest is its negative."""
        return int(2 ** (self.bits - 1) - 1)


ACTIVATION_FORMATS: Registry[ActivationFormat] = Registry("activation format")
INT8_TOKEN = "int8_token"
"""What INT8 execution rounds inputs to."""
INT8_TENSOR = "int8_tensor"
"""What it rounds them to where scales are fixed beforehand."""

for _format in (
    ActivationFormat(INT8_TOKEN, "INT8 per token", 8),
    ActivationFormat(INT8_TENSOR, "INT8 per tensor", 8, is_shared=True),
    ActivationFormat("int4_token", "INT4 per token", 4),
    ActivationFormat("int4_block_128", "INT4 per block of 128", 4, 128),
):
    ACTIVATION_FORMATS.register(_format.key, _format)


def row_scales(x: Tensor, largest: int) -> Tensor:
    """``max|row| / largest`` along the last axis, which stays; a row of zeros has the smallest normal number.

    >>> row_scales(torch.tensor([[127.0, -254.0], [0.0, 0.0]]), 127)[0]
    tensor([2.])
    """
    return torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True)).div_(largest).clamp_min_(_TINY)


def round_activations(x: Tensor, key: str) -> Tensor:
    """Activations as a layer gets them in a format.

    Args:
        x: ``[..., channels]``, floating.
        key: of an activation format.

    Returns:
        The same shape, in FP32 (FP64 stays): whole multiples of the scale of each token, of a block of it, or of all.

    Raises:
        InputError: the format is unknown.

    >>> round_activations(torch.tensor([[127.0, -2.4], [0.0, 0.0]]), "int8_token").tolist()
    [[127.0, -2.0], [0.0, 0.0]]
    """
    form = ACTIVATION_FORMATS.pick(key)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if form.is_shared:
        scale = row_scales(x.reshape(1, -1), form.largest)
        return (x / scale).round_().mul_(scale)
    size = form.block_size
    blocks = (x,) if size is None else x.split(size, dim=-1)
    rounded = [(block / (scales := row_scales(block, form.largest))).round_().mul_(scales) for block in blocks]
    return rounded[0] if len(rounded) == 1 else torch.cat(rounded, dim=-1)
