"""The trunk: a DINOv2 backbone per frame, then frame and global attention in alternation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.model.config import VGGTConfig
from vggtkit.model.layers import Block, Rotary

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class PatchEmbed(nn.Module):
    """A convolution that turns each patch of an image into one token."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 3, H, W]`` to ``[N, H/p * W/p, dim]``."""
        tokens: Tensor = self.proj(images).flatten(2).transpose(1, 2)
        return tokens


class DinoBackbone(nn.Module):
    """DINOv2 ViT with register tokens (Oquab et al. 2023; Darcet et al. 2023), output: normalised patch tokens."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.grid = config.img_size // config.patch_size
        self.patch_size = config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2 + 1, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, dim))
        self.blocks = nn.ModuleList(
            Block(dim, config.vit_num_heads, layer_scale=1.0, norm_eps=1e-6) for _ in range(config.vit_depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 3, H, W]`` (normalised) to patch tokens ``[N, H/p * W/p, dim]``."""
        count, _, height, width = images.shape
        patches = self.patch_embed(images)
        position = self._position(height // self.patch_size, width // self.patch_size)
        x = torch.cat([self.cls_token.expand(count, -1, -1), patches], dim=1) + position
        x = torch.cat([x[:, :1], self.register_tokens.expand(count, -1, -1), x[:, 1:]], dim=1)
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.norm(x)[:, 1 + self.register_tokens.shape[1] :]
        return result

    def _position(self, rows: int, columns: int) -> Tensor:
        if (rows, columns) == (self.grid, self.grid):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class Aggregator(nn.Module):
    """Alternating attention: within each frame, then over all frames, ``aggregator_depth`` times.

    The first frame has camera and register tokens of its own, which makes it the reference of the world frame.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        dim, depth = config.embed_dim, config.aggregator_depth
        self.patch_embed = DinoBackbone(config)
        self.frame_blocks = nn.ModuleList(self._block() for _ in range(depth))
        self.global_blocks = nn.ModuleList(self._block() for _ in range(depth))
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, dim))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.num_register_tokens, dim))
        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(IMAGE_STD).view(1, 3, 1, 1), persistent=False)

    def _block(self) -> Block:
        return Block(self.config.embed_dim, self.config.num_heads, layer_scale=0.01, qk_norm=True)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Run the trunk.

        Args:
            images: ``[B, S, 3, H, W]`` in [0, 1].

        Returns:
            For the depths that a head reads, tokens ``[B, S, T, 2 * dim]``: the frame block's output beside the
            global block's. T counts the camera token, the registers and the patches, in this order. What no head
            reads is not kept.
        """
        b, s, _, height, width = images.shape
        dim, patch = self.config.embed_dim, self.config.patch_size
        x = self.patch_embed((images.flatten(0, 1) - self.image_mean) / self.image_std)
        special = torch.cat([self.camera_token, self.register_token], dim=2)
        x = torch.cat([_per_frame(special, b, s), x], dim=1)
        tokens = x.shape[1]

        positions = self._positions(height // patch, width // patch, images.device)
        head_dim = dim // self.config.num_heads
        in_frame, in_scene = Rotary(positions, head_dim), Rotary(positions.repeat(s, 1), head_dim)
        by_depth: dict[int, Tensor] = {}
        for depth, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            framed = frame_block(x.reshape(b * s, tokens, dim), in_frame)
            x = global_block(framed.reshape(b, s * tokens, dim), in_scene)
            if depth in self.config.dpt_layer_idx or depth == self.config.aggregator_depth - 1:
                by_depth[depth] = torch.cat([framed.view(b, s, tokens, dim), x.view(b, s, tokens, dim)], dim=-1)
        return by_depth

    def _positions(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """(y, x) of every token of a frame: 0 for camera and registers, from 1 for patches; ``[T, 2]``."""
        y, x = torch.arange(rows, device=device) + 1, torch.arange(columns, device=device) + 1
        special = torch.zeros(self.config.patch_start, 2, dtype=y.dtype, device=device)
        return torch.cat([special, torch.cartesian_prod(y, x)])


def _per_frame(token: Tensor, b: int, s: int) -> Tensor:
    """``[1, 2, K, dim]`` to ``[B * S, K, dim]``: the first entry for the first frame, the second for the others."""
    first, others = token[:, :1].expand(b, -1, -1, -1), token[:, 1:].expand(b, s - 1, -1, -1)
    return torch.cat([first, others], dim=1).flatten(0, 1)
