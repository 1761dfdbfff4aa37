"""Clocks, stand-ins and forecasts of memory: sums that must come out, whatever the machine is doing."""

import pytest
import torch
from torch import nn

from analysis.timing.activations import peak_activation_bytes
from analysis.timing.clock import clocked_layers
from analysis.timing.measure import MeasuredModel, measure_kernels
from analysis.timing.shallow import shallow
from analysis.timing.show import whole_seconds
from tests.random_vggt import random_vggt
from vggtkit.model.config import VGGTConfig
from vggtkit.runtime.kernel_table import PLAIN
from vggtkit.scenes import Scene
from vggtkit.subject import ModuleSubject, bare_subject, subject_of

SCENE = Scene("noise", torch.zeros(2, 3, 32, 32), torch.ones(1, 2))


def test_layers_and_rest_are_the_whole_pass(tiniest_config: VGGTConfig) -> None:
    subject = subject_of(random_vggt(tiniest_config))
    with torch.no_grad(), clocked_layers(subject) as clock:
        subject.call(subject.arguments(SCENE, subject.device))
    assert clock.calls["camera_head.pose_branch.fc1"] == 4
    assert all(seconds >= 0 for seconds in clock.layers.values())
    assert clock.total == pytest.approx(sum(clock.layers.values()) + sum(clock.rest.values()))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in subject.model.modules())


def test_a_table_has_every_layer_that_runs(tiniest_config: VGGTConfig) -> None:
    subject = subject_of(random_vggt(tiniest_config))
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    table = measure_kernels(MeasuredModel(subject, {}, {}), SCENE, "tiniest", seconds=1)
    table.check(subject.layers, subject.heads, "kernels.json")
    assert table.rows.keys() == {layer.name for layer in subject.layers}
    assert (table.views, table.size) == (2, (32, 32))
    for ways in table.at(2).seconds.values():
        assert len(ways) > 1
        assert PLAIN in ways
    whole = whole_seconds(table, table.at(2), subject.layers)
    assert whole["fastest"] <= min(seconds for how, seconds in whole.items() if how != PLAIN) + 1e-9
    assert all(subject.model.state_dict()[name].equal(value) for name, value in before.items())


def test_a_large_vggt_is_stood_for_by_one_block_of_every_kind() -> None:
    whole = bare_subject("vggt-1b").with_heads(["camera"])
    found = shallow(whole)
    assert found is not None
    assert found.subject.parameters < 0.3 * whole.parameters
    shapes = {layer.name: layer.shape for layer in found.subject.layers}
    for layer in whole.layers:
        listed = next((name for name in found.depths if layer.name.startswith(f"{name}.")), None)
        name = layer.name if listed is None else f"{listed}.0.{layer.name[len(listed) + 1 :].partition('.')[2]}"
        assert shapes[name] == layer.shape
    assert shallow(bare_subject("tiny")) is None


def test_activations_are_counted_from_when_they_are_made_until_nobody_holds_them() -> None:
    """Four layers of 100 rows; the fullest moment has the widest layer's input and output beside what is kept."""
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 64), nn.Linear(64, 4), nn.Linear(4, 4)).eval()
    scene = Scene("rows", torch.zeros(1, 3, 2, 8), torch.zeros(0, 2))
    rows = 3 * 2
    expected = 4 * rows * (8 + 16 + 64)  # the input is held by the caller
    assert peak_activation_bytes(ModuleSubject(model), scene) == expected


def test_activations_grow_with_the_pictures_and_weights_do_not_count(tiniest_config: VGGTConfig) -> None:
    subject = subject_of(random_vggt(tiniest_config))
    sizes = [peak_activation_bytes(subject, Scene("n", torch.zeros(n, 3, 32, 32), torch.ones(1, 2))) for n in (1, 2, 4)]
    assert all(size is not None for size in sizes)
    assert sizes[1] - sizes[0] < sizes[2] - sizes[1] <= 2.2 * (sizes[1] - sizes[0]) + 1
