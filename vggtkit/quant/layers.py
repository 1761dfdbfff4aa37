"""The layers of a model whose weights can be quantised, and how a quantised weight is put back into one.

Two ways, bit-identical in what they compute: *simulated*, with the dequantised weight in the layer's own
parameter (``replaced_weights``), and *packed*, with only the packed codes in memory and the weight rebuilt
for the moment the layer runs (``pack_layer``).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vggtkit.core.errors import InputError
from vggtkit.model.layers import QKVProjection
from vggtkit.quant.quantizer import PARTS, QuantizedTensor, dequantize, quantize
from vggtkit.quant.roles import NameTable
from vggtkit.quant.simulate import simulate

_KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Conv2d: "conv2d",
    nn.ConvTranspose2d: "conv_transpose2d",
    QKVProjection: "attention_in",
}


@dataclass(frozen=True)
class Layer:
    """A layer whose weight can be quantised.

    Attributes:
        name: the module's name in the model, as ``vggtkit.model.get_submodule`` takes it.
        kind: ``"linear"``, ``"conv2d"``, ``"conv_transpose2d"`` or ``"attention_in"``.
        role: ``"patch_embed"``, ``"attention"`` or ``"mlp"`` in the aggregator, else the head
            (``"camera_head"``, ``"depth_head"``, ``"point_head"``, ``"track_head"``) or ``"other"``.
        block: ``"vit.3"``, ``"frame.5"``, ``"global.5"``, ``"patch_embed"``, a head, or ``"other"``.
        shape: shape of the weight as quantised, output channels first; for a transposed convolution this
            is not the order of the module's own weight.
        weights: number of weights.
    """

    name: str
    kind: str
    role: str
    block: str
    shape: tuple[int, ...]
    weights: int


class PackedWeight(nn.Module):
    """The packed weight of one layer, as the buffers named in `vggtkit.quant.quantizer.PARTS`.

    Args:
        q: the quantised weight, output channels first.
        kind: kind of the layer that it belongs to.
        like: the weight that it stands for; its dtype and ``requires_grad`` are kept.
    """

    codes: Tensor
    scales: Tensor | None
    zero_points: Tensor | None
    multipliers: Tensor | None
    handles: tuple[RemovableHandle, ...] = ()

    def __init__(self, q: QuantizedTensor, kind: str, like: Tensor) -> None:
        super().__init__()
        self.format, self.shape, self.kind = q.format, q.shape, kind
        self.dtype, self.requires_grad = like.dtype, like.requires_grad
        for name in PARTS:
            self.register_buffer(name, getattr(q, name))

    @property
    def quantized(self) -> QuantizedTensor:
        """The quantised weight; it shares memory with the buffers."""
        return QuantizedTensor(self.format, self.shape, self.codes, self.scales, self.zero_points, self.multipliers)

    def forward(self) -> nn.Parameter:
        """The dequantised weight in the layout of its layer."""
        weight = from_out_first(dequantize(self.quantized), self.kind).to(self.dtype)
        # On strided input torch picks the matrix product, and so the last bits, by whether the weight (or the
        # tensor that it is a view of) requires a gradient, even under no_grad: should_fold in ATen's
        # LinearAlgebra.cpp. Only a parameter like the simulated model's gives the simulated model's bits.
        return nn.Parameter(weight, self.requires_grad)

    def extra_repr(self) -> str:
        """Format and shape, for ``print(model)``."""
        return f"{self.format.key}, shape={self.shape}"


def layer_kind(module: nn.Module) -> str | None:
    """Kind of a quantisable module, ``None`` for all others.

    >>> layer_kind(nn.Linear(2, 2)), layer_kind(nn.LayerNorm(2))
    ('linear', None)
    """
    return next((kind for cls, kind in _KINDS.items() if isinstance(module, cls)), None)


def find_layers(model: nn.Module, names: NameTable | None = None) -> list[Layer]:
    """Every layer whose weight can be quantised, packed ones included, in module order.

    Args:
        model: any model.
        names: how roles and blocks are told from names; by default those of VGGT and of vision transformers.

    Returns:
        One entry per layer; a module that is reachable by two names is listed once.

    >>> find_layers(nn.Sequential(nn.Linear(3, 2), nn.GELU()))
    [Layer(name='0', kind='linear', role='other', block='other', shape=(2, 3), weights=6)]
    """
    found = ((name, module, layer_kind(module)) for name, module in model.named_modules())
    names = names or NameTable()
    return [_describe(name, module, kind, names) for name, module, kind in found if kind is not None]


def out_first(weight: Tensor, kind: str) -> Tensor:
    """A module's own weight with the output channels first; a view.

    Args:
        weight: the weight in its module's layout.
        kind: kind of the layer; ``"conv_transpose2d"`` stores ``[in, out, kh, kw]``.

    >>> out_first(torch.zeros(3, 8, 2, 2), "conv_transpose2d").shape
    torch.Size([8, 3, 2, 2])
    """
    return weight.transpose(0, 1) if kind == "conv_transpose2d" else weight


def from_out_first(weight: Tensor, kind: str) -> Tensor:
    """Undo ``out_first``; contiguous, as the module's own weight is.

    >>> from_out_first(torch.zeros(8, 3, 2, 2), "conv_transpose2d").shape
    torch.Size([3, 8, 2, 2])
    """
    return out_first(weight, kind).contiguous()


def quantize_layer(module: nn.Module, key: str, name: str = "") -> QuantizedTensor:
    """Quantise the weight of a layer.

    Args:
        module: a quantisable module, not packed.
        key: key of the format.
        name: the layer, for error messages.

    Returns:
        The quantised weight, output channels first.

    Raises:
        InputError: as ``quantize``.
        TypeError: the module is not quantisable.
        ValueError: the module is packed.

    >>> quantize_layer(nn.ConvTranspose2d(3, 8, 2), "int8_per_channel_sym").shape
    (8, 3, 2, 2)
    """
    return quantize(out_first(_weight(module), _kind(module)), key, name)


def dequantize_layer(q: QuantizedTensor, module: nn.Module) -> Tensor:
    """The weight that ``q`` stands for, as ``module`` would hold it.

    Args:
        q: a quantised weight, output channels first.
        module: the layer that it belongs to, not packed.

    Returns:
        In the layout and dtype of ``module.weight``.

    Raises:
        TypeError: the module is not quantisable.
        ValueError: the module is packed, or its weight has another shape.

    >>> conv = nn.ConvTranspose2d(3, 8, 2)
    >>> dequantize_layer(quantize_layer(conv, "fp32"), conv).equal(conv.weight)
    True
    """
    _check_fits(q, module)
    return from_out_first(dequantize(q), _kind(module)).to(_weight(module).dtype)


def simulate_layer(module: nn.Module, key: str, name: str = "", channels: Tensor | None = None) -> Tensor:
    """``dequantize_layer(quantize_layer(module, key), module)``, bit for bit and faster.

    Args:
        module: a quantisable module, not packed.
        key: key of the format.
        name: the layer, for error messages.
        channels: indices of the output channels wanted; all by default.

    Returns:
        In the layout and dtype of ``module.weight``.

    Raises:
        InputError: as ``quantize``.
        TypeError: the module is not quantisable.
        ValueError: the module is packed.

    >>> conv = nn.ConvTranspose2d(3, 8, 2)
    >>> simulate_layer(conv, "int4_group_32", channels=torch.tensor([0, 5])).shape
    torch.Size([3, 2, 2, 2])
    """
    kind, weight = _kind(module), _weight(module)
    return from_out_first(simulate(out_first(weight, kind), key, name, channels), kind).to(weight.dtype)


def pack_layer(module: nn.Module, q: QuantizedTensor) -> None:
    """Keep a layer's weight packed in memory; the layer computes what it would with ``dequantize_layer(q)``.

    The parameter ``weight`` becomes ``None`` and a submodule ``packed`` holds the codes. Hooks put the
    dequantised weight into ``module.weight`` right before the layer runs and remove it right after, also
    when it fails. For inference: gradients reach the layer's input, but end at the rebuilt weight.

    Args:
        module: a quantisable module, not packed.
        q: its quantised weight, output channels first.

    Raises:
        TypeError: the module is not quantisable.
        ValueError: the module is packed already, or its weight has another shape.

    >>> linear, x = nn.Linear(2, 2, bias=False), torch.ones(1, 2)
    >>> with torch.no_grad():
    ...     _ = linear.weight.copy_(torch.tensor([[7.0, 3.4], [7.0, 0.0]]))
    >>> pack_layer(linear, quantize_layer(linear, "int4_group_32"))
    >>> linear.weight is None, linear(x).detach()
    (True, tensor([[10.,  7.]]))
    """
    _check_fits(q, module)
    packed = PackedWeight(q, _kind(module), _weight(module))
    packed.handles = (
        module.register_forward_pre_hook(_materialise),
        module.register_forward_hook(_drop, always_call=True),
    )
    module.packed = packed
    # None keeps the parameter's place: the order of parameters survives packing and unpacking.
    module.register_parameter("weight", None)


def unpack_layer(module: nn.Module, weight: nn.Parameter) -> None:
    """Undo ``pack_layer`` with a weight of the caller's choice.

    Args:
        module: a packed layer.
        weight: its new weight, in the module's own layout.

    Raises:
        ValueError: the module is not packed, or the weight has another shape.

    >>> linear = nn.Linear(2, 2)
    >>> original = linear.weight
    >>> pack_layer(linear, quantize_layer(linear, "int8_per_tensor_asym"))
    >>> unpack_layer(linear, original)
    >>> linear.weight is original
    True
    """
    packed = getattr(module, "packed", None)
    if not isinstance(packed, PackedWeight):
        raise ValueError(f"{type(module).__name__} is not packed")
    if out_first(weight, packed.kind).shape != packed.shape:
        raise ValueError(f"weight of shape {list(weight.shape)} does not fit {packed}")
    for handle in packed.handles:
        handle.remove()
    del module.packed
    module.weight = weight


@contextmanager
def replaced_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Run with other weights in some layers; the old ones are back afterwards, whatever happens.

    Nothing is copied: each parameter's ``data`` points to the new tensor for a while.

    Args:
        model: the model that holds the layers, none of them packed.
        weights: new weight per layer name, in the module's own layout.

    Yields:
        Nothing; inside the ``with`` block the model has the new weights.

    Raises:
        InputError: the model has no such layer.
        ValueError: a tensor has another shape than the weight that it replaces, or its layer is packed.

    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False))
    >>> with replaced_weights(model, {"0": torch.tensor([[3.0]])}), torch.no_grad():
    ...     model(torch.tensor([[2.0]]))
    tensor([[6.]])
    """
    parameters = {name: _weight(_submodule(model, name)) for name in weights}
    for name, parameter in parameters.items():
        if weights[name].shape != parameter.shape:
            shapes = f"{list(weights[name].shape)} for {list(parameter.shape)}"
            raise ValueError(f"weight of {name} cannot be replaced: shape {shapes}")
    originals = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = weights[name].detach().to(parameter.device, parameter.dtype)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = originals[name]


