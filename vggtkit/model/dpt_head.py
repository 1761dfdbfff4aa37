"""The DPT head: dense maps from tokens of four depths (Ranftl et al., "Vision Transformers for Dense Prediction")."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.model.config import VGGTConfig

FRAMES_AT_ONCE = 8
POSITION_GAIN = 0.1


class ResidualConv(nn.Module):
    """Two 3x3 convolutions. Published weights expect the *rectified* input on the skip (their ReLU is in place)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]``, shape unchanged."""
        x = x.relu()
        result: Tensor = self.conv2(self.conv1(x).relu()) + x
        return result


class Fusion(nn.Module):
    """Adds a finer feature map to the coarser one, refines, and resizes to the next level."""

    def __init__(self, channels: int, *, has_residual: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, 1)
        if has_residual:
            self.resConfUnit1 = ResidualConv(channels)
        self.resConfUnit2 = ResidualConv(channels)

    def forward(self, x: Tensor, finer: Tensor | None, size: tuple[int, int]) -> Tensor:
        """``x [N, C, h, w]`` and ``finer`` of the same shape, to ``[N, C, *size]``."""
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        x = resized(self.resConfUnit2(x), size)
        result: Tensor = self.out_conv(x)
        return result


class Scratch(nn.Module):
    """The convolutional half of a DPT head; the name and its members are those of the published weights."""

    def __init__(self, channels: tuple[int, ...], features: int, out_channels: int | None) -> None:
        super().__init__()
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            nn.Conv2d(c, features, 3, padding=1, bias=False) for c in channels
        )
        self.refinenet1 = Fusion(features, has_residual=True)
        self.refinenet2 = Fusion(features, has_residual=True)
        self.refinenet3 = Fusion(features, has_residual=True)
        self.refinenet4 = Fusion(features, has_residual=False)
        if out_channels is None:
            self.output_conv1 = nn.Conv2d(features, features, 3, padding=1)
        else:
            self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
            self.output_conv2 = nn.Sequential(
                nn.Conv2d(features // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, out_channels, 1)
            )

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Four maps, fine to coarse, the finest ``[N, C, h, w]``, to one ``[N, F, *size]`` by way of ``2 h, 2 w``."""
        x, finest = self.fused(maps)
        x = self.refinenet1(x, finest, (2 * finest.shape[-2], 2 * finest.shape[-1]))
        return resized(self.output_conv1(x), size)

    def fused(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What is left for `refinenet1`: the three coarser maps in one, and the finest, both ``[N, F, h, w]``."""
        one, two, three, four = (
            rn(x) for rn, x in zip((self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn), maps, strict=True)
        )
        x = self.refinenet4(four, None, _size(three))
        x = self.refinenet3(x, three, _size(two))
        return self.refinenet2(x, two, _size(one)), one


class DPTFeatures(nn.Module):
    """Dense features from the aggregated tokens: what the depth, point and track heads share.

    Args:
        config: sizes.
        features: channels of the fused maps.
        out_channels: channels of the prediction, or None for a head that ends in features.
        position: add sine-cosine positions to the maps.
        down_ratio: the output is ``H / down_ratio`` by ``W / down_ratio``.

    Attributes:
        maps_dtype: that maps are computed in; None, as published, for that of the tokens. What is put out has that of
            the tokens.
    """

    maps_dtype: torch.dtype | None = None

    def __init__(
        self,
        config: VGGTConfig,
        features: int,
        out_channels: int | None,
        *,
        position: bool,
        down_ratio: int = 1,
    ) -> None:
        super().__init__()
        channels = config.dpt_out_channels
        self.config, self.position, self.down_ratio = config, position, down_ratio
        self.norm = nn.LayerNorm(config.token_dim)
        self.projects = nn.ModuleList(nn.Conv2d(config.token_dim, c, 1) for c in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = Scratch(channels, features, out_channels)

    def forward(self, tokens: dict[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Tokens by depth, each ``[B, S, T, 2 * dim]``, to maps ``[B, S, C, H / down_ratio, W / down_ratio]``.

        Frames are taken a few at a time, so that memory does not grow with their number.
        """
        if self.maps_dtype is None:
            return self._all_frames(tokens, size)
        some = next(iter(tokens.values()))
        with torch.autocast(some.device.type, dtype=self.maps_dtype, cache_enabled=False):
            return self._all_frames(tokens, size).to(some.dtype)

    def _all_frames(self, tokens: dict[int, Tensor], size: tuple[int, int]) -> Tensor:
        frames = next(iter(tokens.values())).shape[1]
        chunks = [
            self._some_frames(tokens, slice(start, start + FRAMES_AT_ONCE), size)
            for start in range(0, frames, FRAMES_AT_ONCE)
        ]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim=1)

    def _some_frames(self, tokens: dict[int, Tensor], frames: slice, size: tuple[int, int]) -> Tensor:
        height, width = size
        patch, first = self.config.patch_size, self.config.patch_start
        maps = []
        for depth, project, resize in zip(self.config.dpt_layer_idx, self.projects, self.resize_layers, strict=True):
            x = tokens[depth][:, frames, first:]
            b, s = x.shape[:2]
            x = self.norm(x.flatten(0, 1)).transpose(1, 2).unflatten(2, (height // patch, width // patch))
            maps.append(resize(self._placed(project(x), size)))
        x = self.scratch(maps, (height // self.down_ratio, width // self.down_ratio))
        x = self._placed(x, size)
        if hasattr(self.scratch, "output_conv2"):
            x = self.scratch.output_conv2(x)
        result: Tensor = x.unflatten(0, (b, s))
        return result

    def _placed(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if not self.position:
            return x
        return x + POSITION_GAIN * position_map(x.shape[1], x.shape[2], x.shape[3], size[1] / size[0], x.device).to(x)


class DPTHead(DPTFeatures):
    """A DPT head that ends in a prediction and its confidence, ``1 + exp``.

    Args:
        config: sizes.
        channels: values per pixel.
        activation: from raw to predicted values.
    """

    def __init__(self, config: VGGTConfig, channels: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__(config, config.dpt_features, channels + 1, position=True)
        self.activation = activation

    def predict(self, tokens: dict[int, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Values ``[B, S, H, W, channels]`` and confidences ``[B, S, H, W]``."""
        raw = self(tokens, size).movedim(2, -1)
        return self.activation(raw[..., :-1]), 1 + raw[..., -1].exp()


def inverse_log(x: Tensor) -> Tensor:
    """``sign(x) * (exp(|x|) - 1)``: the activation of the point head; any shape."""
    return x.sign() * x.abs().expm1()


def position_map(channels: int, rows: int, columns: int, aspect: float, device: torch.device) -> Tensor:
    """Sine-cosine embedding of the pixel centres, ``[channels, rows, columns]``; ``aspect`` is width / height.

    The picture spans a rectangle of that aspect whose half diagonal is 1; frequencies fall from 1 to 1/100.

    >>> position_map(8, 2, 3, 1.5, torch.device("cpu")).shape
    torch.Size([8, 2, 3])
    """
    diagonal = (aspect**2 + 1.0) ** 0.5
    spans = (aspect / diagonal * (columns - 1) / columns, 1 / diagonal * (rows - 1) / rows)
    u = torch.linspace(-spans[0], spans[0], columns, device=device)
    v = torch.linspace(-spans[1], spans[1], rows, device=device)
    quarter = channels // 4
    frequency = 100.0 ** -(torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    along_u, along_v = (u[:, None] * frequency)[None], (v[:, None] * frequency)[:, None]
    waves = along_u.sin(), along_u.cos(), along_v.sin(), along_v.cos()
    # Laid out like the maps that it is added to, channels last.
    return torch.cat([wave.expand(rows, columns, -1) for wave in waves], dim=-1).permute(2, 0, 1)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``[N, C, h, w]`` to ``[N, C, *size]``: bilinear, the corner pixels keep their place."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
