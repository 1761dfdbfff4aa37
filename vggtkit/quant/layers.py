"""The layers of a model whose weights can be quantised.

A layer is a module's weight. Modules that hold the same parameter are one layer: it is stored once, has one format and
is replaced for all of them (`Layer.aliases`). Some modules never call the layer whose weight they read, as
``torch.nn.MultiheadAttention`` does with its output projection; what has to happen when the weight is used is then hung
on the module that reads it (`Layer.reader`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from vggtkit.core.errors import InputError
from vggtkit.model.layers import QKVProjection
from vggtkit.quant.packed import PackedWeight, out_first
from vggtkit.quant.roles import NameTable

_KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.ConvTranspose3d: "conv_transpose3d",
    QKVProjection: "attention_in",
    nn.MultiheadAttention: "attention_in",
}

_OF_ATTENTION = (nn.MultiheadAttention, nn.modules.linear.NonDynamicallyQuantizableLinear)
"""torch's attention, and what it keeps its output projection in."""


@dataclass(frozen=True)
class Layer:
    """A layer whose weight can be quantised.

    Attributes:
        name: the module's name in the model, as ``model.get_submodule`` takes it.
        kind: ``"linear"``, ``"conv2d"``, ``"conv_transpose2d"`` (and 1d, 3d), or ``"attention_in"``, the joint
            projection to queries, keys and values.
        role: ``"patch_embed"``, ``"attention"`` or ``"mlp"`` in the aggregator, else the head
            (``"camera_head"``, ``"depth_head"``, ``"point_head"``, ``"track_head"``) or ``"other"``.
        block: ``"vit.3"``, ``"frame.5"``, ``"global.5"``, ``"patch_embed"``, a head, or ``"other"``.
        shape: shape of the weight as quantised, output channels first; for a transposed convolution this
            is not the order of the module's own weight.
        weights: number of weights.
        parameter: name of the weight in its module.
        aliases: full names of further parameters that are the same object, such as ``"embed.weight"``.
        reader: name of the module in whose call the weight is used, ``""`` for the whole model; None for the layer
            itself.
    """

    name: str
    kind: str
    role: str
    block: str
    shape: tuple[int, ...]
    weights: int
    parameter: str = field(default="weight", repr=False)
    aliases: tuple[str, ...] = field(default=(), repr=False)
    reader: str | None = field(default=None, repr=False)

    @property
    def weight_name(self) -> str:
        """Full name of the weight, as ``model.get_parameter`` takes it."""
        return f"{self.name}.{self.parameter}" if self.name else self.parameter

    @property
    def is_called(self) -> bool:
        """Whether a hook on the module sees what the layer puts out."""
        return self.reader is None and self.parameter == "weight"


def layer_kind(module: nn.Module) -> str | None:
    """Kind of a quantisable module, ``None`` for all others.

    >>> layer_kind(nn.Linear(2, 2)), layer_kind(nn.LayerNorm(2))
    ('linear', None)
    """
    kind = next((kind for cls, kind in _KINDS.items() if isinstance(module, cls)), None)
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is None and "packed" not in module._modules:
        return None  # queries, keys and values of different widths: three weights of their own
    return kind


def find_layers(model: nn.Module, names: NameTable | None = None) -> list[Layer]:
    """Every layer whose weight can be quantised, packed ones included, in module order.

    Args:
        model: any model.
        names: how roles and blocks are told from names; by default those of VGGT and of vision transformers.

    Returns:
        One entry per weight; a module that is reachable by two names is listed once, and so is a parameter that
        several modules share.

    Raises:
        InputError: a weight has no shape yet (lazy modules), or is computed from others (weight norm and the like).

    >>> find_layers(nn.Sequential(nn.Linear(3, 2), nn.GELU()))
    [Layer(name='0', kind='linear', role='other', block='other', shape=(2, 3), weights=6)]
    """
    names = names or NameTable()
    layers: dict[object, Layer] = {}
    for name, module in model.named_modules():
        kind = layer_kind(module)
        weight = None if kind is None else _weight_or_packed(name, module)
        if kind is not None and weight is not None and id(weight) not in layers:
            layers[id(weight)] = _describe(name, module, kind, names)
    shared = _shared_names(model, layers)
    read = _readers(model)
    return [
        replace(layer, aliases=shared.get(key, ()), reader=read.get(layer.name))
        if key in shared or layer.name in read
        else layer
        for key, layer in layers.items()
    ]


