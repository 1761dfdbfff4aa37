"""Both matrices against gradients by autograd."""

import pytest
import torch
from torch import Tensor, nn

from sensitivity.layer_rows import part_count
from sensitivity.moments import combined, input_moments
from sensitivity.output_factors import FEW_ROWS, SHARE, output_factors
from tests.sensitivity.conftest import build_scene
from vggtkit.core.errors import InputError
from vggtkit.model.layers import QKVProjection
from vggtkit.quant import out_first, weight_of
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, subject_of

PROBES, SEED = 3, 2


class Some(nn.Module):
    """Layers of all kinds, one called twice, one that no output hears."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.up = nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.twice, self.projection, self.unheard = nn.Linear(8, 8), QKVProjection(8), nn.Linear(8, 4)
        nn.init.normal_(self.projection.weight)

    def forward(self, images: Tensor, _query: Tensor) -> dict[str, Tensor]:
        x = self.up(torch.relu(self.conv(images.flatten(0, 1)))).flatten(2).transpose(1, 2)
        x = self.twice(torch.relu(self.twice(x)))
        self.unheard(x)
        return {"one": self.projection(x, x + 1), "other": x.square()}


@pytest.fixture
def subject() -> Subject:
    return subject_of(Some().eval())


def by_autograd(subject: Subject, scenes: list[Scene], shares: dict[str, float] | None) -> dict[str, list[Tensor]]:
    """Gradients of random combinations of the outputs, ``[out, in]``, of all scenes and probes, by layer."""
    gradients: dict[str, list[Tensor]] = {layer.name: [] for layer in subject.layers}
    for number, scene in enumerate(scenes):
        generator = torch.Generator().manual_seed(SEED * len(scenes) + number)
        outputs = subject.run(scene)
        for _ in range(PROBES):
            loss = combined(outputs, shares, generator)
            weights = [weight_of(subject.model, layer) for layer in subject.layers]
            found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
            for layer, value in zip(subject.layers, found, strict=True):
                if value is not None:
                    gradients[layer.name].append(out_first(value, layer.kind).flatten(1).double())
    return gradients


def test_they_are_those_of_autograd(subject: Subject) -> None:
    scenes = [build_scene(seed) for seed in (0, 1)]
    moments = output_factors(subject, subject.layers, scenes, probes=PROBES, seed=SEED)
    inputs = input_moments(subject, subject.layers, scenes)
    gradients = by_autograd(subject, scenes, None)
    assert gradients["unheard"] == []
    assert "unheard" not in moments.channels
    assert moments.sums["unheard"].equal(inputs.sums["unheard"])
    for layer in subject.layers:
        if layer.name == "unheard":
            continue
        parts = part_count(subject.model.get_submodule(layer.name))
        split = [value.chunk(parts) for value in gradients[layer.name]]
        for part in range(parts):
            channels = sum(value[part] @ value[part].T for value in split)
            torch.testing.assert_close(moments.channels[layer.name][part].double(), channels, rtol=1e-4, atol=1e-9)
        heard = torch.stack(
            [torch.stack([value[part].T @ value[part] for value in split]).sum(0) for part in range(parts)]
        )
        own = inputs.sums[layer.name].double()
        scaled = [x / x.diagonal(dim1=1, dim2=2).mean() for x in (own, heard)]
        more = FEW_ROWS * own.shape[-1] / inputs.rows[layer.name] * torch.eye(own.shape[-1])
        expected = (1 - SHARE) * scaled[0] + SHARE * scaled[1] + more
        torch.testing.assert_close(moments.sums[layer.name].double(), expected, rtol=1e-4, atol=1e-6)


def test_a_layer_has_the_same_alone(subject: Subject) -> None:
    scenes = [build_scene(0)]
    whole = output_factors(subject, subject.layers, scenes, probes=PROBES)
    some = [layer for layer in subject.layers if layer.name == "twice"]
    alone = output_factors(subject, subject.layers, scenes, only=some, probes=PROBES)
    assert list(alone.sums) == ["twice"]
    assert alone.sums["twice"].equal(whole.sums["twice"])
    assert alone.channels["twice"].equal(whole.channels["twice"])


def test_gradients_that_do_not_fit_are_said(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensitivity.output_factors.free_bytes", lambda _device: 1000)
    with pytest.raises(InputError, match="output_descent"):
        output_factors(subject, subject.layers, [build_scene(0)])
