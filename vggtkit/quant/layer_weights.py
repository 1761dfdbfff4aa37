"""Other weights in the layers of a model: quantised, simulated, packed, replaced for a while.

Two ways, bit-identical in what they compute: *simulated*, with the dequantised weight in the layer's own
parameter (``replaced_weights``), and *packed*, with only the packed codes in memory and the weight rebuilt
for the moment the layer runs (``pack_layer``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.quant.blocks import CutWeight
from vggtkit.quant.formats import get_format
from vggtkit.quant.layers import kind_of, layer_kind, own_weight, parameter_name
from vggtkit.quant.packed import PackedWeight, from_out_first, out_first, pack_parameter, unpack_parameter
from vggtkit.quant.quantizer import QuantizedTensor, dequantize, quantize
from vggtkit.quant.simulate import simulate_cut


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
    return quantize(out_first(own_weight(module), kind_of(module)), key, name)


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
    check_fits(q, module)
    return from_out_first(dequantize(q), kind_of(module)).to(own_weight(module).dtype)


def simulate_layer(module: nn.Module, key: str, name: str = "", channels: Tensor | None = None) -> Tensor:
    """``dequantize_layer(quantize_layer(module, key), module)``, bit for bit and faster.

    Args:
        module: a quantisable module, not packed.
        key: key of the format.
        name: the layer, for error messages.
        channels: ``[n]`` indices of the output channels wanted; all by default.

    Returns:
        In the layout and dtype of ``module.weight``.

    Raises:
        InputError: as ``quantize``.
        TypeError: the module is not quantisable.
        ValueError: the module is packed.

    >>> import torch
    >>> conv = nn.ConvTranspose2d(3, 8, 2)
    >>> simulate_layer(conv, "int4_group_32", channels=torch.tensor([0, 5])).shape
    torch.Size([3, 2, 2, 2])
    """
    return next(simulate_formats(module, [key], name, channels))


def simulate_formats(
    module: nn.Module, keys: Sequence[str], name: str = "", channels: Tensor | None = None
) -> Iterator[Tensor]:
    """`simulate_layer` in several formats, one after the other; what they share is done once.

    >>> [weight.shape for weight in simulate_formats(nn.Linear(3, 8), ["fp16", "int8_per_channel_sym"])]
    [torch.Size([8, 3]), torch.Size([8, 3])]
    """
    kind, weight = kind_of(module), own_weight(module)
    cut = CutWeight(out_first(weight, kind), name).look_for(map(get_format, keys))
    for key in keys:
        yield from_out_first(simulate_cut(cut, key, channels), kind).to(weight.dtype)


def pack_layer(
    module: nn.Module,
    q: QuantizedTensor,
    *,
    twins: Sequence[tuple[nn.Module, str]] = (),
    readers: Sequence[nn.Module] = (),
    execution: str | None = None,
) -> None:
    """Keep a layer's weight packed in memory; the layer computes what it would with ``dequantize_layer(q)``.

    The parameter ``weight`` becomes ``None`` and a submodule ``packed`` holds the codes. Hooks put the
    dequantised weight into ``module.weight`` right before the layer runs and remove it right after, also
    when it fails. For inference: gradients reach the layer's input, but end at the rebuilt weight.

    Args:
        module: a quantisable module, not packed.
        q: its quantised weight, output channels first.
        twins: as `twins_of` gives them, where other modules share the parameter.
        readers: as `readers_of` gives them; the module and its twins by default.
        execution: as `PackedWeight.execution`.

    Raises:
        TypeError: the module is not quantisable.
        ValueError: the module is packed already, or its weight has another shape.

    >>> import torch
    >>> linear, x = nn.Linear(2, 2, bias=False), torch.ones(1, 2)
    >>> with torch.no_grad():
    ...     _ = linear.weight.copy_(torch.tensor([[7.0, 3.4], [7.0, 0.0]]))
    >>> pack_layer(linear, quantize_layer(linear, "int4_group_32"))
    >>> linear.weight is None, linear(x).detach()
    (True, tensor([[10.,  7.]]))
    """
    check_fits(q, module)
    packed = PackedWeight(q, kind_of(module), own_weight(module), execution)
    pack_parameter(module, parameter_name(module), packed, twins=twins, readers=readers)


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
    unpack_parameter(module, weight)


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

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False))
    >>> with replaced_weights(model, {"0": torch.tensor([[3.0]])}), torch.no_grad():
    ...     model(torch.tensor([[2.0]]))
    tensor([[6.]])
    """
    parameters = {name: own_weight(_submodule(model, name)) for name in weights}
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


def check_fits(q: QuantizedTensor, module: nn.Module) -> None:
    """Refuse a quantised weight of another shape.

    Raises:
        TypeError: the module is not quantisable.
        ValueError: the module is packed, or its weight has another shape.
    """
    shape = tuple(out_first(own_weight(module), kind_of(module)).shape)
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
