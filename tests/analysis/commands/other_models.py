"""Two models that are no VGGT, and what they are called with; found by name from the command line."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def encoder() -> nn.Module:
    """A transformer of torch's own; its attention reads a weight without calling its layer."""
    torch.manual_seed(0)
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)


def tokens() -> Iterator[Tensor]:
    """Endless scenes of two sequences."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(2, 7, 32, generator=generator)


class Pyramid(nn.Module):
    """A convolutional network for pictures, with two outputs, batch norm and grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 1)
            )
            for _ in range(2)
        )
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.depth_head = nn.Conv2d(8, 1, 1)
        self.classifier = nn.Linear(16, 5)
        self.img_size, self.patch_size = 64, 2

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.stem(images)
        for stage in self.stages:
            x = x + stage(x)
        return {"disparity": self.depth_head(self.up(x)).exp(), "logits": self.classifier(x.mean((-2, -1)))}


def pyramid() -> nn.Module:
    torch.manual_seed(0)
    return Pyramid()
