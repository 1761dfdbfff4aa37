"""Tuning: what it finds, that it goes on with equal bits, and that it never ends worse than it began."""

import copy
import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mixedprec import quantized_weights, uniform_assignment
from mixedprec.apply import packed_with
from mixedprec.tuning import Recipe, Tuned, distil, forecast_tuning, tune_blocks
from mixedprec.tuning import distillation as of_the_whole
from mixedprec.tuning.student import Student, standing_in
from tests.random_vggt import random_vggt
from vggtkit.core.journal import Parts
from vggtkit.model.config import VGGTConfig
from vggtkit.quant import QuantizedTensor, dequantize
from vggtkit.quant.grid import grid_of
from vggtkit.scenes import Scene, synthetic_scenes
from vggtkit.subject import Subject, subject_of

Weights = Mapping[str, QuantizedTensor]
SCENES = 2


class Answers(nn.Module):
    """One linear layer on the mean of a picture's rows."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2, bias=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"y": self.fc(images.flatten(0, 1).mean(-1))}


@pytest.fixture
def linear() -> tuple[Subject, list[Scene]]:
    torch.manual_seed(0)
    model, generator = Answers().eval(), torch.Generator().manual_seed(1)
    mixing = torch.randn(4, 4, generator=generator)
    scenes = []
    for number in range(4):  # inputs that go together, so that roundings make up for each other
        rows = torch.rand(2, 3, 4, 1, generator=generator).transpose(-1, -2) @ mixing
        scenes.append(Scene(str(number), rows.transpose(-1, -2).expand(2, 3, 4, 4).contiguous(), torch.zeros(1, 2)))
    return subject_of(model), scenes


def error(subject: Subject, scenes: list[Scene], weights: Weights) -> float:
    """Damage by plain arithmetic: the mean over scenes of the squared error over the reference's square."""
    exact, stored = subject.model.fc.weight.detach().double(), dequantize(weights["fc"]).double()
    damages = []
    for scene in scenes:
        x = scene.images.flatten(0, 1).mean(-1).double()
        damages.append(float((x @ (stored - exact).T).square().sum() / (x @ exact.T).square().sum()))
    return sum(damages) / len(damages)


def best_codes(subject: Subject, scenes: list[Scene], start: QuantizedTensor) -> float:
    """Least damage of all codes with the scales of the start: rows do not see each other but for the norm."""
    grid, rows = grid_of(start), []
    exact = subject.model.fc.weight.detach().double()
    norms = [float((s.images.flatten(0, 1).mean(-1).double() @ exact.T).square().sum()) for s in scenes]
    inputs = [s.images.flatten(0, 1).mean(-1).double() for s in scenes]
    codes = torch.tensor(list(itertools.product(range(grid.low, grid.high + 1), repeat=4)), dtype=torch.float64)
    for row in range(2):
        values = codes * grid.steps[row].double()
        of_row = sum(
            ((values - exact[row]) @ x.T).square().sum(1) / norm for x, norm in zip(inputs, norms, strict=True)
        )
        rows.append(float(of_row.min()))
    return sum(rows) / len(scenes)


def test_a_linear_layer_comes_to_what_exhaustive_search_finds(linear: tuple[Subject, list[Scene]]) -> None:
    """On 4 x 2 weights of 2 bits: no worse than the best of all 256 codes of each row at the scales of the start."""
    subject, scenes = linear
    start = quantized_weights(subject, {"fc": "int2_group_32"})
    before, least = error(subject, scenes, start), best_codes(subject, scenes, start["fc"])
    recipe = Recipe(steps=200, batch=4, rate=1.0, scale_rate=0.1)
    tuned = distil(subject, Tuned(start, before, before), scenes, lambda w: error(subject, scenes, w), recipe)
    assert tuned.damage == error(subject, scenes, tuned.weights) < 0.5 * before
    assert tuned.damage <= least < before


