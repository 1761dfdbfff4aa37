"""Second moments of what weights are multiplied by, against plain products and plain gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sensitivity.going_back import norm_of
from sensitivity.layer_rows import has_rows, input_rows, output_sizes
from sensitivity.moments import Moments, input_moments, output_moments
from tests.random_vggt import random_vggt
from vggtkit.core.errors import InputError
from vggtkit.model import VGGTConfig
from vggtkit.model.layers import QKVProjection
from vggtkit.quant import find_layers, out_first
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of

MakeScene = Callable[..., Scene]
MODULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(5, 3), (2, 4, 5)),
    "strided groups": (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7, 9)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding=(1, 2)), (2, 4, 9, 9)),
    "one picture": (nn.Conv2d(4, 6, (1, 3)), (4, 5, 6)),
    "transposed": (nn.ConvTranspose2d(4, 6, 4, stride=4), (2, 4, 3, 5)),
    "transposed, overlapping": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 3, 5)),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_layer_is_its_weight_times_its_rows(name: str) -> None:
    module, shape = MODULES[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    kind = "conv_transpose2d" if isinstance(module, nn.ConvTranspose2d) else name
    weight = out_first(module.weight, kind).flatten(1)  # type: ignore[arg-type]
    parts = input_rows(module, [x])
    products = [rows @ w.T for rows, w in zip(parts, weight.chunk(len(parts)), strict=True)]
    output: Tensor = module(x) - (module(x * 0))  # without the bias
    channels_last = output if name == "linear" else output.movedim(-3, -1)
    torch.testing.assert_close(torch.cat(products, 1), channels_last.flatten(0, -2))
    for sizes, product in zip(output_sizes(module, [x], output), products, strict=True):
        torch.testing.assert_close(sizes, product.square().sum(1))


def test_the_trackers_projection_has_three_parts() -> None:
    torch.manual_seed(0)
    module, x, context = QKVProjection(4), torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    parts = input_rows(module, [x, context])
    products = [rows @ w.T for rows, w in zip(parts, module.weight.chunk(3), strict=True)]
    expected = module(x, context).split([3, 5, 5], dim=1)
    for product, each in zip(products, expected, strict=True):
        torch.testing.assert_close(product, each.flatten(0, 1))


def test_rows_of_some_layers_are_not_known() -> None:
    reflecting = nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")
    model = nn.ModuleList([reflecting, nn.Conv1d(1, 1, 1), nn.ConvTranspose2d(2, 2, 1, groups=2)])
    assert not any(has_rows(layer, model.get_submodule(layer.name)) for layer in find_layers(model))


class Twice(nn.Module):
    """A layer that runs twice and one that nothing listens to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.twice, self.unheard = nn.Linear(32, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, images: Tensor, _query: Tensor) -> dict[str, Tensor]:
        x = self.first(images.flatten(2, 3)).tanh()
        self.unheard(x)
        return {"depth": self.twice(self.twice(x).tanh())}


def test_inputs_count_in_every_call(make_scene: MakeScene) -> None:
    subject, scenes = subject_of(Twice().eval()), [make_scene(0), make_scene(1)]
    seen: list[Tensor] = []

    def see(_module: nn.Module, arguments: tuple[Tensor], _output: object) -> None:
        seen.append(arguments[0].detach().flatten(0, -2).double())

    handle = subject.model.twice.register_forward_hook(see)
    moments = input_moments(subject, subject.layers, scenes)
    handle.remove()
    x = torch.cat(seen)
    assert len(seen) == 4
    assert moments.rows["twice"] == len(x)
    torch.testing.assert_close(moments.sums["twice"], (x.T @ x).float()[None])


def test_what_reaches_the_outputs_is_that_of_plain_gradients(tiniest_config: VGGTConfig, make_scene: MakeScene) -> None:
    """Every layer of a VGGT, gone back through whole instead of segment by segment."""
    subject, scene, probes = subject_of(random_vggt(tiniest_config)), make_scene(0), 2
    moments = output_moments(subject, subject.layers, [scene], probes=probes, seed=3)
    generator = torch.Generator().manual_seed(3)
    calls: list[tuple[str, tuple[Any, ...], Tensor]] = []
    handles = [
        module.register_forward_hook(lambda _m, given, y, name=name: calls.append((name, given, y)))
        for name, module in moments.modules.items()
    ]
    for parameter in subject.model.parameters():
        parameter.requires_grad_(True)
    outputs = subject.run(scene)
    for handle in handles:
        handle.remove()
    expected = Moments(subject, subject.layers)
    sizes: dict[int, list[Tensor]] = {}
    for _ in range(probes):
        drawn = {name: torch.randn(value.shape, generator=generator) for name, value in outputs.items()}
        loss = sum((value * drawn[name] / norm_of(value)).sum() for name, value in outputs.items())
        gradients = torch.autograd.grad(loss, [y for _, _, y in calls], retain_graph=True, allow_unused=True)
        for number, ((name, given, _), gradient) in enumerate(zip(calls, gradients, strict=True)):
            if gradient is not None:
                own = output_sizes(moments.modules[name], given, gradient)
                sizes[number] = [a + b for a, b in zip(sizes[number], own, strict=True)] if number in sizes else own
    with torch.no_grad():
        for number, own in sizes.items():
            expected.add(calls[number][0], calls[number][1], own)
    assert moments.sums.keys() == expected.sums.keys()
    assert len(moments.sums) > 60
    for name, value in expected.sums.items():
        assert (moments.sums[name] - value).norm() <= 1e-3 * value.norm(), name


def test_what_nothing_listens_to_has_no_moments(make_scene: MakeScene) -> None:
    subject = subject_of(Twice().eval())
    moments = output_moments(subject, subject.layers, [make_scene(0)], probes=1)
    assert moments.get("unheard") is None
    assert moments.get("twice") is not None
    assert all(not module._forward_hooks for module in subject.model.modules())


def test_moments_that_are_not_finite_are_none() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    moments = Moments(subject_of(model), find_layers(model))
    moments.add("0", [torch.tensor([[1.0, torch.inf]])])
    assert moments.get("0") is None


def test_what_does_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(20, 2), nn.Conv2d(4, 4, 3, groups=2), nn.Conv1d(9, 9, 1))
    needed = 4 * (20**2 + 2 * 18**2)
    monkeypatch.setattr("sensitivity.moments.free_bytes", lambda _: needed)
    Moments(subject_of(model), find_layers(model))
    monkeypatch.setattr("sensitivity.moments.free_bytes", lambda _: needed - 1)
    with pytest.raises(InputError, match="rounding='nearest'"):
        Moments(subject_of(model), find_layers(model))
