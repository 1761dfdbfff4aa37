"""The cheaper order of operations gives what the published order gives, for fewer multiplications."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sensitivity.replay import RecordedPass
from vggtkit.model import VGGT
from vggtkit.model.dpt_head import DPTFeatures
from vggtkit.model.track_head import CrossBlock, SelfBlock
from vggtkit.quant import find_layers, replaced_weights
from vggtkit.runtime.fewer_operations import _resampling, fewer_operations
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of


def features_of(model: VGGT) -> DPTFeatures:
    features = model.track_head.feature_extractor
    assert isinstance(features, DPTFeatures)
    return features


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(5, 7), (9, 3), (20, 28)], ids=["back", "down-and-up", "up"])
def test_resampling_convolution_is_three_steps_in_one(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 4, 3, padding=1, bias=bias).double()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    larger = F.interpolate(x, size=(10, 14), mode="bilinear", align_corners=True)
    expected = F.interpolate(conv(larger), size=size, mode="bilinear", align_corners=True)
    torch.testing.assert_close(_resampling(conv, x, size), expected, rtol=1e-11, atol=1e-12)


@torch.no_grad()
def test_dense_heads_give_the_same_for_less(small_model: VGGT) -> None:
    """In float64, where a difference in rounding is far below one in the formula."""
    tokens = {depth: torch.randn(1, 2, 19, 64).double() for depth in (0, 1)}
    for name in ("depth_head", "point_head", "track_head.feature_extractor"):
        head = small_model.get_submodule(name).double()
        with FlopCounterMode(display=False) as published:
            expected = head(tokens, (32, 32))
        with fewer_operations(small_model), FlopCounterMode(display=False) as cheaper:
            found = head(tokens, (32, 32))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
        assert cheaper.get_total_flops() < published.get_total_flops(), name
    assert cheaper.get_total_flops() < 0.8 * published.get_total_flops()
    assert not [name for name, module in small_model.named_modules() if "forward" in module.__dict__]


@torch.no_grad()
def test_trackers_attention_gives_the_same(small_model: VGGT) -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = [module.double() for module in small_model.modules() if isinstance(module, SelfBlock | CrossBlock)]
    assert {type(block) for block in blocks} == {SelfBlock, CrossBlock}
    for block in blocks:
        dim = block.norm1.normalized_shape[0]
        sizes = [7] if isinstance(block, SelfBlock) else [7, 3]
        arguments = [torch.randn(2, n, dim, dtype=torch.float64, generator=generator) for n in sizes]
        expected = block(*arguments)
        with fewer_operations(small_model):
            torch.testing.assert_close(block(*arguments), expected, rtol=1e-10, atol=1e-12)


LAYERS = [
    "track_head.feature_extractor.scratch.output_conv1",
    "track_head.feature_extractor.scratch.refinenet1.out_conv",
    "track_head.feature_extractor.scratch.refinenet1.resConfUnit2.conv1",
    "track_head.feature_extractor.scratch.refinenet3.out_conv",
    "track_head.feature_extractor.scratch.layer1_rn",
    "depth_head.scratch.refinenet1.resConfUnit1.conv2",
    "depth_head.scratch.output_conv2.0",
    "aggregator.frame_blocks.0.mlp.fc1",
    "track_head.tracker.updateformer.time_blocks.0.attn.in_proj",
    "track_head.tracker.updateformer.space_point2virtual_blocks.0.cross_attn.in_proj",
]


@pytest.mark.parametrize("by_filtering", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
@torch.no_grad()
def test_each_row_has_its_own_weight(
    small_model: VGGT,
    make_scene: Callable[..., Scene],
    layer: str,
    by_filtering: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outputs with two weights side by side, against a plain pass with each."""
    monkeypatch.setattr("vggtkit.runtime.winograd.CHANNELS", 0 if by_filtering else 10**9)
    monkeypatch.setattr("vggtkit.runtime.winograd.PRODUCTS", 0)
    scene = make_scene()
    weight = small_model.get_submodule(layer).weight
    assert isinstance(weight, torch.Tensor)
    weights = [1.1 * weight, weight + 0.01 * torch.randn_like(weight)]
    seen: list[torch.Tensor] = []
    features_of(small_model).register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with fewer_operations(small_model):
        recorded = RecordedPass(subject_of(small_model), scene, 2)
        found = recorded.changed(next(one for one in find_layers(small_model) if one.name == layer), weights)
    features = seen[-1]
    for row, own in enumerate(weights):
        with replaced_weights(small_model, {layer: own}):
            expected = small_model(scene.images, scene.query_points)
        torch.testing.assert_close(features[row], seen[-1][0], rtol=1e-4, atol=1e-5)
        for name in ("depth", "world_points_conf", "vis"):
            torch.testing.assert_close(found[name][row], expected[name][0], rtol=1e-3, atol=1e-4)
    reached = "vis" if layer.startswith("track_head") else "depth"
    assert not found[reached][0].equal(found[reached][1])
