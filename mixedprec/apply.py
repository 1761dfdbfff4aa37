"""A model under an assignment: a simulated copy, simulated for a while, or packed for a while.

No function changes the model that it is given for good. All three compute with the numbers that a checkpoint of the
same assignment holds, bit for bit: weights quantised and dequantised, everything else rounded through the precision
that it is kept in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mixedprec.given_biases import lent, without_bias
from mixedprec.plan import KEEPS, Plan
from vggtkit.core.errors import InputError
from vggtkit.core.program import command, setting
from vggtkit.model import model_fingerprint
from vggtkit.quant import (
    Layer,
    QuantizedTensor,
    dequantize_layer,
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
from vggtkit.subject import Subject, subject_of

KEEP_DTYPES = dict(zip(KEEPS, (torch.float16, torch.float32), strict=True))

ModelT = TypeVar("ModelT", bound=nn.Module)


def apply_plan(model: ModelT, plan: Plan) -> ModelT:
    """The simulated model of a plan: its weights are what the plan's checkpoint would hold.

    Heads that the plan leaves out are left out.

    Args:
        model: the model that the plan was made for, in FP32; unchanged.
        plan: a plan.

    Returns:
        Another model with weights of its own, bit-identical to the packed one.

    Raises:
        InputError: the plan was made for other weights, does not fit the model's layers, or has its codes chosen on
            scenes, which only its checkpoint holds.
    """
    if not plan.for_any_weights and (fingerprint := model_fingerprint(model)) != plan.model_fingerprint:
        raise InputError(
            f"the plan was made for weights {plan.model_fingerprint} ({setting('model', plan.model)}), "
            f"this model has {fingerprint}; load that model unquantised, or plan again for this one"
        )
    if plan.only_in_checkpoint:
        how = "tuned" if plan.tuned else f"chosen by {plan.rounding} on profiled scenes"
        raise InputError(
            f"the plan's codes are {how}: `{command('export')}` makes their checkpoint, and load_quantized reads it"
        )
    whole = subject_of(model)
    planned: Any = whole.with_heads(plan.heads).model if whole.heads else model
    check_plan(planned, plan)
    simulated: ModelT = apply_assignment(planned, plan.formats, plan.keep)
    return simulated


def apply_assignment(model: ModelT, assignment: Mapping[str, str], keep: str = "fp16") -> ModelT:
    """A copy of a model with every weight replaced by what a checkpoint would hold, one at a time.

    Args:
        model: a model, none of its layers packed; unchanged.
        assignment: format key for every layer of ``find_layers(model)``.
        keep: precision of everything else, ``"fp16"`` or ``"fp32"``.

    Returns:
        A model of its own; what has no format of fewer bits shares memory with the original.

    Raises:
        InputError: the assignment does not fit the model's layers, or a weight cannot be held in its format.
        ValueError: a layer is packed.

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> simulated = apply_assignment(model, {"0": "int8_per_tensor_sym"})
    >>> simulated is model, simulated[0].weight is model[0].weight
    (False, False)
    """
    layers = check_assignment(model, assignment, keep)
    simulated = sharing_copy(model)
    _quantize(simulated, layers, assignment, keep)
    return simulated


def sharing_copy(model: ModelT) -> ModelT:
    """A model of the same structure with parameters and buffers of its own that share their memory.

    Giving one of them other data leaves the original as it is.

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> copied = sharing_copy(model)
    >>> copied[0].weight is model[0].weight, copied[0].weight.data_ptr() == model[0].weight.data_ptr()
    (False, True)
    """
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.data, parameter.requires_grad) for parameter in model.parameters()
    }
    memo |= {id(buffer): buffer.detach() for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


def _quantize(model: nn.Module, layers: Sequence[Layer], assignment: Mapping[str, str], keep: str) -> None:
    """Give every weight of a model other data, in place."""
    _, rest = split_state(model, layers)
    for layer in layers:
        module = model.get_submodule(layer.name)
        q = quantize_layer(module, assignment[layer.name], layer.name)
        own_weight(module).data = dequantize_layer(q, module)
    _round_rest(rest, keep)


@contextmanager
def quantized(model: ModelT, assignment: Mapping[str, str], keep: str = "fp16") -> Iterator[ModelT]:
    """The model itself under an assignment, with the original weights back afterwards, whatever happens.

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
    layers = check_assignment(model, assignment, keep)
    with _restored(model):
        _quantize(model, layers, assignment, keep)
        yield model


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
    model: nn.Module | Subject, assignment: Mapping[str, str], keep: str = "fp16"
) -> dict[str, QuantizedTensor]:
    """The quantised weight of every layer, by layer name; the model stays as it is.

    Raises:
        InputError, ValueError: as `apply_assignment`.

    >>> weights = quantized_weights(nn.Sequential(nn.Linear(2, 2)), {"0": "int4_group_32"})
    >>> weights["0"].nbytes
    6
    """
    layers, module = check_assignment(model, assignment, keep), subject_of(model).model
    return {
        layer.name: quantize_layer(module.get_submodule(layer.name), assignment[layer.name], layer.name)
        for layer in layers
    }


