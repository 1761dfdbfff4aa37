"""Every scheme sees what it would in a model that is quantised as a whole; the model is untouched afterwards."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from sensitivity.capture import LayerCall, alone, observed, under_scheme
from sensitivity.moments import input_moments
from vggtkit.model import VGGT
from vggtkit.quant import Layer, dequantize_layer, find_layers, quantize_layer, replaced_weights, simulate_layer
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of

SCHEMES = ("int8_per_channel_asym", "int4_group_32", "int3_group_32")


class Repeated(nn.Module):
    """Convolutions, one of them in groups, and a linear layer that runs twice, on ever other values."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.ConvTranspose2d(8, 6, 2, stride=2),
        )
        self.twice = nn.Linear(6, 6)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images).movedim(1, -1)
        return self.twice(self.twice(x).relu())


def weights_under(model: nn.Module, scheme: str) -> dict[str, Tensor]:
    modules = {layer.name: model.get_submodule(layer.name) for layer in find_layers(model)}
    return {name: dequantize_layer(quantize_layer(module, scheme), module) for name, module in modules.items()}


def calls_of(model: nn.Module, layers: list[Layer], forward: Callable[[], object]) -> list[LayerCall]:
    seen: list[LayerCall] = []
    with observed(model, layers, seen.append):
        forward()
    return seen


def in_float64(scene: Scene) -> Scene:
    return Scene(scene.name, scene.images.double(), scene.query_points.double())


