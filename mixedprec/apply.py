"""Put an assignment into a model: for good, for a while, or packed for a while.

All three compute with the numbers that a checkpoint of the same assignment holds, bit for bit: weights
quantised and dequantised, everything else rounded through the precision that it is kept in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from mixedprec.plan import KEEPS, Plan
from vggtkit.core.errors import InputError
from vggtkit.model import VGGT, model_fingerprint
from vggtkit.quant import (
    Layer,
    QuantizedTensor,
    dequantize_layer,
    find_layers,
    get_format,
    own_weight,
    pack_layer,
    quantize_layer,
    quantized_nbytes,
    readers_of,
    scale_count,
    twins_of,
    unpack_layer,
    weight_of,
)

KEEP_DTYPES = dict(zip(KEEPS, (torch.float16, torch.float32), strict=True))

ModelT = TypeVar("ModelT", bound=nn.Module)


def apply_plan(model: ModelT, plan: Plan) -> ModelT:
    """Replace the weights of the plan's own model by what the plan's checkpoint would hold, in place.

    Heads that the plan leaves out are dropped.

    Args:
        model: the model that the plan was made for, in FP32.
        plan: a plan.

    Returns:
        The same model, now simulating the packed one.

    Raises:
        InputError: the plan was made for other weights, or does not fit the model's layers.
    """
    if not plan.for_any_weights and (fingerprint := model_fingerprint(model)) != plan.model_fingerprint:
        raise InputError(
            f"the plan was made for weights {plan.model_fingerprint} (--model {plan.model}), "
            f"this model has {fingerprint}; load that model unquantised, or plan again for this one"
        )
    if isinstance(model, VGGT):
        model.keep_heads(plan.heads)
    check_plan(model, plan)
    return apply_assignment(model, plan.formats, plan.keep)


def apply_assignment(model: ModelT, assignment: Mapping[str, str], keep: str = "fp16") -> ModelT:
    """Replace every weight by what a checkpoint would hold, in place, one at a time.

    Parameters stay the same objects; only their data is replaced.

    Args:
        model: a model, none of its layers packed.
        assignment: format key for every layer of ``find_layers(model)``.
        keep: precision of everything else, ``"fp16"`` or ``"fp32"``.

    Returns:
        The same model.

    Raises:
        InputError: the assignment does not fit the model's layers (nothing is changed then), or a weight
            cannot be held in its format (the model is half changed then: load it again, or use `quantized`).
        ValueError: a layer is packed.

    >>> model = apply_assignment(nn.Sequential(nn.Linear(2, 2)), {"0": "int8_per_tensor_sym"})
    >>> model[0].weight.unique().numel() <= 255
    True
    """
    layers = check_assignment(model, assignment, keep)
    _, kept = split_state(model, layers)
    for layer in layers:
        module = model.get_submodule(layer.name)
        q = quantize_layer(module, assignment[layer.name], layer.name)
        own_weight(module).data = dequantize_layer(q, module)
    _round_kept(kept, keep)
    return model


@contextmanager
def quantized(model: ModelT, assignment: Mapping[str, str], keep: str = "fp16") -> Iterator[ModelT]:
    """As `apply_assignment`, with the original weights back afterwards, whatever happens.

    The originals are kept as references: both sets of weights are in memory inside the ``with`` block.

    Raises:
        InputError, ValueError: as `apply_assignment`; the model is unchanged then.

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> before = model[0].weight.clone()
    >>> with quantized(model, {"0": "int4_group_32"}):
    ...     changed = not model[0].weight.equal(before)
    >>> changed, model[0].weight.equal(before)
    (True, True)
    """
    with _restored(model):
        yield apply_assignment(model, assignment, keep)


@contextmanager
def packed(model: ModelT, assignment: Mapping[str, str], keep: str = "fp16") -> Iterator[ModelT]:
    """Run with every weight packed, as a loaded checkpoint does; the original weights are back afterwards.

    A layer at ``fp32`` has nothing to unpack and runs as it is.

    Raises:
        InputError, ValueError: as `apply_assignment`; the model is unchanged then.

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> with packed(model, {"0": "int4_group_32"}):
    ...     print(model[0].weight)
    None
    """
    with packed_with(model, quantized_weights(model, assignment, keep), keep):
        yield model


def quantized_weights(
    model: nn.Module, assignment: Mapping[str, str], keep: str = "fp16"
) -> dict[str, QuantizedTensor]:
    """The quantised weight of every layer, by layer name; the model stays as it is.

    Raises:
        InputError, ValueError: as `apply_assignment`.

    >>> weights = quantized_weights(nn.Sequential(nn.Linear(2, 2)), {"0": "int4_group_32"})
    >>> weights["0"].nbytes
    6
    """
    layers = check_assignment(model, assignment, keep)
    return {
        layer.name: quantize_layer(model.get_submodule(layer.name), assignment[layer.name], layer.name)
        for layer in layers
    }


@contextmanager
def packed_with(model: ModelT, weights: Mapping[str, QuantizedTensor], keep: str = "fp16") -> Iterator[ModelT]:
    """As `packed`, with weights that `quantized_weights` made before; entering costs next to nothing.

    Raises:
        InputError, ValueError: as `apply_assignment`; the model is unchanged then.

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> weights = quantized_weights(model, {"0": "int4_group_32"})
    >>> with packed_with(model, weights):
    ...     print(model[0].weight)
    None
    """
    layers = check_assignment(model, {name: q.format.key for name, q in weights.items()}, keep)
    _, kept = split_state(model, layers)
    with _restored(model), ExitStack() as packed_layers:
        for layer in layers:
            module, q = model.get_submodule(layer.name), weights[layer.name]
            if q.format.key != "fp32":
                original = own_weight(module)
                pack_layer(module, q, twins=twins_of(model, layer), readers=readers_of(model, layer))
                packed_layers.callback(unpack_layer, module, original)
        _round_kept(kept, keep)
        yield model


def check_plan(model: nn.Module, plan: Plan) -> None:
    """Refuse a plan that does not fit the model's layers, or whose bytes are not those of its formats.

    Whether it was made for these weights is not asked here; hashing them takes time.

    Raises:
        InputError: the message names the layer.
    """
    for layer in check_assignment(model, plan.formats, plan.keep):
        _check_planned_bytes(layer, plan)


def check_assignment(model: nn.Module, assignment: Mapping[str, str], keep: str) -> list[Layer]:
    """The model's layers, if the assignment gives each of them, and nothing else, a known format.

    Raises:
        InputError: it does not, or ``keep`` is unknown.

    >>> [layer.name for layer in check_assignment(nn.Sequential(nn.Linear(2, 2)), {"0": "fp16"}, "fp16")]
    ['0']
    """
    if keep not in KEEPS:
        raise InputError(f"keep is {keep!r}, must be one of {', '.join(KEEPS)}")
    layers = find_layers(model)
    names = {layer.name for layer in layers}
    if missing := [layer.name for layer in layers if layer.name not in assignment]:
        raise InputError(
            f"{len(missing)} of the model's {len(layers)} layers have no format, first {missing[0]!r}; "
            "is the plan for another model?"
        )
    if unexpected := [name for name in assignment if name not in names]:
        raise InputError(
            f"{len(unexpected)} layers with a format are not in the model, first {unexpected[0]!r}; "
            "is the plan for another model?"
        )
    for key in assignment.values():
        get_format(key)
    return layers


def split_state(model: nn.Module, layers: list[Layer]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The state dict in two: the weight's official name by layer, and all other tensors by official name.

    A module's weight may have another name in files than in the model, so it is found by identity.

    Raises:
        ValueError: a layer is packed.

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> weights, kept = split_state(model, find_layers(model))
    >>> weights, list(kept)
    ({'0': '0.weight'}, ['0.bias'])
    """
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    official = {id(tensor): name for name, tensor in state.items()}
    weights = {layer.name: official[id(weight_of(model, layer))] for layer in layers}
    quantisable = set(weights.values())
    return weights, {name: tensor for name, tensor in state.items() if name not in quantisable}


