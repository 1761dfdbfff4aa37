"""Packed files of networks that are no VGGT: bit-identical to the simulated model, every byte accounted for."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from mixedprec import apply_assignment, load_quantized, overhead_bytes, save_quantized
from vggtkit.core.errors import InputError
from vggtkit.quant import find_layers, quantize_layer
from vggtkit.subject import subject_of
from vggtkit.subject.factory import bake_parametrizations

KEYS = ("int8_per_channel_sym", "int4_group_32", "int3_two_level_16", "fp16", "fp32", "int8_per_tensor_asym")


class TiedLinears(nn.Module):
    """Two modules on one parameter, and an embedding that is the last layer as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)
        self.b.weight = self.a.weight
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x: Tensor = self.head(self.b(self.a(self.embed(ids)).relu()).relu())
        return x


class Convolutions(nn.Module):
    """One to three dimensions, groups, weight norm, batch norm with its counter, and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Conv1d(3, 8, 3, padding=1)
        self.picture = weight_norm(nn.Conv2d(8, 8, 3, padding=1, groups=4))
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv3d(1, 2, 3, padding=1)
        self.up = nn.ConvTranspose1d(8, 4, 2, stride=2, groups=2)
        self.idle = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> dict[str, object]:
        x = self.norm(self.picture(self.flat(x)[..., None]))
        return {"maps": {"deep": self.deep(x[:, None]), "none": None}, "up": self.up(x[..., 0])}


class Attending(nn.Module):
    """torch's attention, whose two weights are read past their modules."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.attention(x, x, x, need_weights=False)[0])
        return y


class ReadPast(nn.Module):
    """A weight that is used without a call of its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(self.one(x).relu(), self.two.weight, self.two.bias)


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "tied": (TiedLinears, torch.arange(6)[None]),
    "convolutions": (Convolutions, torch.rand(2, 3, 12)),
    "attention": (Attending, torch.rand(2, 5, 16)),
    "encoder": (encoder, torch.rand(2, 5, 16)),
    "bfloat16": (lambda: encoder().bfloat16(), torch.rand(2, 5, 16).bfloat16()),
}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = NETWORKS[name][0]().eval()
    bake_parametrizations(model)
    return model


def outputs_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return subject_of(model).outputs(model(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_packed_and_simulated_agree_bit_for_bit_and_byte_for_byte(name: str, tmp_path: Path) -> None:
    model, x, path = build(name), NETWORKS[name][1], tmp_path / "packed.safetensors"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assignment = dict(zip((layer.name for layer in find_layers(model)), cycle(KEYS), strict=False))
    size = save_quantized(model, assignment, path)
    layers = sum(quantize_layer(model.get_submodule(layer), key).nbytes for layer, key in assignment.items())
    assert path.stat().st_size == size == overhead_bytes(model) + layers
    simulated = apply_assignment(model, assignment)
    with torch.no_grad():
        packed = load_quantized(path, model=lambda: noisy(build(name)))
    ours, expected = outputs_of(packed, x), outputs_of(simulated, x)
    assert ours.keys() == expected.keys()
    assert all(ours[key].equal(value) and ours[key].dtype == value.dtype for key, value in expected.items())
    assert any(not value.equal(outputs_of(model, x)[key]) for key, value in expected.items())
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())


def noisy(model: nn.Module) -> nn.Module:
    """The same network with other values everywhere: what the file holds must replace all of them."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(1)
    return model


def test_a_shared_weight_is_one_layer_and_stored_once(tmp_path: Path) -> None:
    model = build("tied")
    assert [(layer.name, layer.aliases) for layer in find_layers(model)] == [
        ("a", ("b.weight",)), ("head", ("embed.weight",))
    ]  # fmt: skip
    path = tmp_path / "packed.safetensors"
    save_quantized(model, {"a": "int4_group_32", "head": "int8_per_channel_sym"}, path)
    packed = load_quantized(path, model=build("tied"))
    assert packed.a.packed is not None
    assert packed.b.weight is packed.embed.weight is packed.head.weight is None


def test_a_weight_that_is_read_past_its_layer_is_put_back_for_the_whole_model(tmp_path: Path) -> None:
    """Who reads it is seen in a pass and kept in the file."""
    torch.manual_seed(0)
    model, x, path = ReadPast().eval(), torch.rand(3, 16), tmp_path / "packed.safetensors"
    layers = subject_of(model).layers
    seen = [layer if layer.name == "one" else type(layer)(**{**vars(layer), "reader": ""}) for layer in layers]
    subject = subject_of(model).reading(seen)
    assignment = {"one": "int4_group_32", "two": "int4_group_32"}
    save_quantized(subject, assignment, path)
    packed, simulated = load_quantized(path, model=ReadPast), apply_assignment(model, assignment)
    assert outputs_of(packed, x)["output"].equal(outputs_of(simulated, x)["output"])


def test_the_code_of_a_foreign_network_must_be_given(tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    save_quantized(build("attention"), dict.fromkeys(("attention", "attention.out_proj", "last"), "fp16"), path)
    with pytest.raises(InputError, match=r"its code must be given: load_quantized\(path, model=build\)"):
        load_quantized(path)
    with pytest.raises(InputError, match="is the plan for another model"):
        load_quantized(path, model=build("tied"))
