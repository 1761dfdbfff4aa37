"""Folding changes no bit of what a VGGT computes; the twin computes the same with larger inputs."""

import pytest
import torch
from torch import Tensor, nn

from tests.random_vggt import random_vggt
from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse
from vggtkit.model import VGGT, VGGTConfig
from vggtkit.model.folding import fold, norm_linear_pairs, outlier_twin
from vggtkit.model.layers import Block
from vggtkit.model.track_head import CrossBlock, SelfBlock


def outputs(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        found = model(torch.rand(2, 3, 32, 32, generator=generator), 31 * torch.rand(3, 2, generator=generator))
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def test_powers_of_two_change_nothing(tiniest_config: VGGTConfig) -> None:
    model = random_vggt(tiniest_config)
    before, generator = outputs(model), torch.Generator().manual_seed(2)
    weights = {pair.linear: model.get_parameter(f"{pair.linear}.weight").clone() for pair in norm_linear_pairs(model)}
    sizes = {pair.norm: model.get_parameter(f"{pair.norm}.weight").shape for pair in norm_linear_pairs(model)}
    exponents = {name: torch.randint(-10, 11, size, generator=generator).tolist() for name, size in sizes.items()}
    fold(model, exponents)
    assert all(model.get_parameter(f"{name}.weight").ne(weight).any() for name, weight in weights.items())
    assert all(value.equal(before[name]) for name, value in outputs(model).items())


def test_all_blocks_and_heads_have_their_pairs(tiniest_config: VGGTConfig) -> None:
    """Two a block, one a block of the tracker, three between the parts of camera head and tracker."""
    model = VGGT(tiniest_config)
    pairs = norm_linear_pairs(model)
    counts = [sum(isinstance(module, kind) for module in model.modules()) for kind in (Block, (SelfBlock, CrossBlock))]
    assert len(pairs) == 2 * counts[0] + counts[1] + 3
    assert min(counts) > 0
    for norm, linear in pairs:
        assert isinstance(model.get_submodule(norm), nn.LayerNorm)
        assert isinstance(model.get_submodule(linear), nn.Linear)


def test_the_twin_has_outliers_and_computes_the_same(tiniest_config: VGGTConfig) -> None:
    model = random_vggt(tiniest_config)
    twin = outlier_twin(model, share=8, seed=3)
    before, after = outputs(model), outputs(twin)
    for name in ("pose_enc", "depth", "world_points"):
        assert nmse(before[name], after[name]) < 1e-9, name
    for pair in norm_linear_pairs(model):
        ratio = twin.get_parameter(f"{pair.norm}.bias") / model.get_parameter(f"{pair.norm}.bias")
        assert sorted(set(ratio.round().tolist())) == [1.0, 40.0]
        assert (ratio > 2).sum() == len(ratio) // 8
    again = outlier_twin(model, share=8, seed=3).state_dict()
    assert all(value.equal(again[name]) for name, value in twin.state_dict().items())


def test_what_does_not_fit_is_refused(tiniest_config: VGGTConfig) -> None:
    model = VGGT(tiniest_config)
    norm = norm_linear_pairs(model)[0].norm
    with pytest.raises(InputError, match=rf"{norm} is a norm of 32 channels, given are \[1\]"):
        fold(model, {norm: [1]})
    with pytest.raises(InputError, match="head is no norm"):
        fold(model, {"head": [1]})
    with pytest.raises(InputError, match="whole numbers within 10 of 0"):
        fold(model, {norm: [11] * 32})
    assert norm_linear_pairs(nn.Linear(2, 2)) == []