def test_learnt_scales_are_worth_something(linear: tuple[Subject, list[Scene]]) -> None:
    subject, scenes = linear
    start = quantized_weights(subject, {"fc": "int2_group_32"})
    before = error(subject, scenes, start)

    def with_rate(scale_rate: float) -> float:
        recipe = Recipe(steps=100, batch=4, rate=1.0, scale_rate=scale_rate)
        first = Tuned(start, before, before)
        return distil(subject, first, scenes, lambda w: error(subject, scenes, w), recipe).damage

    assert with_rate(0.1) < with_rate(0.0)


@pytest.mark.parametrize("optimizer", ["adam", "sign"])
def test_an_absurd_learning_rate_gives_back_the_start(linear: tuple[Subject, list[Scene]], optimizer: str) -> None:
    subject, scenes = linear
    recipe = Recipe(steps=40, batch=4, rate=1.0, scale_rate=0.1)
    weights = quantized_weights(subject, {"fc": "int2_group_32"})
    first = error(subject, scenes, weights)
    good = distil(subject, Tuned(weights, first, first), scenes, lambda w: error(subject, scenes, w), recipe)
    absurd = Recipe(steps=20, rate=1e3, scale_rate=1e3, optimizer=optimizer)
    tuned = distil(subject, good, scenes, lambda w: error(subject, scenes, w), absurd)
    assert tuned.weights is good.weights
    assert tuned.damage == good.damage
    assert min(damage for _, damage in tuned.history[len(good.history) :]) > good.damage


def test_a_loss_that_is_no_number_ends_it(linear: tuple[Subject, list[Scene]]) -> None:
    subject, scenes = linear
    start = quantized_weights(subject, {"fc": "int2_group_32"})
    broken = [Scene("broken", scenes[0].images * torch.inf, scenes[0].query_points)]
    real = subject.predict
    subject.predict = lambda _scene, *, check=False: real(scenes[0], check=check)  # type: ignore[method-assign]
    tuned = distil(subject, Tuned(start, 1.0, 1.0), broken, lambda _: 0.5, Recipe(steps=5))
    assert "nan" in tuned.stopped
    assert tuned.weights is start


@pytest.fixture(scope="module")
def vggt(tiniest_config: VGGTConfig) -> Subject:
    return subject_of(random_vggt(tiniest_config, spread=0.1))


@pytest.fixture(scope="module")
def cameras(vggt: Subject) -> Subject:
    """The same with one head, which is enough where it is about the order of steps."""
    return vggt.with_heads(["camera"])


@pytest.fixture(scope="module")
def rooms() -> list[Scene]:
    return synthetic_scenes(SCENES, 2, (32, 32), seed=0, split="calibration")


def uniform(subject: Subject, key: str = "int3_two_level_16") -> dict[str, QuantizedTensor]:
    return quantized_weights(subject, uniform_assignment(subject.layers, key))


def measured(subject: Subject, scenes: list[Scene], weights: Weights) -> float:
    damages = []
    for scene in scenes:
        exact = subject.predict(scene)
        with packed_with(subject, weights):
            ours = subject.predict(scene)
        damages += [float((ours[name] - v).square().sum() / v.square().sum()) for name, v in exact.items()]
    return sum(damages) / len(damages)


def same(ours: Weights, theirs: Weights) -> bool:
    return all(torch.equal(dequantize(q), dequantize(theirs[name])) for name, q in ours.items())


def test_blocks_come_nearer_and_the_model_stays(vggt: Subject, rooms: list[Scene]) -> None:
    start, state = uniform(vggt), copy.deepcopy(vggt.model.state_dict())
    tuned = tune_blocks(vggt, start, rooms, Recipe(block_steps=20, batch=2, rate=0.02))
    assert measured(vggt, rooms, tuned) < 0.9 * measured(vggt, rooms, start)
    changed = sum(not torch.equal(dequantize(tuned[name]), dequantize(q)) for name, q in start.items())
    assert changed > 0.9 * len(start)
    torch.testing.assert_close(vggt.model.state_dict(), state, rtol=0, atol=0)
    assert not any("weight" in vars(module) or "forward" in vars(module) for module in vggt.model.modules())