@contextmanager
def packed_with(
    model: nn.Module | Subject, weights: Mapping[str, QuantizedTensor], keep: str = "fp16"
) -> Iterator[nn.Module]:
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
    whole = subject_of(model).model
    bare = {layer.name for layer in without_bias(whole, layers)}
    with _restored(whole), ExitStack() as packed_layers:
        for layer in layers:
            if layer.name in bare and (bias := weights[layer.name].bias) is not None:
                packed_layers.enter_context(lent(whole, layer, bias))
        _, rest = split_state(whole, layers)
        for layer in layers:
            module, q = whole.get_submodule(layer.name), weights[layer.name]
            if q.bias is not None and layer.name not in bare:
                own = module.get_parameter("bias")
                own.data = q.bias.to(own)
            if q.format.key != "fp32":
                original = own_weight(module)
                pack_layer(module, q, twins=twins_of(whole, layer), readers=readers_of(whole, layer))
                packed_layers.callback(unpack_layer, module, original)
        _round_rest(rest, keep)
        yield whole


def check_plan(model: nn.Module | Subject, plan: Plan) -> None:
    """Refuse a plan that does not fit the model's layers, or whose bytes are not those of its formats.

    Whether it was made for these weights is not asked here; hashing them takes time.

    Raises:
        InputError: the message names the layer.
    """
    for layer in check_assignment(model, plan.formats, plan.keep):
        _check_planned_bytes(layer, plan)


def check_assignment(model: nn.Module | Subject, assignment: Mapping[str, str], keep: str) -> list[Layer]:
    """The model's layers, if the assignment gives each of them, and nothing else, a known format.

    Raises:
        InputError: it does not, or ``keep`` is unknown.

    >>> [layer.name for layer in check_assignment(nn.Sequential(nn.Linear(2, 2)), {"0": "fp16"}, "fp16")]
    ['0']
    """
    if keep not in KEEPS:
        raise InputError(f"keep is {keep!r}, must be one of {', '.join(KEEPS)}")
    layers = list(subject_of(model).layers)
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


def split_state(model: nn.Module, layers: Sequence[Layer]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The state dict in two: the weight's official name by layer, and all other tensors by official name.

    A module's weight may have another name in files than in the model, so it is found by identity; a tensor that stands
    there under several names counts once, under the first.

    Raises:
        ValueError: a layer is packed.

    >>> from vggtkit.quant import find_layers
    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> weights, rest = split_state(model, find_layers(model))
    >>> weights, list(rest)
    ({'0': '0.weight'}, ['0.bias'])
    """
    official: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            official.setdefault(id(tensor), (name, tensor))
    weights = {layer.name: official[id(weight_of(model, layer))][0] for layer in layers}
    quantisable = set(weights.values())
    return weights, {name: tensor for name, tensor in official.values() if name not in quantisable}


def stored_value(name: str, tensor: Tensor, keep: str) -> Tensor:
    """What a file holds of a tensor that is not quantised; whole numbers stay what they are.

    Raises:
        InputError: NaN or Inf, or more than FP16 can hold.

    >>> stored_value("bias", torch.tensor([0.1]), "fp16")
    tensor([0.1000], dtype=torch.float16)
    """
    tensor = tensor.detach()
    if not tensor.is_floating_point():
        return tensor
    value = tensor.to(KEEP_DTYPES[keep])
    if not bool(value.isfinite().all()):
        if bool(tensor.isfinite().all()):
            largest = float(tensor.abs().max())
            raise InputError(f"{name} reaches {largest:.6g}, more than FP16 holds: keep it in fp32")
        raise InputError(f"{name} contains NaN or Inf: the checkpoint is damaged, fetch or train it again")
    return value


def _round_rest(rest: Mapping[str, Tensor], keep: str) -> None:
    for name, tensor in rest.items():
        if tensor.is_floating_point():
            tensor.data = stored_value(name, tensor, keep).to(tensor.dtype)


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
    state = model.state_dict(keep_vars=True).values()
    originals = [(tensor, tensor.data) for tensor in state if isinstance(tensor, Tensor)]
    try:
        yield
    finally:
        for tensor, data in originals:
            tensor.data = data
