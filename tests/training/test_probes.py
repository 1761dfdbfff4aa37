"""The probes' maps lie as the pictures do."""

import torch

from training.probes import CELLS, CHANNELS, Probes
from vggtkit.model.config import TINY


def test_a_token_speaks_for_its_own_patch() -> None:
    """Changing one patch token of one view changes its cells of that view's map, and nothing else."""
    probes = Probes(TINY)
    tokens = {depth: torch.zeros(1, 2, TINY.patch_start + 6, TINY.token_dim) for depth in TINY.dpt_layer_idx}
    before = probes(tokens, (2, 3))
    for value in tokens.values():
        value[0, 1, TINY.patch_start + 5, 0] = 1.0  # row 1, column 2
    after = probes(tokens, (2, 3))
    for one, other in zip(before, after, strict=True):
        assert one.shape == (1, 2, 2 * CELLS, 3 * CELLS, CHANNELS)
        changed = (one != other).any(-1)
        assert changed[0, 1, CELLS:, 2 * CELLS :].all()
        assert changed.sum() == CELLS**2