def test_a_block_that_comes_no_nearer_is_left(vggt: Subject, rooms: list[Scene]) -> None:
    start = uniform(vggt, "int8_per_channel_sym")
    tuned = tune_blocks(vggt, start, rooms[:1], Recipe(block_steps=1, rate=1e3, scale_rate=1e3))
    assert same(tuned, start)


class KilledError(Exception):
    """In the place of a signal."""


def killed_after(count: int) -> object:
    """A progress that ends the work when it has been told of a stage so often."""
    calls = itertools.count(1)

    def tell(_stage: str, _done: int, _total: int) -> None:
        if next(calls) > count:
            raise KilledError

    return tell


@pytest.mark.parametrize("after", [1, 6])
def test_blocks_go_on_with_equal_bits(cameras: Subject, rooms: list[Scene], tmp_path: Path, after: int) -> None:
    start, recipe = uniform(cameras), Recipe(block_steps=2, rate=0.02)
    whole = tune_blocks(cameras, start, rooms, recipe)
    with pytest.raises(KilledError):
        tune_blocks(cameras, start, rooms, recipe, parts=Parts(tmp_path / "m", {}), progress=killed_after(after))
    parts = Parts(tmp_path / "m", {})
    assert parts.done()
    assert same(tune_blocks(cameras, start, rooms, recipe, parts=parts), whole)


@pytest.mark.parametrize("optimizer", ["adam", "sign"])
def test_the_whole_model_goes_on_with_equal_bits(
    cameras: Subject, rooms: list[Scene], tmp_path: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_the_whole, "JUDGED", 2)
    start, recipe = uniform(cameras), Recipe(steps=4, rate=0.5, scale_rate=0.05, optimizer=optimizer)
    given: dict[str, object] = {"judge": lambda w: measured(cameras, rooms, w), "recipe": recipe}
    first = Tuned(start, damage := measured(cameras, rooms, start), damage)
    whole = distil(cameras, first, rooms, **given)
    with pytest.raises(KilledError):
        parts = Parts(tmp_path / "m", {})
        distil(cameras, first, rooms, parts=parts, progress=killed_after(SCENES + 3), **given)
    parts = Parts(tmp_path / "m", {})
    assert parts.done() == [of_the_whole.STATE]
    again = distil(cameras, first, rooms, parts=parts, **given)
    assert again.history == whole.history
    assert len(whole.history) == 2
    assert again.damage == whole.damage < damage
    assert same(again.weights, whole.weights)


def test_gradients_reach_what_stands_in_and_nothing_else(vggt: Subject, rooms: list[Scene]) -> None:
    student = Student(vggt.model, vggt.layers, uniform(vggt), Recipe())
    student.refresh()
    with student.in_place(), of_the_whole.passes(vggt):
        outputs = vggt.run(rooms[0], check=False)
        torch.stack([value.square().sum() for value in outputs.values()]).sum().backward()
    assert all(student.values[layer.name].grad is not None for layer in vggt.layers)
    assert all(parameter.grad is None for parameter in vggt.model.parameters())


def test_a_shared_weight_stands_in_everywhere() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    subject = subject_of(model)
    with standing_in(model, subject.layers, {"0": 2 * torch.eye(2)}):
        torch.testing.assert_close(model(torch.ones(1, 2)), torch.full((1, 2), 4.0))


def test_memory_is_forecast(vggt: Subject, rooms: list[Scene]) -> None:
    few, many = (forecast_tuning(vggt, rooms[0], count, 10**4) for count in (1, 50))
    assert few is not None and many is not None and few.blocks is not None and many.blocks is not None
    assert few.blocks < many.blocks
    assert few.whole < many.whole
    assert few.blocks < few.whole  # one scene: the blocks' weights are fewer than all
