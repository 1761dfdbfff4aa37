"""Finding the layers of a model, and running them with quantised weights."""

import copy
import io
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.model.config import VGGTConfig
from vggtkit.model.layers import QKVProjection
from vggtkit.model.vggt import VGGT
from vggtkit.quant.formats import FORMATS
from vggtkit.quant.layer_weights import dequantize_layer, pack_layer, quantize_layer, replaced_weights, unpack_layer
from vggtkit.quant.layers import find_layers
from vggtkit.quant.packed import PackedWeight, from_out_first, out_first

MODULES: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "linear": (nn.Linear(70, 5), (torch.randn(3, 70),)),
    "conv2d": (nn.Conv2d(6, 4, 3, padding=1), (torch.randn(2, 6, 7, 7),)),
    "conv_transpose2d": (nn.ConvTranspose2d(6, 4, 2, stride=2), (torch.randn(2, 6, 5, 5),)),
    "attention_in": (QKVProjection(36), (torch.randn(2, 3, 36), torch.randn(2, 4, 36))),
}


@pytest.fixture(params=MODULES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def module(kind: str) -> nn.Module:
    return copy.deepcopy(MODULES[kind][0])


@pytest.fixture(scope="module")
def vggt_1b() -> nn.Module:
    with torch.device("meta"):
        return VGGT(VGGTConfig())


def test_vggt_1b_has_the_published_number_of_weights_by_kind(vggt_1b: nn.Module) -> None:
    """1,154,336,896 linear and 88,707,264 convolution weights, counted from the published tensors."""
    counts: Counter[str] = Counter()
    for layer in find_layers(vggt_1b):
        counts[layer.kind] += layer.weights
    assert counts["linear"] == 1_154_336_896
    assert counts["attention_in"] == 24 * 3 * 384 * 384
    assert counts["conv2d"] + counts["conv_transpose2d"] == 88_707_264
    assert counts["conv_transpose2d"] == 3 * (256 * 256 * 16 + 512 * 512 * 4)  # three heads, two each


def test_every_layer_of_vggt_1b_has_its_role_and_block(vggt_1b: nn.Module) -> None:
    layers = find_layers(vggt_1b)
    roles = Counter(layer.role for layer in layers)
    assert {role: roles[role] for role in ("patch_embed", "attention", "mlp", "other")} == {
        "patch_embed": 1,
        "attention": 72 * 2,
        "mlp": 72 * 2,
        "other": 0,
    }
    blocks = Counter(layer.block for layer in layers if layer.role in ("attention", "mlp"))
    assert blocks == {f"{kind}.{i}": 4 for kind in ("vit", "frame", "global") for i in range(24)}
    heads = {layer.name.partition(".")[0] for layer in layers} - {"aggregator"}
    assert heads == {"camera_head", "depth_head", "point_head", "track_head"}
    assert all(layer.role == layer.block == layer.name.partition(".")[0] for layer in layers if layer.role in heads)


@pytest.mark.parametrize(
    ("name", "role", "block"),
    [
        ("aggregator.patch_embed.patch_embed.proj", "patch_embed", "patch_embed"),
        ("aggregator.patch_embed.blocks.3.attn.qkv", "attention", "vit.3"),
        ("aggregator.frame_blocks.5.mlp.fc2", "mlp", "frame.5"),
        ("aggregator.global_blocks.11.attn.proj", "attention", "global.11"),
        ("camera_head.trunk.0.attn.qkv", "camera_head", "camera_head"),
        ("point_head.resize_layers.0", "point_head", "point_head"),
    ],
)
def test_role_and_block_follow_from_the_name(vggt_1b: nn.Module, name: str, role: str, block: str) -> None:
    (layer,) = (layer for layer in find_layers(vggt_1b) if layer.name == name)
    assert (layer.role, layer.block) == (role, block)


def test_transposed_convolution_has_one_scale_per_output_channel() -> None:
    conv = nn.ConvTranspose2d(6, 4, 2)
    with torch.no_grad():
        conv.weight.copy_(torch.rand(6, 4, 2, 2) * torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1))
    q = quantize_layer(conv, "int8_per_channel_sym")
    assert q.scales is not None
    expected = conv.weight.detach().abs().amax(dim=(0, 2, 3)) / 127
    torch.testing.assert_close(q.scales, expected.half(), rtol=0, atol=0)


def test_out_first_comes_back_in_the_modules_own_layout(kind: str, module: nn.Module) -> None:
    there = out_first(module.weight, kind)
    assert from_out_first(there, kind).equal(module.weight)
    assert from_out_first(there, kind).is_contiguous()


