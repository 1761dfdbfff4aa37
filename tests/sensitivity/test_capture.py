"""Side by side: every variant sees what it would see alone, and the model is untouched afterwards."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from model import VGGT
from quant import Layer, dequantize_layer, find_layers, quantize_layer, replaced_weights
from scenes import Scene
from sensitivity.capture import LayerOutputs, side_by_side
from sensitivity.survey import run

SCHEMES = ("int8_per_channel_asym", "int4_group_32", "int3_group_32")


class Repeated(nn.Module):
    """Convolutions, and a linear layer that runs twice, on ever other values."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, stride=2))
        self.twice = nn.Linear(6, 6)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images).movedim(1, -1)
        return self.twice(self.twice(x).relu())


def weights_under(model: nn.Module, scheme: str) -> dict[str, Tensor]:
    modules = {layer.name: model.get_submodule(layer.name) for layer in find_layers(model)}
    return {name: dequantize_layer(quantize_layer(module, scheme), module) for name, module in modules.items()}


def recorded(model: nn.Module, layers: list[Layer], forward: Callable[[], object]) -> list[list[tuple[Tensor, Tensor]]]:
    """First input and output of every call of every layer, by plain hooks."""
    calls: list[list[tuple[Tensor, Tensor]]] = [[] for _ in layers]
    handles = [
        model.get_submodule(layer.name).register_forward_hook(
            lambda _module, inputs, output, into=into: into.append((inputs[0], output))
        )
        for layer, into in zip(layers, calls, strict=True)
    ]
    forward()
    for handle in handles:
        handle.remove()
    return calls


@torch.no_grad()
def captured(
    model: nn.Module, layers: list[Layer], forward: Callable[[], Tensor | dict[str, Tensor]]
) -> tuple[list[list[LayerOutputs]], Tensor | dict[str, Tensor]]:
    seen: list[list[LayerOutputs]] = [[] for _ in layers]
    with side_by_side(model, layers, SCHEMES, lambda outputs: seen[outputs.index].append(outputs)):
        found = forward()
    return seen, found


def in_float64(scene: Scene) -> Scene:
    return Scene(scene.name, scene.images.double(), scene.query_points.double())


