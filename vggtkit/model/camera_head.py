"""The camera head: refines a pose encoding over a few iterations from the frames' camera tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggtkit.model.config import VGGTConfig
from vggtkit.model.layers import Block, Mlp

POSE_DIM = 9
ITERATIONS = 4


class CameraHead(nn.Module):
    """From camera tokens to ``translation (3), quaternion xyzw (4), field of view (2)``, iterated 4 times.

    The published code cuts the gradient between iterations; here it flows, so that a Jacobian is the true one.
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = config.token_dim
        self.trunk = nn.Sequential(
            *(Block(dim, config.camera_num_heads, layer_scale=0.01) for _ in range(config.camera_trunk_depth))
        )
        self.token_norm = nn.LayerNorm(dim)
        self.trunk_norm = nn.LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_DIM))
        self.embed_pose = nn.Linear(POSE_DIM, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.adaln_norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.pose_branch = Mlp(dim, dim // 2, POSE_DIM)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Pose encodings of all iterations, the best last.

        Args:
            tokens: the last aggregated tokens, ``[B, S, T, 2 * dim]``; only the camera token (T = 0) is read.

        Returns:
            One ``[B, S, 9]`` an iteration: translation, quaternion (x, y, z, w), vertical and horizontal field of
            view in radians.
        """
        cameras = self.token_norm(tokens[:, :, 0])
        normalised = self.adaln_norm(cameras)
        pose = self.empty_pose_tokens.expand(*cameras.shape[:2], -1)
        results: list[Tensor] = []
        for iteration in range(ITERATIONS):
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(pose)).chunk(3, dim=-1)
            x = self.trunk(gate * (normalised * (1 + scale) + shift) + cameras)
            delta = self.pose_branch(self.trunk_norm(x))
            pose = delta if iteration == 0 else pose + delta
            results.append(torch.cat([pose[..., :7], pose[..., 7:].relu()], dim=-1))
        return results
