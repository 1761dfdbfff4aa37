"""Damage by token class: against autograd of the weights, and against finite differences."""

from collections.abc import Callable

import pytest
import torch

from sensitivity.token_classes import CLASSES, class_damage
from sensitivity.weight_errors import WeightErrors
from vggtkit.model import VGGT
from vggtkit.quant import Layer, find_layers
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of

SCHEMES = ("int4_group_32", "int8_per_tensor_sym")
MakeScene = Callable[..., Scene]
SPANS = {"camera": slice(0, 1), "register": slice(1, 3), "patch": slice(3, None)}  # of a frame; two registers
SEED = 4


def projections(model: VGGT, scene: Scene) -> list[torch.Tensor]:
    """``v . f`` of every output, with the random vectors that are drawn for one probe."""
    outputs = model(scene.images[None], scene.query_points[None])
    generator = torch.Generator().manual_seed(SEED)
    found = []
    for name in ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf", "track", "vis", "conf"):
        value = outputs[name]
        probe = torch.randn(value.shape, generator=generator).to(value)
        found.append((value * probe).sum() / value.detach().norm())
    return found


def picked(layers: list[Layer]) -> list[Layer]:
    names = (
        "patch_embed.blocks.0.mlp.fc1",
        "frame_blocks.0.attn.qkv",
        "global_blocks.1.mlp.fc2",
        "depth_head.projects.0",
    )
    return [layer for layer in layers if layer.name.endswith(names)]


def test_all_tokens_together_are_the_gradient_of_the_weight(small_model: VGGT, make_scene: MakeScene) -> None:
    scene, layers = make_scene(), picked(find_layers(small_model))
    errors = WeightErrors(small_model, layers, SCHEMES)
    found = class_damage(subject_of(small_model), layers, errors, scene, probes=1, seed=SEED)
    assert [layer.role for layer in found.layers] == ["mlp", "attention", "mlp"]
    assert found.parts.keys() == set(CLASSES)
    targets = projections(small_model, scene)
    for row, layer in enumerate(found.layers):
        weight = small_model.get_parameter(f"{layer.name}.weight")
        total = torch.zeros(len(SCHEMES), dtype=torch.float64)
        for target in targets:
            (gradient,) = torch.autograd.grad(target, weight, retain_graph=True, allow_unused=True)
            if gradient is not None:
                total += (errors(layer) @ gradient.flatten()).double().square()
        torch.testing.assert_close(found.whole[row], total / len(targets), rtol=1e-3, atol=0.0)


def test_a_trunk_in_bfloat16_is_split_alike(small_model: VGGT, make_scene: MakeScene) -> None:
    layers = picked(find_layers(small_model))
    errors = WeightErrors(small_model, layers, SCHEMES)
    exact = class_damage(subject_of(small_model), layers, errors, make_scene(), probes=4, seed=SEED)
    with subject_of(small_model).computing_in(torch.bfloat16):
        rounded = class_damage(subject_of(small_model), layers, errors, make_scene(), probes=4, seed=SEED)
    torch.testing.assert_close(rounded.whole, exact.whole, rtol=0.3, atol=0)
    for name in CLASSES:
        torch.testing.assert_close(rounded.parts[name], exact.parts[name], rtol=0.5, atol=0)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_the_error_made_in_its_tokens_alone(small_model: VGGT, make_scene: MakeScene, name: str) -> None:
    """Finite differences, in float64, of a pass in which the layer's error appears in the tokens of one class."""
    model, scene = small_model.double(), make_scene()
    scene = Scene(scene.name, scene.images.double(), scene.query_points.double())
    layer = picked(find_layers(model))[1]
    errors = WeightErrors(model, [layer], SCHEMES[:1])
    found = class_damage(subject_of(model), [layer], errors, scene, probes=1, seed=SEED)
    module = model.get_submodule(layer.name)
    error = errors(layer)[0].view_as(module.weight)
    step = 1e-6

    def changed(sign: float) -> torch.Tensor:
        def hook(_module: object, arguments: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            added = torch.zeros_like(output)
            added[:, SPANS[name]] = (arguments[0] @ error.T)[:, SPANS[name]]
            return output + sign * step * added

        handle = module.register_forward_hook(hook)
        try:
            with torch.no_grad():
                outputs = model(scene.images[None], scene.query_points[None])
        finally:
            handle.remove()
        return outputs

    with torch.no_grad():
        reference = model(scene.images[None], scene.query_points[None])
    before, after = changed(-1.0), changed(1.0)
    generator = torch.Generator().manual_seed(SEED)
    expected, names = 0.0, ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf")
    for output in names:
        probe = torch.randn(reference[output].shape, generator=generator).to(reference[output])
        change = (probe * (after[output] - before[output])).sum() / (2 * step * reference[output].norm())
        expected += change.item() ** 2
    # The tracker's sines are taken as constants, so for its outputs the derivative is not what differences approach.
    for change in track_derivatives(model, scene, module, lambda x: (x @ error.T)[:, SPANS[name]], SPANS[name]):
        expected += change**2
    assert found.parts[name][0, 0].item() == pytest.approx(expected / 8, rel=1e-3)


def track_derivatives(
    model: VGGT,
    scene: Scene,
    module: torch.nn.Module,
    made: Callable[[torch.Tensor], torch.Tensor],
    span: slice,
) -> list[float]:
    """``<g, dY>`` of the tracker's outputs, by the gradient at the layer's output."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = module.register_forward_hook(lambda _, arguments, output: seen.append((arguments[0].detach(), output)))
    targets = projections(model, scene)[5:]
    handle.remove()
    ((x, output),) = seen
    gradients = [torch.autograd.grad(target, output, retain_graph=True)[0] for target in targets]
    return [(gradient[:, span] * made(x)).sum().item() for gradient in gradients]
