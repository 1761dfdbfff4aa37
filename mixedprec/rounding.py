"""The weights of an assignment, rounded with what is known of the layers' inputs: all at once, or one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mixedprec.apply import check_assignment
from mixedprec.given_biases import without_bias
from sensitivity.moments import UNSEEN, Moments
from vggtkit.quant import (
    Layer,
    QuantizedTensor,
    dequantize,
    get_format,
    out_first,
    own_weight,
)
from vggtkit.quant.rounding import Rounding
from vggtkit.subject import Subject, subject_of


@dataclass(frozen=True)
class Rounded:
    """Quantised weights, and where they had to be made without their inputs.

    Attributes:
        weights: by layer name.
        fell_back: why a layer was rounded without calibration, by layer name.
        few_rows: of layers that were calibrated on fewer rows than they have inputs, both numbers.
    """

    weights: Mapping[str, QuantizedTensor]
    fell_back: Mapping[str, str]
    few_rows: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def rounded_weights(
    model: nn.Module | Subject,
    assignment: Mapping[str, str],
    rounding: Rounding,
    moments: Moments | None = None,
    *,
    keep: str = "fp16",
    on_layer: Callable[[str], None] = lambda _: None,
) -> Rounded:
    """Round every weight of a model; the model stays as it is.

    Args:
        model: not packed.
        assignment: format key for every layer.
        rounding: how.
        moments: of the layers' inputs, see `sensitivity.moments`; needed where ``rounding.needs`` says so.
        keep: precision of everything else.
        on_layer: called with the name of every layer that is done.

    Raises:
        InputError: the assignment does not fit the model's layers, or a weight cannot be held in its format.

    >>> from vggtkit.quant.rounding import ROUNDINGS
    >>> rounded = rounded_weights(nn.Sequential(nn.Linear(2, 2)), {"0": "int4_group_32"}, ROUNDINGS["nearest"])
    >>> rounded.weights["0"].nbytes, rounded.fell_back
    (6, {})
    """
    layers, module = check_assignment(model, assignment, keep), subject_of(model).model
    weights, fell_back = {}, {}
    for layer in layers:
        weights[layer.name], reason = rounded_layer(module, layer, assignment[layer.name], rounding, moments)
        if reason:
            fell_back[layer.name] = reason
        on_layer(layer.name)
    return Rounded(weights, fell_back)


def rounded_layer(
    model: nn.Module, layer: Layer, key: str, rounding: Rounding, moments: Moments | None
) -> tuple[QuantizedTensor, str]:
    """One weight of a model, and why it was rounded without calibration; empty if it was not.

    Args:
        model: not packed.
        layer: of it.
        key: of its format.
        rounding: how.
        moments: of the inputs of some layers, this one among them; None for none.
    """
    known = None if moments is None else moments.get(layer.name)
    channels = None if moments is None else moments.channels.get(layer.name)
    weight = out_first(own_weight(model.get_submodule(layer.name)), layer.kind)
    q = rounding.round(weight, key, known, layer.name, channels)
    if rounding.corrects_bias:
        mean = None if moments is None or known is None else moments.mean(layer.name)
        q = _with_bias(q, model, layer, mean)
    if not rounding.needs or known is not None or get_format(key).is_float:
        return q, ""
    return q, UNSEEN if moments is None else moments.why_unusable(layer.name)


def _with_bias(q: QuantizedTensor, model: nn.Module, layer: Layer, mean: Tensor | None) -> QuantizedTensor:
    """The mean error of each output channel, ``(Q - W) mean(x)``, taken off the bias.

    A layer without one is given one (`mixedprec.given_biases`), of zeros where the mean row is not known. One that
    several layers share stays as it is, and the layers keep their mean errors.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019.
    """
    module = model.get_submodule(layer.name)
    weight, bias = own_weight(module), getattr(module, "bias", None)
    if without_bias(model, [layer]):
        bias = weight.new_zeros(layer.shape[0])
        q = replace(q, bias=bias)
    elif bias is None or sum(value is bias for m in model.modules() for value in m._parameters.values()) != 1:
        return q
    if mean is None or q.format.is_float:
        return q
    error = (dequantize(q) - out_first(weight, layer.kind).detach().float()).flatten(1)
    off = torch.cat([part @ x for part, x in zip(error.chunk(len(mean)), mean, strict=True)])
    return replace(q, bias=bias.detach() - off.to(bias))