@pytest.mark.parametrize("key", FORMATS)
def test_packed_layer_equals_replaced_weights_bit_for_bit(kind: str, module: nn.Module, key: str) -> None:
    inputs = MODULES[kind][1]
    model = nn.ModuleDict({"layer": module})
    q = quantize_layer(module, key)
    with replaced_weights(model, {"layer": dequantize_layer(q, module)}):
        simulated = module(*inputs)
    pack_layer(module, q)
    for _ in range(2):
        assert module(*inputs).equal(simulated)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_packed_linear_takes_the_same_matrix_product(requires_grad: bool, mode: type) -> None:
    """On strided input torch chooses the product, and so the last bits, by the weight's ``requires_grad``."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(75, 32).requires_grad_(requires_grad)
    x = torch.randn(3, 5, 75, generator=generator).transpose(0, 1)
    q = quantize_layer(linear, "int8_per_channel_sym")
    with mode():
        with replaced_weights(nn.ModuleList([linear]), {"0": dequantize_layer(q, linear)}):
            simulated = linear(x)
        pack_layer(linear, q)
        assert linear(x).equal(simulated)


def test_packed_layer_holds_only_the_codes_between_calls(kind: str, module: nn.Module) -> None:
    described = find_layers(nn.ModuleDict({"layer": module}))
    pack_layer(module, quantize_layer(module, "int4_group_32"))
    module(*MODULES[kind][1])
    assert module.weight is None
    assert set(module.state_dict()) == {"bias", "packed.codes", "packed.scales"}
    assert find_layers(nn.ModuleDict({"layer": module})) == described


def test_weight_is_dropped_when_the_layer_fails(module: nn.Module) -> None:
    pack_layer(module, quantize_layer(module, "int8_per_tensor_sym"))
    bad = torch.zeros(1, 1, 1, 1)
    with pytest.raises(RuntimeError):
        module(*([bad, bad + 1] if isinstance(module, QKVProjection) else [bad]))
    assert module.weight is None


def test_unpacked_layer_is_as_before(kind: str, module: nn.Module) -> None:
    inputs, weight = MODULES[kind][1], module.weight
    before, names = module(*inputs), [name for name, _ in module.named_parameters()]
    pack_layer(module, quantize_layer(module, "int4_group_32"))
    unpack_layer(module, weight)
    assert [name for name, _ in module.named_parameters()] == names
    assert list(module.children()) == []
    assert module(*inputs).equal(before)
    assert module.weight is weight


def test_packed_layer_survives_copying_and_its_state_loads_into_another(kind: str, module: nn.Module) -> None:
    inputs = MODULES[kind][1]
    other = copy.deepcopy(module)
    pack_layer(module, quantize_layer(module, "int8_per_channel_asym"))
    expected = module(*inputs)
    twin = copy.deepcopy(module)
    assert twin(*inputs).equal(expected)
    unpack_layer(twin, other.weight)
    assert module(*inputs).equal(expected)

    with torch.no_grad():
        other.weight.zero_()
    pack_layer(other, quantize_layer(other, "int8_per_channel_asym"))
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other(*inputs).equal(expected)


def test_packed_weight_returns_the_quantised_tensor() -> None:
    linear = nn.Linear(40, 3)
    q = quantize_layer(linear, "int4_group_32")
    expected = dequantize_layer(q, linear)
    pack_layer(linear, q)
    assert isinstance(linear.packed, PackedWeight)
    assert linear.packed.quantized.nbytes == q.nbytes
    assert linear.packed().equal(expected)


def test_packing_twice_or_with_a_foreign_weight_is_refused() -> None:
    linear, other = nn.Linear(4, 3), nn.Linear(3, 4)
    with pytest.raises(ValueError, match="does not fit"):
        pack_layer(linear, quantize_layer(other, "fp16"))
    q = quantize_layer(linear, "fp16")
    pack_layer(linear, q)
    with pytest.raises(ValueError, match="is packed"):
        pack_layer(linear, q)
    with pytest.raises(ValueError, match="does not fit"):
        unpack_layer(linear, other.weight)
    with pytest.raises(ValueError, match="is not packed"):
        unpack_layer(other, linear.weight)
    with pytest.raises(TypeError, match="LayerNorm is not quantisable"):
        quantize_layer(nn.LayerNorm(3), "fp16")


def test_replaced_weights_come_back_even_after_an_exception() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    parameters = [model[0].weight, model[1].weight]
    before = [parameter.detach().clone() for parameter in parameters]
    memory = [parameter.data_ptr() for parameter in parameters]
    with pytest.raises(KeyboardInterrupt), replaced_weights(model, {"0": torch.ones(2, 2)}):
        assert model[0].weight.eq(1).all()
        raise KeyboardInterrupt
    assert model[0].weight is parameters[0]
    assert [parameter.data_ptr() for parameter in parameters] == memory
    torch.testing.assert_close(parameters, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "shape", "error"),
    [("2", (2, 2), InputError), ("1", (2, 2), InputError), ("0", (2, 3), ValueError)],
    ids=["no such module", "no weight to replace", "wrong shape"],
)
def test_replacing_what_does_not_fit_changes_nothing(name: str, shape: tuple[int, int], error: type[Exception]) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Sequential(nn.Linear(2, 2)))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error), replaced_weights(model, {"2.0": torch.ones(2, 2), name: torch.ones(shape)}):
        pytest.fail("the block must not run")
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
