"""True damage: the same numbers as whole passes, for a part of the work."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn

from sensitivity.damage import Changed, true_damage
from sensitivity.replay import RecordedPass
from vggtkit.model import VGGT
from vggtkit.quant import Layer, dequantize_layer, find_layers, quantize_layer, replaced_weights
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of

SCHEMES = ("int8_per_tensor_asym", "int4_group_32", "int3_group_32")
MakeScene = Callable[..., Scene]


def stored(model: nn.Module, layer: Layer, scheme: str) -> torch.Tensor:
    module = model.get_submodule(layer.name)
    return dequantize_layer(quantize_layer(module, scheme), module)


@torch.no_grad()
def whole_pass(model: VGGT, layer: Layer, scheme: str, scene: Scene) -> dict[str, torch.Tensor]:
    with replaced_weights(model, {layer.name: stored(model, layer, scheme)}):
        return subject_of(model).run(scene)


@pytest.mark.parametrize("frames", [2, 9], ids=["one-chunk", "frames-in-two-chunks"])
def test_outputs_are_those_of_whole_passes_bit_for_bit(small_model: VGGT, make_scene: MakeScene, frames: int) -> None:
    """Every third layer, the chaotic tracks included; heads run over frames in chunks of 8."""
    scene, layers = make_scene(frames=frames), find_layers(small_model)
    recording = RecordedPass(subject_of(small_model), scene)
    for layer in layers[:: 3 if frames == 2 else 12]:
        expected = whole_pass(small_model, layer, SCHEMES[1], scene)
        found = recording.changed(layer, [stored(small_model, layer, SCHEMES[1])])
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert value.equal(expected[name]), (layer.name, name)


def test_what_a_layer_does_not_reach_is_not_computed_again(small_model: VGGT, make_scene: MakeScene) -> None:
    recording = RecordedPass(subject_of(small_model), make_scene())
    name, last = "depth_head.scratch.refinenet1.out_conv", "depth_head.scratch.output_conv2.1"
    ran: list[str] = []
    # A hook on a part sees a replay too; norms and activations inside parts run only when these are computed.
    for inside in ("aggregator.patch_embed.norm", "camera_head.trunk_norm", "point_head.norm", last):
        small_model.get_submodule(inside).register_forward_hook(lambda *_, inside=inside: ran.append(inside))
    changed = recording.changed(
        find_layer(small_model, name), [stored(small_model, find_layer(small_model, name), SCHEMES[1])]
    )
    assert ran == [last]
    assert {key for key, value in changed.items() if not value.equal(recording.outputs[key])} == {"depth", "depth_conf"}


def find_layer(model: nn.Module, name: str) -> Layer:
    return next(layer for layer in find_layers(model) if layer.name == name)


@pytest.mark.parametrize(("rows", "exact"), [(1, True), (2, True), (3, False)], ids=["alone", "in-twos", "fast"])
def test_damage_equals_brute_force(small_model: VGGT, make_scene: MakeScene, rows: int, exact: bool) -> None:
    """Bit for bit alone; side by side and with other matrix products to float tolerance, except for the tracks."""
    scene, layers = make_scene(), find_layers(small_model)[::9]
    found = true_damage(subject_of(small_model), layers, SCHEMES, scene, rows=rows, exact=exact)
    with torch.no_grad():
        reference = subject_of(small_model).run(scene)
    for number, layer in enumerate(layers):
        for column, scheme in enumerate(SCHEMES):
            for name, value in whole_pass(small_model, layer, scheme, scene).items():
                before, after = (x.double().numpy() for x in (reference[name], value))
                expected = ((after - before) ** 2).sum() / (before**2).sum()
                if rows == 1:
                    assert found[name][number, column].item() == pytest.approx(expected, rel=1e-12), (layer.name, name)
                elif name not in ("track", "vis", "conf"):
                    assert found[name][number, column].item() == pytest.approx(expected, rel=0.02, abs=1e-11)


class Watching:
    def __init__(self) -> None:
        self.reference: Mapping[str, torch.Tensor] = {}
        self.seen: list[Changed] = []

    def start(self, outputs: Mapping[str, torch.Tensor]) -> None:
        self.reference = outputs

    def see(self, changed: Changed) -> None:
        self.seen.append(changed)


def test_every_pair_is_shown_with_its_outputs(small_model: VGGT, make_scene: MakeScene) -> None:
    scene, layers = make_scene(), find_layers(small_model)[:2]
    watcher, steps = Watching(), list[int]()
    true_damage(
        subject_of(small_model),
        layers,
        SCHEMES,
        scene,
        rows=2,
        exact=True,
        watcher=watcher,
        step=lambda: steps.append(1),
    )
    seen = watcher.seen
    assert [(pair.layer, pair.scheme) for pair in seen] == [(row, column) for row in range(2) for column in range(3)]
    assert len(steps) == 2
    expected = whole_pass(small_model, layers[1], SCHEMES[2], scene)
    torch.testing.assert_close(seen[-1].outputs["depth"], expected["depth"])
    assert seen[-1].outputs["pose_enc"].shape == watcher.reference["pose_enc"].shape == (1, 2, 9)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_before(small_model: VGGT, make_scene: MakeScene, fails: bool) -> None:
    before = {name: parameter.clone() for name, parameter in small_model.named_parameters()}
    linear = torch.nn.functional.linear
    layers = find_layers(small_model)[:1]
    if fails:
        with pytest.raises(ValueError, match="1 weights for 2 rows"):
            RecordedPass(subject_of(small_model), make_scene(), 2).changed(
                layers[0].name, [stored(small_model, layers[0], "fp16")]
            )
    else:
        true_damage(subject_of(small_model), layers, SCHEMES, make_scene())
    assert not [name for name, module in small_model.named_modules() if "forward" in module.__dict__]
    assert all(parameter.equal(before[name]) for name, parameter in small_model.named_parameters())
    assert torch.nn.functional.linear is linear


def test_the_trunk_keeps_its_precision(small_model: VGGT, make_scene: MakeScene) -> None:
    """Fast products are for FP32: with a trunk in bfloat16 damage is that of a trunk in bfloat16."""
    layers = [layer for layer in find_layers(small_model) if layer.name == "aggregator.frame_blocks.0.mlp.fc1"]
    with subject_of(small_model).computing_in(torch.bfloat16):
        exact = true_damage(subject_of(small_model), layers, SCHEMES, make_scene(), exact=True, rows=1)
        fast = true_damage(subject_of(small_model), layers, SCHEMES, make_scene())
    for name in ("pose_enc", "depth", "world_points"):
        torch.testing.assert_close(fast[name], exact[name], rtol=0.1, atol=0)