def hook_count(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("frames", [2, 9])
@torch.no_grad()
def test_under_a_scheme_a_vggt_is_the_one_with_replaced_weights(
    small_model: VGGT, make_scene: Callable[..., Scene], frames: int
) -> None:
    """Every call of every layer, bit for bit; nine frames make the DPT heads run in two chunks."""
    scene, layers = make_scene(frames=frames), find_layers(small_model)
    for scheme in SCHEMES:
        with under_scheme(small_model, layers, scheme):
            found = calls_of(small_model, layers, lambda: subject_of(small_model).run(scene))
        with replaced_weights(small_model, weights_under(small_model, scheme)):
            expected = calls_of(small_model, layers, lambda: subject_of(small_model).run(scene))
        assert [call.index for call in found] == [call.index for call in expected]
        assert all(a.output.equal(b.output) for a, b in zip(found, expected, strict=True))
    names = [layers[call.index].name for call in found]
    assert names.count("camera_head.embed_pose") == 4
    assert names.count("depth_head.projects.0") == (1 if frames == 2 else 2)


@pytest.mark.parametrize("picks", [None, [0, 2, 5]])
@torch.no_grad()
def test_alone_a_layer_has_its_clean_input(picks: list[int] | None) -> None:
    model, images = Repeated(), torch.rand(2, 3, 8, 8)
    layers = find_layers(model)
    channels = None if picks is None else torch.tensor(picks)
    calls = calls_of(model, layers, lambda: model(images))
    assert [call.index for call in calls] == [0, 1, 2, 3, 3]
    for call in calls:
        layer, x, module = layers[call.index], call.arguments[0], call.module
        axis = -3 if layer.kind.startswith("conv") else -1
        (found,) = alone([call], layer, SCHEMES, channels)
        for row, scheme in enumerate(SCHEMES):
            w, b = weights_under(model, scheme)[layer.name], module.bias
            expected = {
                "0": lambda x=x, w=w, b=b: F.conv2d(x, w, b, padding=1),
                "2": lambda x=x, w=w, b=b: F.conv2d(x, w, b, groups=8),
                "3": lambda x=x, w=w, b=b: F.conv_transpose2d(x, w, b, stride=2),
                "e": lambda x=x, w=w, b=b: F.linear(x, w, b),
            }[layer.name[-1]]()
            expected = expected if picks is None else expected.index_select(axis, channels)
            assert_close(found[row], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("picks", [None, [0, 2, 5]])
@torch.no_grad()
def test_calls_of_a_layer_share_its_quantised_weights(picks: list[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Iterations of a head: compared together or one by one, the same bits; the weight is quantised once a format."""
    model, images = Repeated(), torch.rand(2, 3, 8, 8)
    layers = find_layers(model)
    channels = None if picks is None else torch.tensor(picks)
    twice = [call.kept() for call in calls_of(model, layers, lambda: model(images)) if call.index == 3]
    one_by_one = [next(alone([call], layers[3], SCHEMES, channels)) for call in twice]
    for found, expected in zip(alone(twice, layers[3], SCHEMES, channels), one_by_one, strict=True):
        assert found.equal(expected)
    made: list[str] = []

    def counting(module: nn.Module, key: str, name: str) -> Tensor:
        made.append(name)
        return simulate_layer(module, key, name)

    monkeypatch.setattr("sensitivity.capture.simulate_layer", counting)
    with under_scheme(model, layers, SCHEMES[1]):
        expected = model(images)
    with under_scheme(model, layers, SCHEMES[1], {layers[3].name}):
        assert model(images).equal(expected)
    assert [made.count(layer.name) for layer in layers] == [2, 2, 2, 3]


@torch.no_grad()
def test_alone_in_a_vggt_every_layer_is_linear_in_its_weight(
    small_model: VGGT, make_scene: Callable[..., Scene]
) -> None:
    """Output error = layer applied with the weight's error and no bias, also for the tracker's joint projection."""
    scene = in_float64(make_scene())
    layers = find_layers(small_model.double())
    seen: set[str] = set()
    weights = weights_under(small_model, SCHEMES[1])
    for call in calls_of(small_model, layers, lambda: subject_of(small_model).run(scene)):
        layer, module = layers[call.index], call.module
        seen.add(layer.kind)
        error = weights[layer.name] - module.weight
        (changed,) = alone([call], layer, SCHEMES[1:2], None)
        found = changed[0] - call.output
        with replaced_weights(small_model, {layer.name: error}):
            expected = module.forward(*call.arguments)
            zeros = module.forward(*(torch.zeros_like(x) if isinstance(x, Tensor) else x for x in call.arguments))
        assert_close(found, expected - zeros, rtol=1e-6, atol=1e-9 * call.output.abs().max().item(), msg=layer.name)
    assert seen == {"linear", "conv2d", "conv_transpose2d", "attention_in"}


@torch.no_grad()
def test_a_weight_that_is_read_without_a_call_is_quantised_too() -> None:
    """The output projection of torch's own attention."""
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    layers, x = find_layers(model), torch.rand(2, 5, 16)
    silent = [layer for layer in layers if layer.name.endswith("out_proj")]
    assert len(silent) == 2
    with under_scheme(model, layers, SCHEMES[1]):
        found = model(x)
    with replaced_weights(model, weights_under(model, SCHEMES[1])):
        assert_close(found, model(x))


class Failing(nn.Linear):
    """Fails in the given call of its forward."""

    calls_left = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.calls_left == 0:
            raise RuntimeError("device lost")
        self.calls_left -= 1
        return super().forward(x)


@pytest.mark.parametrize("moment", ["scheme", "alone", "observer"])
@torch.no_grad()
def test_an_exception_leaves_weights_and_no_hooks(moment: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), Failing(4, 4))
    model[1].calls_left = 1 if moment == "alone" else 0
    layers = find_layers(model)
    before = {name: (parameter, parameter.data, parameter.clone()) for name, parameter in model.named_parameters()}

    def observe(call: LayerCall) -> None:
        if moment == "observer":
            raise RuntimeError("device lost")
        list(alone([call], layers[call.index], SCHEMES, None))

    schemes: Any = under_scheme(model, layers, SCHEMES[0])
    with pytest.raises(RuntimeError, match="device lost"), observed(model, layers, observe), schemes:
        assert hook_count(model) == 6
        model(torch.rand(4, 4))
    assert hook_count(model) == 0
    for name, parameter in model.named_parameters():
        assert parameter is before[name][0]
        assert parameter.data_ptr() == before[name][1].data_ptr()
        assert parameter.equal(before[name][2])


class SwitchesGradientsOn(nn.Module):
    """So does a forward that computes in another thread."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            return self.last(self.inner(x))


@torch.no_grad()
def test_nothing_that_is_recorded_hangs_on_gradients() -> None:
    """Whatever the forward does to the switch: graphs would pile up, and no such tensor becomes an array."""
    model, scene = SwitchesGradientsOn(), Scene("x", torch.zeros(0), torch.zeros(0), inputs=(torch.ones(3, 4),))
    subject = subject_of(model)
    switched_off: list[bool] = []

    def see(call: LayerCall) -> None:
        switched_off.append(not torch.is_grad_enabled() and not call.output.requires_grad)

    with observed(model, subject.layers, see):
        outputs = subject.run(scene)
    assert switched_off == [True, True]
    assert not any(value.requires_grad for value in outputs.values())
    assert not input_moments(subject, subject.layers, [scene]).sums["last"].requires_grad