def _describe(name: str, module: nn.Module, kind: str, names: NameTable) -> Layer:
    packed = getattr(module, "packed", None)
    shape = packed.shape if isinstance(packed, PackedWeight) else tuple(out_first(_weight(module), kind).shape)
    return Layer(name, kind, names.role(name), names.block(name), shape, torch.Size(shape).numel())


def _kind(module: nn.Module) -> str:
    kind = layer_kind(module)
    if kind is None:
        known = ", ".join(cls.__name__ for cls in _KINDS)
        raise TypeError(f"{type(module).__name__} is not quantisable; quantisable are {known}")
    return kind


def _weight(module: nn.Module) -> nn.Parameter:
    weight = module.weight
    if not isinstance(weight, nn.Parameter):
        raise ValueError(f"{type(module).__name__} is packed: it has no weight of its own; unpack it first")
    return weight


def _check_fits(q: QuantizedTensor, module: nn.Module) -> None:
    shape = tuple(out_first(_weight(module), _kind(module)).shape)
    if shape != q.shape:
        owner = f"{type(module).__name__} of {shape}"
        raise ValueError(f"quantised weight of shape {q.shape} does not fit {owner}")


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        module = None
    if module is None or layer_kind(module) is None:
        raise InputError(f"the model has no quantisable layer {name!r}; is the plan for another model?")
    return module


def _materialise(module: nn.Module, _args: object) -> None:
    # Past nn.Module's own __setattr__, which admits only parameters under a parameter's name.
    assert isinstance(module.packed, PackedWeight)
    module.__dict__["weight"] = module.packed()


def _drop(module: nn.Module, _args: object, _output: object) -> None:
    module.__dict__.pop("weight", None)
