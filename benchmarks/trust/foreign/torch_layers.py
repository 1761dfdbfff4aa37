"""Layers of torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.trust.foreign.base import WIDTH, model


class Attention(nn.Module):
    """torch's attention and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(WIDTH, 3, batch_first=True), nn.Linear(WIDTH, 6)

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return self.head(self.attention(x, x, x)[0])


@model
def attention() -> nn.Module:
    """The projections of torch's attention."""
    return Attention()


@model
def encoder() -> nn.Module:
    """Torch's transformer."""
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 3, 48, batch_first=True), 2)


class Decoder(nn.Module):
    """torch's decoder, looking at its own input."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, 3, 48, batch_first=True), 2)

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return self.layers(x, x.flip(1))


@model
def decoder() -> nn.Module:
    """Torch's decoder."""
    return Decoder()


class Recurrent(nn.Module):
    """torch's LSTM, whose weights are no layers, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(WIDTH, 16), nn.LSTM(16, 16, batch_first=True), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        """See `Net`."""
        return self.head(self.body(self.stem(x))[0])


@model
def recurrent() -> nn.Module:
    """Layers around something recurrent."""
    return Recurrent()


class OtherConvolutions(nn.Module):
    """Over one and three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.three = nn.Conv1d(10, 10, 3, padding=1), nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens as a signal, then as a volume."""
        return self.three(torch.tanh(self.one(x))[:, None, None])


@model
def other_convolutions() -> nn.Module:
    """Conv1d and Conv3d."""
    return OtherConvolutions()


@model
def pictures() -> nn.Module:
    """Grouped and depthwise convolutions on pictures."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, stride=2, groups=2),
    )  # fmt: skip


@model
def transposed() -> nn.Module:
    """Transposed convolutions on pictures."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GELU(), nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2), nn.ConvTranspose2d(4, 2, 3)
    )
