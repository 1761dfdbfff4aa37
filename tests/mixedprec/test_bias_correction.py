"""Mean errors of rounded weights, taken off the biases."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mixedprec import load_quantized, overhead_bytes, packed_with, save_quantized
from mixedprec.checkpoint import read_weights
from mixedprec.rounding import rounded_weights
from sensitivity.moments import Moments, input_moments
from tests.sensitivity.conftest import build_scene
from vggtkit.core.errors import InputError
from vggtkit.model.layers import QKVProjection
from vggtkit.quant import dequantize, find_layers
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.subject import subject_of


class Some(nn.Module):
    """Layers of all kinds that have rows; one without a bias, two that share one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.up = nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.bare, self.one, self.two = nn.Linear(8, 8, bias=False), nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.bias = self.one.bias
        self.projection = QKVProjection(8)
        nn.init.normal_(self.projection.weight)

    def forward(self, images: Tensor, _query: Tensor) -> dict[str, Tensor]:
        x = self.up(torch.relu(self.conv(images.flatten(0, 1)))).flatten(2).transpose(1, 2)
        x = self.two(self.one(self.bare(x)))
        return {"out": self.projection(x, x + 1)}


def test_each_channel_keeps_its_mean() -> None:
    """The closed form: on the calibration inputs the mean of every output channel is that of FP32."""
    subject, scenes = subject_of(Some().eval()), [build_scene(seed) for seed in (0, 1)]
    formats = {layer.name: "int3_group_32" for layer in subject.layers}
    moments = input_moments(subject, subject.layers, scenes)
    rounded = rounded_weights(subject, formats, ROUNDINGS["gptq_bias"], moments).weights
    plain = rounded_weights(subject, formats, ROUNDINGS["gptq"], moments).weights
    assert all(dequantize(rounded[name]).equal(dequantize(q)) for name, q in plain.items())
    assert [q.nbytes for q in rounded.values()] == [q.nbytes for q in plain.values()]
    assert {name for name, q in rounded.items() if q.bias is not None} == {"bare", "conv", "up", "projection"}
    assert all(q.bias is None for q in plain.values())
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    for name in ("bare", "conv", "up", "projection"):
        given: list[tuple[Tensor, ...]] = []
        module = subject.model.get_submodule(name)
        with module.register_forward_hook(lambda _m, arguments, _o: given.append(arguments)):  # noqa: B023
            for scene in scenes:
                subject.run(scene)
        means = []
        for weights in (None, {**plain, name: rounded[name]}, plain):
            with torch.no_grad():
                if weights is None:
                    outputs = [module(*arguments) for arguments in given]
                else:
                    with packed_with(subject.model, weights, "fp32"):
                        outputs = [module(*arguments) for arguments in given]
            means.append(torch.stack([_channels(name, output) for output in outputs]).mean(0))
        torch.testing.assert_close(means[1], means[0], atol=2e-5, rtol=1e-4)
        assert (means[2] - means[0]).abs().max() > 1e-3
    assert subject.model.state_dict().keys() == before.keys()
    assert all(value.equal(before[name]) for name, value in subject.model.state_dict().items())


def _channels(name: str, output: Tensor) -> Tensor:
    """Mean of every channel of a layer's output, those of the projection one third after the other."""
    if name == "bare":
        return output.flatten(0, -2).mean(0)
    if name == "projection":
        return torch.cat([part.flatten(0, -2).mean(0) for part in output.chunk(3, dim=1)])
    return output.mean((0, 2, 3))


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4, bias=False)).eval()


@pytest.mark.parametrize("key", ["int4_group_32", "fp32"])
def test_the_file_holds_them_and_those_that_are_given_and_counts_these(key: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = build(), torch.randn(30, 8)
    moments = input_moments_of(model, x)
    formats = {"0": "int4_group_32", "1": key}
    rounded = rounded_weights(model, formats, ROUNDINGS["gptq_bias"], moments).weights
    assert rounded["1"].bias is not None
    assert bool(rounded["1"].bias.any()) == (key != "fp32")
    path, plain = tmp_path / "corrected.safetensors", tmp_path / "plain.safetensors"
    size, own = save_quantized(model, formats, path, rounded=rounded), sum(q.nbytes for q in rounded.values())
    assert size == path.stat().st_size == own + overhead_bytes(model, gives_biases=True)
    assert save_quantized(model, formats, plain) == own + overhead_bytes(model)
    assert size - plain.stat().st_size >= 4 * 2
    loaded, read = load_quantized(path, model=build), read_weights(path, model)
    with torch.no_grad():
        with packed_with(model, rounded):
            expected = model(x)
        with packed_with(model, read):
            again = model(x)
        with packed_with(model, rounded_weights(model, formats, ROUNDINGS["gptq"], moments).weights):
            without = model(x)
        assert loaded(x).equal(expected)
        assert again.equal(expected)
        assert not without.equal(expected)
    assert model[1].bias is None
    assert load_quantized(plain, model=build)[1].bias is None


def test_a_bias_of_another_length_is_refused(tmp_path: Path) -> None:
    model, path = build(), tmp_path / "model.safetensors"
    formats = {"0": "int4_group_32", "1": "int4_group_32"}
    moments = input_moments_of(model, torch.ones(9, 8))
    rounded = dict(rounded_weights(model, formats, ROUNDINGS["gptq_bias"], moments).weights)
    rounded["1"] = replace(rounded["1"], bias=torch.zeros(3))
    save_quantized(model, formats, path, rounded=rounded)
    for read in (lambda: load_quantized(path, model=build), lambda: read_weights(path, model)):
        with pytest.raises(InputError, match=r"1\.bias is .* of shape \[3\], must be .* of shape \[4\]"):
            read()


def input_moments_of(model: nn.Module, x: Tensor) -> Moments:
    moments = Moments(subject_of(model), find_layers(model))
    for name in ("0", "1"):
        moments.add(name, [x])
    return moments
