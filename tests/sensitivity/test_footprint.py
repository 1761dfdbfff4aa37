"""What is said beforehand grows with what it depends on, and what does not fit is refused with both numbers."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sensitivity.footprint import Footprint, GraphCounter, footprint
from sensitivity.survey import LayerVolume, survey
from vggtkit.core import memory
from vggtkit.core.errors import InputError
from vggtkit.core.memory import check_disk, check_memory
from vggtkit.model import VGGT, VGGTConfig, skeleton
from vggtkit.quant import find_layers
from vggtkit.quant.activations import ACTIVATION_FORMATS
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of


def of(model: nn.Module, scene: Scene, probes: int = 1) -> Footprint | None:
    layers = find_layers(model)
    count = GraphCounter(subject_of(model))
    volumes = survey(subject_of(model), layers, scene, count.watching())
    return footprint(subject_of(model), layers, volumes, count, candidates=10, probes=probes, sample_bytes=0)


def test_grows_with_pictures_and_probes(small_model: VGGT, make_scene: Callable[..., Scene]) -> None:
    sizes = [
        of(small_model, make_scene(frames=frames, size=size), probes)
        for frames, size, probes in ((2, (32, 32), 1), (6, (32, 32), 1), (2, (64, 64), 1), (2, (32, 32), 9))
    ]
    assert all(found is not None for found in sizes)
    few, more_frames, larger, more_probes = (found for found in sizes if found)
    assert more_frames.passes > few.passes
    assert larger.sketch > few.sketch
    assert more_probes.sketch > few.sketch
    assert more_probes.passes == few.passes


@pytest.mark.slow
def test_at_full_width_the_heads_decide_and_six_gigabytes_are_enough() -> None:
    """Without any weights: on the meta device, and with few of the alike blocks."""
    config = replace(VGGTConfig(), vit_depth=2, aggregator_depth=2, dpt_layer_idx=(0, 0, 1, 1))
    found = of(skeleton(config), Scene("two", torch.zeros(2, 3, 392, 518), torch.zeros(16, 2)))
    assert found is not None
    assert 0.5e9 < found.passes < found.sketch < found.peak < 4e9


def test_the_graph_of_a_segment_is_what_torch_saves() -> None:
    """Two blocks of two linear layers and a tanh: inputs of the layers and the tanh's output, not the weights."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x).tanh())

    model = nn.Sequential(Block(), Block())
    counter = GraphCounter(subject_of(model))
    with counter.watching():
        model(torch.zeros(5, 8))
    assert counter.is_complete
    vector = 5 * 8 * 4
    assert counter.graphs == {"0": 2 * vector, "1": 2 * vector}
    assert counter.stored == 3 * vector
    assert counter.rounding == dict.fromkeys(("0", "1"), 2 * len(ACTIVATION_FORMATS) * vector)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_activation_is_counted_as_what_it_computes() -> None:
    """It takes no hooks, and saves the same tensors."""
    scene = Scene("x", torch.zeros(0), torch.zeros(0), inputs=(torch.ones(4, 8),))
    graphs = []
    for activation in (nn.Tanh(), torch.jit.script(nn.Tanh())):
        found = of(nn.Sequential(nn.Linear(8, 8), activation, nn.Linear(8, 8)), scene)
        assert found is not None
        graphs.append(found.sketch)
    assert graphs[0] == graphs[1]


def test_a_large_model_that_looks_at_values_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Choosy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if float(x.sum()) > 0 else -x)

    model = Choosy(4, 4)
    scene = Scene("x", torch.zeros(0), torch.zeros(0), inputs=(torch.ones(5, 4),))
    assert of(model, scene) is not None
    monkeypatch.setattr("sensitivity.survey.LARGE", 1)
    assert survey(subject_of(model), find_layers(model), scene) == [LayerVolume(1, 5, 4)]
    assert of(model, scene) is None


@pytest.mark.usefixtures("spoken_in_options")
def test_refusals_name_both_numbers_and_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 2 * 10**9)
    check_memory(2 * 10**9, torch.device("cpu"))
    with pytest.raises(InputError, match=r"needs about 2\.5 GB .* 2\.0 GB are free.*--max-images.*--resolution"):
        check_memory(25 * 10**8, torch.device("cpu"))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda _path: usage(5 * 10**6))
    check_disk(5 * 10**6, tmp_path / "not" / "yet")
    with pytest.raises(InputError, match=r"needs 6 MB of disk .* 5 MB are free.*--disk-budget"):
        check_disk(6 * 10**6, tmp_path / "not" / "yet")
