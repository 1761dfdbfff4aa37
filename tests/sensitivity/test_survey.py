"""Counting calls and tokens, and refusing a model that cannot be a reference."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sensitivity.survey import LayerVolume, as_tokens, survey
from vggtkit.core.errors import InputError
from vggtkit.model import VGGT
from vggtkit.quant import find_layers
from vggtkit.scenes import Scene
from vggtkit.subject import VGGTSubject, subject_of


@pytest.mark.parametrize("frames", [2, 9])
def test_calls_tokens_and_channels_are_counted(
    small_model: VGGT, make_scene: Callable[..., Scene], frames: int
) -> None:
    """Camera head: four iterations over one token a frame. DPT: eight frames at once. Tracker: [B, N, S, channels]."""
    layers = find_layers(small_model)
    volumes = survey(subject_of(small_model), layers, make_scene(frames=frames))
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


class Choosy(Toy):
    """Looks at values, so that shapes alone do not do."""

    def forward(self, images: Tensor, query: Tensor) -> dict[str, Tensor]:
        return super().forward(images, query if float(images.sum()) > 0 else query[:, :1])


@pytest.mark.parametrize("kind", [Toy, Choosy])
def test_a_layer_that_does_not_run_has_no_calls(make_scene: Callable[..., Scene], kind: type[Toy]) -> None:
    model = kind()
    assert survey(subject_of(model), find_layers(model), make_scene()) == [
        LayerVolume(1, 2 * 32 * 32, 2),
        LayerVolume(0, 0, 5),
    ]
    assert not model.layer._forward_hooks


def test_large_models_are_counted_without_computing(
    small_model: VGGT, make_scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, scene = find_layers(small_model), make_scene()
    expected = survey(subject_of(small_model), layers, scene)
    monkeypatch.setattr("sensitivity.survey.LARGE", 1)
    monkeypatch.setattr(VGGTSubject, "run", None)
    assert survey(subject_of(small_model), layers, scene) == expected


def test_run_gives_published_outputs(make_scene: Callable[..., Scene]) -> None:
    outputs = subject_of(Toy()).run(make_scene())
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "depth": (1, 2, 32, 32, 2),
        "track": (1, 3, 2),
    }


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        (lambda x: x, ["output"]),
        (lambda x: (x, x.long(), x), ["output_0", "output_2"]),
        (lambda x: {"flow": x, "note": "text"}, ["flow"]),
    ],
    ids=["tensor", "tuple", "dict"],
)
def test_other_models_take_pictures_or_inputs_and_name_their_outputs(
    make_scene: Callable[..., Scene], returned: Callable[[Tensor], object], names: list[str]
) -> None:
    class Other(nn.Linear):
        def forward(self, x: Tensor) -> object:
            return returned(super().forward(x))

    scene = make_scene()
    outputs = subject_of(Other(32, 4)).run(scene)
    assert list(outputs) == names
    assert outputs[names[0]].shape == (2, 3, 32, 4)
    given = Scene("given", torch.zeros(0), torch.zeros(0), inputs=(torch.ones(5, 32),))
    assert subject_of(Other(32, 4)).run(given)[names[0]].shape == (5, 4)


@pytest.mark.parametrize(("value", "said"), [("text", "output: str"), ({"a": 1}, "no floating-point tensor")])
def test_a_model_without_tensors_is_refused(make_scene: Callable[..., Scene], value: object, said: str) -> None:
    class Silent(nn.Linear):
        def forward(self, _x: Tensor) -> object:
            return value

    with pytest.raises(InputError, match=said):
        subject_of(Silent(1, 1)).run(make_scene())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_output_that_is_not_finite_is_refused_by_name(make_scene: Callable[..., Scene], value: float) -> None:
    model = Toy()
    model.layer.bias.data[0] = value
    with pytest.raises(InputError, match="scene scene-0: the FP32 model gives NaN or Inf in depth"):
        subject_of(model).run(make_scene())
    assert not subject_of(model).run(make_scene(), check=False)["depth"].isfinite().all()


def test_tokens_of_a_map_are_its_pixels() -> None:
    maps = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    assert as_tokens(maps, "conv_transpose2d")[5].equal(maps[1, :, 0, 1])
    assert as_tokens(maps, "linear")[7].equal(maps[1, 0, 1])
    assert as_tokens(maps.flatten(2), "attention_in")[4].equal(maps[1, 1].flatten())
