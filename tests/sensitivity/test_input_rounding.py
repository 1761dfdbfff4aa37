"""What rounded inputs do: against exact derivatives, and against models whose layers are given rounded inputs."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from benchmarks.trust.models import scenes_of, subject_of_name
from sensitivity.input_rounding import InputErrors, has_rounded_input, rounded_inputs
from sensitivity.jacobian_sketch import Sketch, sketch_changes, sketch_errors
from sensitivity.route import nmse_by_output
from sensitivity.weight_errors import WeightErrors
from tests.random_vggt import random_vggt
from vggtkit.model.config import VGGTConfig
from vggtkit.quant import find_layers
from vggtkit.quant.activations import ACTIVATION_FORMATS, round_activations
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, subject_of

FLOOR = 1e-10
"""NMSE below which FP32 tells nothing."""
STEADY = ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf")
"""Outputs that follow small changes in proportion; the tracker of a random VGGT does not (docs/methods.md)."""


class Toy(nn.Module):
    """A layer that runs twice, a convolution of one pixel, and one of nine."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.pixel, self.area = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3)
        self.twice, self.out = nn.Linear(30, 30), nn.Linear(30, 5)

    def forward(self, images: Tensor, _query: Tensor) -> dict[str, Tensor]:
        x = self.area(self.pixel(images.to(self.out.weight)[0])).tanh()
        return {"depth": self.out(self.twice(self.twice(x).tanh()).tanh())}


def sketched(subject: Subject, scene: Scene, probes: int) -> Sketch:
    layers = subject.layers
    errors = WeightErrors(subject.model, layers, ["int4_group_128"])
    return sketch_errors(subject, layers, errors, InputErrors(subject.model, layers), scene, probes=probes)


def measured(subject: Subject, scene: Scene, layer: str, key: str) -> dict[str, float]:
    """By running the model with one layer's input rounded."""
    reference = subject.predict(scene)
    with rounded_inputs(subject.model, {layer: key}):
        return nmse_by_output(reference, subject.predict(scene))


def exact(model: nn.Module, name: str, key: str, scene: Scene) -> float:
    """``|J e|^2 / |f|^2`` with the errors e of the clean inputs, by one forward-mode derivative."""

    module, errors = model.get_submodule(name), []

    def record(_module: nn.Module, arguments: tuple[Tensor]) -> None:
        (x,) = arguments
        last = x.movedim(1, -1) if name == "pixel" else x
        error = round_activations(last, key) - last
        errors.append(error.movedim(-1, 1) if name == "pixel" else error)

    def output(step: Tensor) -> Tensor:
        left = iter(errors)
        handle = module.register_forward_pre_hook(lambda _, arguments: arguments[0] + step * next(left))
        with handle:
            return functional_call(model, {}, (scene.images[None], scene.query_points))["depth"]

    handle = module.register_forward_pre_hook(record)
    with torch.no_grad(), handle:
        model(scene.images[None], scene.query_points)
    value, derivative = jvp(output, (torch.zeros((), dtype=torch.float64),), (torch.ones((), dtype=torch.float64),))
    return (derivative.norm() / value.norm()).square().item()


def test_many_probes_give_the_exact_first_order_damage() -> None:
    """Relative deviation of the mean over P probes is at most sqrt(2 / P): 0.05 here."""
    model = Toy().double().eval()
    scene = Scene("s", torch.rand(2, 3, 8, 32, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 2))
    found = sketched(subject_of(model), scene, probes=800).inputs["depth"].square().mean(2)
    for row, layer in enumerate(find_layers(model)):
        for column, key in enumerate(ACTIVATION_FORMATS):
            if layer.name == "area":
                assert found[row].isnan().all()
            else:
                assert found[row, column].item() == pytest.approx(exact(model, layer.name, key, scene), rel=0.25)


@pytest.mark.slow
def test_a_vggt_follows_the_estimate(tiniest_config: VGGTConfig) -> None:
    """Every second layer, within a factor of two wherever FP32 can tell."""
    generator = torch.Generator().manual_seed(1)
    scene = Scene("s", torch.rand(2, 3, 32, 32, generator=generator), 31 * torch.rand(3, 2, generator=generator))
    subject = subject_of(random_vggt(tiniest_config))
    found = sketched(subject, scene, probes=24).inputs
    ratios = []
    rows = [row for row, layer in enumerate(subject.layers) if has_rounded_input(subject.model, layer)]
    for row in rows[::2]:
        for column, key in enumerate(ACTIVATION_FORMATS):
            truth = measured(subject, scene, subject.layers[row].name, key)
            for name in STEADY:
                estimate = found[name][row, column].square().mean().item()
                assert (estimate == 0) == (truth[name] == 0)
                if FLOOR < truth[name] < 0.1:
                    ratios.append(estimate / truth[name])
    assert len(ratios) > 80
    assert np.mean([0.5 < ratio < 2 for ratio in ratios]) > 0.95
    assert 0.8 < np.median(ratios) < 1.25


@pytest.mark.parametrize(
    "name",
    ["plain", "object_handed_on", "under_no_grad", "stream_in_place", "tied_layers", "layer_used_outside_of_its_block"],
)
def test_any_module_follows_the_estimate(name: str) -> None:
    """Blocks alone or with the whole; a weight in two layers has no input of its own."""
    subject, scene = subject_of_name(name), scenes_of(name)[0]
    found = sketched(subject, scene, probes=256).inputs["output"].square().mean(2)
    shared = [layer.aliases != () for layer in subject.layers]
    assert found.isnan().all(1).tolist() == shared
    for row, layer in enumerate(subject.layers):
        for column, key in enumerate(ACTIVATION_FORMATS if not shared[row] else ()):
            truth = measured(subject, scene, layer.name, key)["output"]
            assert 0.5 < found[row, column].item() / truth < 2, (layer.name, key)


def test_the_damage_of_weights_is_the_same_with_and_without(
    small_model: nn.Module, make_scene: Callable[..., Scene]
) -> None:
    subject, scene = subject_of(small_model), make_scene()
    errors = WeightErrors(small_model, subject.layers, ["int4_group_128"])
    alone = sketch_changes(subject, subject.layers, errors, scene, probes=2)
    for name, value in sketched(subject, scene, probes=2).weights.items():
        assert value.equal(alone[name])


def test_a_model_is_as_before_afterwards(small_model: nn.Module, make_scene: Callable[..., Scene]) -> None:
    subject, scene = subject_of(small_model), make_scene()
    before = subject.predict(scene)
    name = next(layer.name for layer in subject.layers if has_rounded_input(small_model, layer))
    sketched(subject, scene, probes=1)
    assert any(measured(subject, scene, name, "int4_token").values())
    after = subject.predict(scene)
    assert all(after[key].equal(value) for key, value in before.items())
    assert not any(module._forward_pre_hooks for module in small_model.modules())
