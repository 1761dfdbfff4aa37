"""Counting calls and tokens, and refusing a model that cannot be a reference."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from errors import InputError
from model import VGGT
from quant import find_layers
from scenes import Scene
from sensitivity.survey import LayerVolume, as_tokens, run, survey


@pytest.mark.parametrize("frames", [2, 9])
def test_calls_tokens_and_channels_are_counted(
    small_model: VGGT, make_scene: Callable[..., Scene], frames: int
) -> None:
    """Camera head: four iterations over one token a frame. DPT: eight frames at once. Tracker: [B, N, S, channels]."""
    layers = find_layers(small_model)
    volumes = survey(small_model, layers, make_scene(frames=frames))
    counted = {layer.name: volume for layer, volume in zip(layers, volumes, strict=True)}
    tokens = frames * (1 + 2 + 16)  # camera token, registers, patches
    assert counted["camera_head.embed_pose"] == LayerVolume(4, 4 * frames, 64)
    assert counted["aggregator.patch_embed.patch_embed.proj"] == LayerVolume(1, frames * 16, 32)
    assert counted["aggregator.frame_blocks.1.attn.qkv"] == LayerVolume(1, tokens, 96)
    assert counted["aggregator.global_blocks.1.mlp.fc1"] == LayerVolume(1, tokens, 128)
    assert counted["depth_head.scratch.output_conv2.2"] == LayerVolume(1 if frames == 2 else 2, frames * 32 * 32, 2)
    assert counted["track_head.tracker.updateformer.flow_head"] == LayerVolume(2, 2 * 3 * frames, 18)
    assert not any(module._forward_hooks for module in small_model.modules())


class Toy(nn.Module):
    """Two outputs, one of them made useless on demand, and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.idle = nn.Linear(3, 2), nn.Linear(3, 5)

    def forward(self, images: Tensor, query: Tensor) -> dict[str, Tensor]:
        return {"depth": self.layer(images.movedim(2, -1)), "track": query, "inner": query}


def test_a_layer_that_does_not_run_has_no_calls(make_scene: Callable[..., Scene]) -> None:
    model = Toy()
    assert survey(model, find_layers(model), make_scene()) == [LayerVolume(1, 2 * 32 * 32, 2), LayerVolume(0, 0, 5)]


def test_run_gives_published_outputs_of_every_copy(make_scene: Callable[..., Scene]) -> None:
    outputs = run(Toy(), make_scene(), copies=3)
    assert {name: len(value) for name, value in outputs.items()} == {"depth": 3, "track": 3}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_output_that_is_not_finite_is_refused_by_name(make_scene: Callable[..., Scene], value: float) -> None:
    model = Toy()
    model.layer.bias.data[0] = value
    with pytest.raises(InputError, match="scene scene-0: the FP32 model gives NaN or Inf in depth"):
        survey(model, find_layers(model), make_scene())
    assert not model.layer._forward_hooks


def test_only_the_first_row_is_the_reference(make_scene: Callable[..., Scene]) -> None:
    """A scheme that breaks the model is a result, not an error."""

    class SecondBreaks(Toy):
        def forward(self, images: Tensor, query: Tensor) -> dict[str, Tensor]:
            outputs = super().forward(images, query)
            outputs["depth"][1:] = torch.nan
            return outputs

    with torch.no_grad():
        assert run(SecondBreaks(), make_scene(), copies=2)["depth"][1].isnan().all()


def test_tokens_of_a_map_are_its_pixels() -> None:
    maps = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    assert as_tokens(maps, "conv_transpose2d")[5].equal(maps[1, :, 0, 1])
    assert as_tokens(maps, "linear")[7].equal(maps[1, 0, 1])
    assert as_tokens(maps.flatten(2), "attention_in")[4].equal(maps[1, 1].flatten())