def hook_count(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@torch.no_grad()
def test_layers_that_run_twice_and_convolutions_equal_separate_runs() -> None:
    model, images = Repeated(), torch.rand(2, 3, 8, 8)
    layers = find_layers(model)
    seen, found = captured(model, layers, lambda: model(images.repeat(4, 1, 1, 1)))
    clean = recorded(model, layers, lambda: model(images))
    assert [len(calls) for calls in seen] == [1, 1, 2]
    for row, scheme in enumerate(SCHEMES):
        weights = weights_under(model, scheme)
        with replaced_weights(model, weights):
            expected = recorded(model, layers, lambda: model(images))
            assert_close(found[2 * row + 2 : 2 * row + 4], model(images), rtol=1e-5, atol=1e-6)
        for layer, calls, clean_calls, scheme_calls in zip(layers, seen, clean, expected, strict=True):
            module = model.get_submodule(layer.name)
            for call, (x, reference), (_, accumulated) in zip(calls, clean_calls, scheme_calls, strict=True):
                w, b = weights[layer.name], module.bias
                alone = {
                    "linear": lambda x=x, w=w, b=b: F.linear(x, w, b),
                    "conv2d": lambda x=x, w=w, b=b: F.conv2d(x, w, b, padding=1),
                    "conv_transpose2d": lambda x=x, w=w, b=b: F.conv_transpose2d(x, w, b, stride=2),
                }[layer.kind]()
                assert_close(call.reference, reference, rtol=1e-5, atol=1e-6)
                assert_close(call.isolated[row], alone, rtol=1e-5, atol=1e-6)
                assert_close(call.accumulated[row], accumulated, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frames", [2, 9])
@torch.no_grad()
def test_a_vggt_side_by_side_equals_one_run_per_scheme(
    small_model: VGGT, make_scene: Callable[..., Scene], frames: int
) -> None:
    """Every call of every layer, and every output; nine frames make the DPT heads run in two chunks.

    In float64: the tracker's sines of 1000 times a coordinate turn float32 rounding into visible differences.
    """
    scene, layers = in_float64(make_scene(frames=frames)), find_layers(small_model.double())
    seen, found = captured(small_model, layers, lambda: run(small_model, scene, copies=1 + len(SCHEMES)))
    names = [layer.name for layer in layers]
    assert len(seen[names.index("camera_head.embed_pose")]) == 4
    assert len(seen[names.index("depth_head.projects.0")]) == (1 if frames == 2 else 2)
    for row, scheme in enumerate(SCHEMES):
        outputs: dict[str, Tensor] = {}
        with replaced_weights(small_model, weights_under(small_model, scheme)):
            expected = recorded(small_model, layers, lambda outputs=outputs: outputs.update(run(small_model, scene)))
        for name, calls, alone in zip(names, seen, expected, strict=True):
            assert len(calls) == len(alone) > 0, name
            for call, (_, output) in zip(calls, alone, strict=True):
                scale = output.abs().max().item()
                assert_close(call.accumulated[row], output, rtol=1e-6, atol=1e-7 * scale, msg=name)
        for name, value in outputs.items():
            assert_close(found[name][row + 1 : row + 2], value, rtol=1e-6, atol=1e-8, msg=name)


@torch.no_grad()
def test_isolated_errors_of_a_vggt_come_from_clean_inputs(small_model: VGGT, make_scene: Callable[..., Scene]) -> None:
    scene = in_float64(make_scene())
    layers = [layer for layer in find_layers(small_model.double()) if layer.kind == "linear"]
    seen, _ = captured(small_model, layers, lambda: run(small_model, scene, copies=1 + len(SCHEMES)))
    clean = recorded(small_model, layers, lambda: run(small_model, scene))
    weights = weights_under(small_model, SCHEMES[1])
    for layer, calls, clean_calls in zip(layers, seen, clean, strict=True):
        for call, (x, reference) in zip(calls, clean_calls, strict=True):
            expected = F.linear(x, weights[layer.name], small_model.get_submodule(layer.name).bias)
            scale = reference.abs().max().item()
            assert_close(call.reference, reference, rtol=1e-6, atol=1e-7 * scale, msg=layer.name)
            assert_close(call.isolated[1], expected, rtol=1e-6, atol=1e-7 * scale, msg=layer.name)


class Failing(nn.Linear):
    """Fails in the given call of its forward."""

    calls_left = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.calls_left == 0:
            raise RuntimeError("device lost")
        self.calls_left -= 1
        return super().forward(x)


@pytest.mark.parametrize("calls_before", [0, 1, 2, 4, 6])
def test_an_exception_leaves_weights_and_no_hooks(calls_before: int) -> None:
    """In FP32, while a quantised weight is in place, on clean and on own input, in the first and last scheme."""
    model = nn.Sequential(nn.Linear(4, 4), Failing(4, 4))
    model[1].calls_left = calls_before
    before = {name: (parameter, parameter.clone()) for name, parameter in model.named_parameters()}
    with (
        pytest.raises(RuntimeError, match="device lost"),
        side_by_side(model, find_layers(model), SCHEMES, lambda _outputs: None),
    ):
        model(torch.rand(4, 4))
    assert hook_count(model) == 0
    for name, parameter in model.named_parameters():
        assert parameter is before[name][0]
        assert parameter.equal(before[name][1])


def test_an_observer_that_fails_or_a_good_end_leaves_no_hooks(small_model: VGGT) -> None:
    layers = find_layers(small_model)

    def fail(_outputs: LayerOutputs) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), side_by_side(small_model, layers, SCHEMES, fail):
        assert hook_count(small_model) > 2 * len(layers) - 1
        small_model(torch.rand(4, 1, 3, 32, 32))
    assert hook_count(small_model) == 0
    with side_by_side(small_model, layers, SCHEMES, lambda _outputs: None):
        pass
    assert hook_count(small_model) == 0


def test_an_argument_given_twice_stays_one_object() -> None:
    """The tracker's projection computes self-attention and cross-attention differently, by ``is``."""
    same: list[bool] = []

    class Pair(nn.Linear):
        def forward(self, x: Tensor, other: Tensor) -> Tensor:
            same.append(x is other)
            return super().forward(x) + super().forward(other)

    model = nn.ModuleDict({"pair": Pair(4, 4)})
    layers, x = find_layers(model), torch.rand(4, 4)
    with torch.no_grad(), side_by_side(model, layers, SCHEMES, lambda _outputs: None):
        model["pair"](x, x)
        model["pair"](x, x.clone())
    per_call = 1 + 2 * len(SCHEMES)
    assert same == [True] * per_call + [False] * per_call


def test_a_batch_that_does_not_hold_the_variants_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with (
        pytest.raises(ValueError, match="batch of 6 does not hold 4 variants"),
        side_by_side(model, find_layers(model), SCHEMES, lambda _outputs: None),
    ):
        model(torch.rand(6, 4))
