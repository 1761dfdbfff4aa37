"""Going back segment by segment gives the gradients that one ordinary backward pass per cotangent gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from sensitivity.segments import Gradients, Tape
from vggtkit.model import VGGT
from vggtkit.quant import find_layers, weight_of
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of


class Branching(nn.Module):
    """A segment that runs twice, skips between segments, several outputs of one, and layers between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.start = nn.Linear(6, 6)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)) for _ in range(3))
        self.pairs = nn.ModuleList([Pair(), Pair()])
        self.end = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.start(x)
        first = self.blocks[0](x)
        second = self.blocks[1](first) + x
        again = self.blocks[0](second * first)
        parts = self.pairs[0](again, other=second)
        return {"a": self.end(parts["sum"]), "b": self.end(self.blocks[2](parts["product"]) + first), "c": second}


class Pair(nn.Module):
    """Named arguments in, a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(6, 6)

    def forward(self, x: Tensor, *, other: Tensor) -> dict[str, Tensor]:
        return {"sum": self.mix(x) + other, "product": x * other, "count": torch.tensor(3)}


def both_ways(model: nn.Module, forward: Callable[[], dict[str, Tensor]]) -> tuple[list[Gradients], list[Gradients]]:
    """Gradients of every layer's weight for two cotangents an output: by the tape, and by torch alone."""
    weights = [weight_of(model, layer) for layer in find_layers(model)]
    tape = Tape(subject_of(model).segments(), weights)
    with tape.recording():
        outputs = forward()
    values = [value for value in outputs.values() for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    cotangents = [torch.randn(value.shape, generator=generator).to(value) for value in values]
    found: list[Gradients] = [[None] * len(values) for _ in weights]

    def consume(rows: list[int], gradients: list[Gradients]) -> None:
        for row, of_weight in zip(rows, gradients, strict=True):
            for c, gradient in enumerate(of_weight):
                if gradient is not None:
                    before = found[row][c]
                    found[row][c] = gradient if before is None else before + gradient

    tape.back(values, cotangents, consume)
    plain = [value for value in forward().values() for _ in range(2)]
    columns = [
        torch.autograd.grad(value, weights, cotangent, retain_graph=True, allow_unused=True)
        for value, cotangent in zip(plain, cotangents, strict=True)
    ]
    return found, [list(row) for row in zip(*columns, strict=True)]


def assert_same(found: list[Gradients], expected: list[Gradients]) -> None:
    for row, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        for a, b in zip(ours, theirs, strict=True):
            if b is None or not b.any():
                assert a is None or not a.any(), row
            else:
                assert_close(a, b, rtol=1e-8, atol=1e-12 * float(b.abs().max()))


def test_skips_repeats_and_several_outputs() -> None:
    model = Branching().double()
    assert list(subject_of(model).segments()) == ["blocks.0", "blocks.1", "blocks.2", "pairs.0", "pairs.1"]
    x = torch.randn(3, 6, dtype=torch.float64)
    assert_same(*both_ways(model, lambda: model(x)))


@pytest.mark.parametrize("frames", [1, 2])
def test_a_vggt(small_model: VGGT, make_scene: Callable[..., Scene], frames: int) -> None:
    model, scene = small_model.double(), make_scene(frames=frames)
    scene = Scene(scene.name, scene.images.double(), scene.query_points.double())
    found, expected = both_ways(model, lambda: subject_of(model).run(scene))
    assert_same(found, expected)


def test_models_of_torch_alone() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), 2).double()
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    assert_same(*both_ways(model, lambda: {"output": model(x)}))


def test_each_segment_is_computed_twice_however_many_cotangents(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]
    original = Pair.forward

    def counted(self: Pair, x: Tensor, *, other: Tensor) -> dict[str, Tensor]:
        calls[0] += 1
        return original(self, x, other=other)

    monkeypatch.setattr(Pair, "forward", counted)
    model = Branching()
    weights = [model.end.weight, model.pairs[0].mix.weight]
    tape = Tape(subject_of(model).segments(), weights)
    with tape.recording():
        output = model(torch.randn(3, 6))["a"]
    tape.back([output] * 7, [torch.randn(3, 2) for _ in range(7)], lambda _rows, _gradients: None)
    assert calls[0] == 2
    assert "forward" not in vars(model.pairs[0])


def test_after_an_exception_the_model_is_as_before() -> None:
    model = Branching()
    tape = Tape(subject_of(model).segments(), [])
    with pytest.raises(RuntimeError), tape.recording():
        model(torch.randn(3, 5))
    assert not any("forward" in vars(module) for module in model.modules())
