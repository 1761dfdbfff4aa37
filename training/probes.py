"""Linear probes on the trunk's tokens: a cheap teacher of geometry, taken away after training."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from vggtkit.model.config import VGGTConfig

CELLS = 2
"""A patch is read out at so many points along each side."""
CHANNELS = 6
"""Displacement to the first view (2), point in its frame (3), logarithm of depth (1)."""


class Probes(nn.Module):
    """From the tokens that the heads read, a coarse map of displacements, points and depths per view.

    The DPT heads say the same in full resolution at a hundred times the cost, so these teach the trunk while it
    learns to match.
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.token_dim
        self.heads = nn.ModuleDict()
        for depth in sorted(set(config.dpt_layer_idx)):
            self.heads[str(depth)] = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, CHANNELS * CELLS**2))

    def forward(self, tokens: Mapping[int, Tensor], grid: tuple[int, int]) -> list[Tensor]:
        """One map ``[B, S, CELLS * rows, CELLS * columns, CHANNELS]`` per depth that the DPT heads read."""
        maps = []
        for depth, head in self.heads.items():
            x = head(tokens[int(depth)][:, :, self.config.patch_start :].float())
            x = x.unflatten(2, grid).unflatten(4, (CELLS, CELLS, CHANNELS))
            maps.append(x.transpose(3, 4).flatten(4, 5).flatten(2, 3))
        return maps
