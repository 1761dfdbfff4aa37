"""The track head: follows query points of the first frame through all frames.

Source: CoTracker (Karaev et al., ECCV 2024) in the form that VGGSfM and VGGT use.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.model.config import VGGTConfig
from vggtkit.model.dpt_head import DPTFeatures
from vggtkit.model.layers import CrossAttention, Mlp

DOWN_RATIO = 2
MAX_SCALE = 518.0
"""Displacements are also given in units of this many feature pixels; a constant of the published tracker."""


class SelfBlock(nn.Module):
    """Attention block of the tracker. As published, the residual adds to the *normalised* input."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.attn = CrossAttention(dim, num_heads)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, dim]``, shape unchanged."""
        x = self.norm1(x)
        x = x + self.attn(x, x)
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class CrossBlock(nn.Module):
    """As `SelfBlock`, attending to other tokens."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attn = CrossAttention(dim, num_heads)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """``x [B, N, dim]`` attends to ``context [B, M, dim]``."""
        x = self.norm1(x)
        x = x + self.cross_attn(x, self.norm_context(context))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


def _tokens(*shape: int) -> nn.Parameter:
    """Random ones; where there is no memory for them none are drawn, which torch takes half a second to do there."""
    values = torch.empty(shape)
    return nn.Parameter(values if values.is_meta else values.normal_())


class UpdateTransformer(nn.Module):
    """Updates all tracks together: along time, and across tracks by way of a few virtual ones."""

    def __init__(self, config: VGGTConfig, input_dim: int, output_dim: int) -> None:
        super().__init__()
        dim, heads, depth = config.track_hidden_size, config.track_num_heads, config.track_depth
        self.input_norm = nn.LayerNorm(input_dim)
        self.input_transform = nn.Linear(input_dim, dim)
        self.output_norm = nn.LayerNorm(dim)
        self.flow_head = nn.Linear(dim, output_dim)
        self.virual_tracks = _tokens(1, config.track_virtual_tracks, 1, dim)  # the published name
        self.time_blocks = nn.ModuleList(SelfBlock(dim, heads) for _ in range(depth))
        self.space_virtual_blocks = nn.ModuleList(SelfBlock(dim, heads) for _ in range(depth))
        self.space_point2virtual_blocks = nn.ModuleList(CrossBlock(dim, heads) for _ in range(depth))
        self.space_virtual2point_blocks = nn.ModuleList(CrossBlock(dim, heads) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, S, input_dim]`` to ``[B, N, S, output_dim]``."""
        b, _, s, _ = x.shape
        start = points = self.input_transform(self.input_norm(x))
        virtual = self.virual_tracks.expand(b, -1, s, -1)
        blocks = zip(
            self.time_blocks,
            self.space_virtual2point_blocks,
            self.space_virtual_blocks,
            self.space_point2virtual_blocks,
            strict=True,
        )
        for time_block, to_virtual, among_virtual, to_points in blocks:
            points, virtual = (time_block(tokens.flatten(0, 1)).unflatten(0, (b, -1)) for tokens in (points, virtual))
            points, virtual = (tokens.transpose(1, 2).flatten(0, 1) for tokens in (points, virtual))
            virtual = among_virtual(to_virtual(virtual, points))
            points = to_points(points, virtual)
            points, virtual = (tokens.unflatten(0, (b, s)).transpose(1, 2) for tokens in (points, virtual))
        result: Tensor = self.flow_head(self.output_norm(points + start))
        return result