def kept_value(name: str, tensor: Tensor, keep: str) -> Tensor:
    """What a file holds of a tensor that is not quantised.

    Raises:
        InputError: NaN or Inf, or more than FP16 can hold.

    >>> kept_value("bias", torch.tensor([0.1]), "fp16")
    tensor([0.1000], dtype=torch.float16)
    """
    tensor = tensor.detach()
    value = tensor.to(KEEP_DTYPES[keep])
    if not bool(value.isfinite().all()):
        if bool(tensor.isfinite().all()):
            largest = float(tensor.abs().max())
            raise InputError(f"{name} reaches {largest:.6g}, more than FP16 holds: keep it in fp32")
        raise InputError(f"{name} contains NaN or Inf: the checkpoint is damaged, fetch or train it again")
    return value


def _round_kept(kept: Mapping[str, Tensor], keep: str) -> None:
    for name, tensor in kept.items():
        tensor.data = kept_value(name, tensor, keep).to(tensor.dtype)


def _check_planned_bytes(layer: Layer, plan: Plan) -> None:
    """Refuse a plan whose format of a layer cannot take the bytes that it counts for it."""
    fmt, planned = get_format(plan.formats[layer.name]), plan.layer_bytes[layer.name]
    with_fp16_scales = quantized_nbytes(layer.shape, fmt.key)
    if planned not in (with_fp16_scales, with_fp16_scales + 2 * scale_count(layer.shape, fmt.key)):
        raise InputError(
            f"the plan counts {planned} bytes for {layer.name} at {fmt.key}, which takes {with_fp16_scales}; "
            "it was changed by hand or made by another version, make it again"
        )


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Put the data of all parameters and buffers back afterwards."""
    originals = [(tensor, tensor.data) for tensor in model.state_dict(keep_vars=True).values()]
    try:
        yield
    finally:
        for tensor, data in originals:
            tensor.data = data
