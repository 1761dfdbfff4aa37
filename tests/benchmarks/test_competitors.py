"""Other tools get the network that they are compared on."""

import copy

import torch

from benchmarks.competitors import OneCall
from tests.random_vggt import random_vggt
from vggtkit.model.config import VGGTConfig


def test_tracks_of_points_and_virtual_ones_in_one_call_are_the_same(tiniest_config: VGGTConfig) -> None:
    apart = random_vggt(tiniest_config).track_head.tracker.updateformer
    together = copy.deepcopy(apart)
    together.__class__ = OneCall
    x = torch.randn(1, 5, 3, apart.input_norm.normalized_shape[0], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(together(x), apart(x), rtol=1e-5, atol=1e-6)