class Tracker(nn.Module):
    """Iterative refinement of point tracks from correlations with the feature maps."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        features = config.track_features
        window = (2 * config.track_corr_radius + 1) ** 2
        self.transformer_dim = 3 * features + 4
        self.corr_mlp = Mlp(config.track_corr_levels * window, config.track_hidden_size, features)
        self.query_ref_token = _tokens(1, 2, self.transformer_dim)
        self.updateformer = UpdateTransformer(config, self.transformer_dim, features + 2)
        self.fmap_norm = nn.LayerNorm(features)
        self.ffeat_norm = nn.GroupNorm(1, features)
        self.ffeat_updater = nn.Sequential(nn.Linear(features, features), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(features, 1))
        self.conf_predictor = nn.Sequential(nn.Linear(features, 1))

    def forward(self, query_points: Tensor, maps: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Track points.

        Args:
            query_points: ``[B, N, 2]`` pixel (x, y) in the first frame.
            maps: features ``[B, S, C, H / 2, W / 2]``.

        Returns:
            Tracks of all iterations, each ``[B, S, N, 2]`` in pixels; visibility and confidence ``[B, S, N]``.
        """
        b, s, _, height, width = maps.shape
        maps = self.fmap_norm(maps.movedim(2, -1)).movedim(-1, 2)
        scale = float(self.config.track_stride)
        query = query_points / scale
        coords = query[:, None].expand(-1, s, -1, -1)
        features = _sample(maps[:, 0], query)[:, None].expand(-1, s, -1, -1)
        pyramid = CorrelationPyramid(maps, self.config.track_corr_levels, self.config.track_corr_radius)
        grid = _sincos_grid(self.transformer_dim, height, width, maps.device).to(maps)
        place = _sample(grid.expand(b, -1, -1, -1), query)
        reference = torch.cat([self.query_ref_token[:, :1], self.query_ref_token[:, 1:].expand(-1, s - 1, -1)], dim=1)

        tracks = []
        for _ in range(self.config.track_iters):
            if self.training:
                coords = coords.detach()  # as published
            correlation = self.corr_mlp(pyramid.around(features, coords).transpose(1, 2).flatten(0, 1))
            flow = (coords - coords[:, :1]).transpose(1, 2).flatten(0, 1)
            state = features.transpose(1, 2).flatten(0, 1)
            # Sines of 1000 times a coordinate have a derivative, but it says nothing about finite changes.
            embedded = _flow_embedding(flow.detach(), self.config.track_features // 2)
            x = torch.cat([embedded, flow / MAX_SCALE, flow / MAX_SCALE, correlation, state], dim=-1)
            x = x + place.flatten(0, 1)[:, None] + reference
            delta = self.updateformer(x.unflatten(0, (b, -1))).flatten(0, 1)
            moved, changed = delta[..., :2], delta[..., 2:].flatten(0, 1)
            state = self.ffeat_updater(self.ffeat_norm(changed)) + state.flatten(0, 1)
            features = state.unflatten(0, (b, -1, s)).transpose(1, 2)
            coords = coords + moved.unflatten(0, (b, -1)).transpose(1, 2)
            coords = torch.cat([query[:, None], coords[:, 1:]], dim=1)  # the query itself does not move
            tracks.append(coords * scale)
        visible = self.vis_predictor(features.flatten(0, 2)).view(b, s, -1).sigmoid()
        confident = self.conf_predictor(features.flatten(0, 2)).view(b, s, -1).sigmoid()
        return tracks, visible, confident


class TrackHead(nn.Module):
    """Features of a DPT head at half resolution, and a tracker on them."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.feature_extractor = DPTFeatures(config, config.track_features, None, position=False, down_ratio=DOWN_RATIO)
        self.tracker = Tracker(config)

    def forward(
        self, tokens: dict[int, Tensor], size: tuple[int, int], query_points: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """As `Tracker.forward`, from the aggregated tokens ``[B, S, P, C]`` by number of their block."""
        result: tuple[list[Tensor], Tensor, Tensor] = self.tracker(query_points, self.feature_extractor(tokens, size))
        return result


class CorrelationPyramid:
    """Correlation of track features with feature maps at several resolutions, sampled around the tracks.

    Args:
        maps: ``[B, S, C, H, W]``.
        levels: each half the resolution of the one before.
        radius: the window is ``2 * radius + 1`` wide at every level.
    """

    def __init__(self, maps: Tensor, levels: int, radius: int) -> None:
        self.levels: list[tuple[Tensor, torch.Size]] = []
        for level in range(levels):
            # Contiguous once and for all, as every iteration multiplies with them.
            self.levels.append((maps.flatten(3).contiguous(), maps.shape[-2:]))
            if level + 1 < levels:
                maps = F.avg_pool2d(maps.flatten(0, 1), 2).unflatten(0, maps.shape[:2])
        offset = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
        self.window = torch.stack(torch.meshgrid(offset, offset, indexing="ij"), dim=-1)

    def around(self, features: Tensor, coords: Tensor) -> Tensor:
        """Features ``[B, S, N, C]`` at ``coords [B, S, N, 2]`` to ``[B, S, N, levels * window]``."""
        b, s, n, channels = features.shape
        sampled = []
        for level, (maps, size) in enumerate(self.levels):
            correlation = (features @ maps / math.sqrt(channels)).reshape(b * s * n, 1, *size)
            where = coords.reshape(-1, 1, 1, 2) / 2**level + self.window
            sampled.append(_bilinear(correlation, where, "zeros").view(b, s, n, -1))
        return torch.cat(sampled, dim=-1)


def _bilinear(maps: Tensor, coords: Tensor, padding: str) -> Tensor:
    """Sample ``[B, C, H, W]`` at pixel coordinates ``[B, h, w, 2]`` (0 is the centre of the first pixel)."""
    size = torch.tensor([maps.shape[-1], maps.shape[-2]], device=maps.device, dtype=coords.dtype)
    grid = coords * (2 / (size - 1).clamp(min=1)) - 1
    return F.grid_sample(maps, grid.to(maps.dtype), align_corners=True, padding_mode=padding)


def _sample(maps: Tensor, points: Tensor) -> Tensor:
    """Values of ``[B, C, H, W]`` at ``points [B, N, 2]``: ``[B, N, C]``."""
    return _bilinear(maps, points[:, :, None], "border").squeeze(-1).transpose(1, 2)


def _sincos_grid(channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """Sine-cosine embedding of a pixel grid, x in the first half of the channels; ``[1, channels, H, W]``."""
    exact = torch.float32 if device.type == "mps" else torch.float64
    x, y = torch.arange(width, device=device, dtype=exact), torch.arange(height, device=device, dtype=exact)
    quarter = channels // 4
    frequency = 1 / 10000 ** (torch.arange(quarter, device=device, dtype=exact) / quarter)
    along_x, along_y = (x[:, None] * frequency).T[:, None, :], (y[:, None] * frequency).T[:, :, None]
    waves = along_x.sin(), along_x.cos(), along_y.sin(), along_y.cos()
    return torch.cat([wave.expand(-1, height, width) for wave in waves])[None]


def _flow_embedding(flow: Tensor, channels: int) -> Tensor:
    """Displacements ``[..., 2]`` to ``[..., 2 * channels]``: interleaved sine and cosine of x, then of y."""
    frequency = torch.arange(0, channels, 2, device=flow.device, dtype=flow.dtype) * (1000.0 / channels)
    angles = flow[..., None] * frequency
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)