def parameter_name(module: nn.Module) -> str:
    """Name of the weight in a quantisable module.

    >>> parameter_name(nn.Linear(2, 2)), parameter_name(nn.MultiheadAttention(4, 2))
    ('weight', 'in_proj_weight')
    """
    return "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"


def weight_of(model: nn.Module, layer: Layer) -> nn.Parameter:
    """The weight of a layer, in its module's own layout.

    Raises:
        ValueError: the layer is packed.

    >>> model = nn.Sequential(nn.Linear(3, 2))
    >>> weight_of(model, find_layers(model)[0]) is model[0].weight
    True
    """
    return own_weight(model.get_submodule(layer.name))


def own_weight(module: nn.Module) -> nn.Parameter:
    """The weight of a quantisable module.

    Raises:
        ValueError: it is packed.
    """
    weight = getattr(module, parameter_name(module))
    if not isinstance(weight, nn.Parameter):
        raise ValueError(f"{type(module).__name__} is packed: it has no weight of its own; unpack it first")
    return weight


def readers_of(model: nn.Module, layer: Layer) -> list[nn.Module]:
    """The modules in whose calls a layer's weight is used, each once."""
    names = [layer.name if layer.reader is None else layer.reader]
    names += [alias.rpartition(".")[0] for alias in layer.aliases]
    return list({id(module): module for name in names if (module := model.get_submodule(name))}.values())


def twins_of(model: nn.Module, layer: Layer) -> list[tuple[nn.Module, str]]:
    """Other modules that hold the layer's parameter, each with the parameter's name there."""
    split = (alias.rpartition(".") for alias in layer.aliases)
    return [(model.get_submodule(owner), name) for owner, _, name in split]


def kind_of(module: nn.Module) -> str:
    """Kind of a quantisable module.

    Raises:
        TypeError: it is not quantisable.
    """
    kind = layer_kind(module)
    if kind is None:
        known = ", ".join(cls.__name__ for cls in _KINDS)
        raise TypeError(f"{type(module).__name__} is not quantisable; quantisable are {known}")
    return kind


def _weight_or_packed(name: str, module: nn.Module) -> object | None:
    """What stands for a module's weight: the parameter, or what it is packed in; None for the twin of a packed one."""
    weight, packed = getattr(module, parameter_name(module)), getattr(module, "packed", None)
    if isinstance(packed, PackedWeight):
        return packed
    if isinstance(weight, UninitializedParameter):
        raise InputError(
            f"layer {name}: its weight has no shape yet (a lazy module): run the model once where it is made"
        )
    if weight is not None and not isinstance(weight, nn.Parameter):
        raise InputError(
            f"layer {name}: its weight is computed from other parameters (weight norm or another parametrization); "
            "bake it in first, with torch.nn.utils.parametrize.remove_parametrizations or remove_weight_norm"
        )
    return weight


def _describe(name: str, module: nn.Module, kind: str, names: NameTable) -> Layer:
    packed = getattr(module, "packed", None)
    shape = packed.shape if isinstance(packed, PackedWeight) else tuple(out_first(own_weight(module), kind).shape)
    label = f"{name}.in_proj" if isinstance(module, nn.MultiheadAttention) else name
    role, block = names.role(label), names.block(label)
    role = "attention" if role == "other" and isinstance(module, _OF_ATTENTION) else role
    return Layer(name, kind, role, block, shape, torch.Size(shape).numel(), parameter_name(module))


def _shared_names(model: nn.Module, layers: Mapping[object, Layer]) -> dict[object, tuple[str, ...]]:
    """Full names of further parameters that are the same object, by the identity of the weight."""
    names: dict[object, list[str]] = {}
    for owner, module in model.named_modules():
        for parameter, value in module._parameters.items():
            layer = layers.get(id(value))
            full = f"{owner}.{parameter}" if owner else parameter
            if layer is not None and full != layer.weight_name:
                names.setdefault(id(value), []).append(full)
        packed = getattr(module, "packed", None)
        if isinstance(packed, PackedWeight) and id(packed) in layers and packed.twins:
            twin_names = {id(twin): name for twin, name in packed.twins}
            names[id(packed)] = [f"{n}.{twin_names[id(m)]}" for n, m in model.named_modules() if id(m) in twin_names]
    return {key: tuple(values) for key, values in names.items()}


def _readers(model: nn.Module) -> dict[str, str]:
    """Layers whose weights are known to be read past them, with the reader."""
    return {
        f"{name}.out_proj" if name else "out_proj": name
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    }
