"""The weights of an assignment, rounded with what is known of the layers' inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from mixedprec.apply import check_assignment
from sensitivity.moments import Moments
from vggtkit.quant import QuantizedTensor, get_format, out_first, own_weight
from vggtkit.quant.rounding import Rounding
from vggtkit.subject import Subject, subject_of

UNKNOWN = "what its weight is multiplied by is not seen"
UNUSABLE = "its inputs are all zeros, or not finite"


@dataclass(frozen=True)
class Rounded:
    """Quantised weights, and where they had to be made without their inputs.

    Attributes:
        weights: by layer name.
        fell_back: why a layer was rounded without calibration, by layer name.
    """

    weights: Mapping[str, QuantizedTensor]
    fell_back: Mapping[str, str]


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
        key, known = assignment[layer.name], None if moments is None else moments.get(layer.name)
        if rounding.needs and known is None and not get_format(key).is_float:
            fell_back[layer.name] = UNUSABLE if moments and layer.name in moments.modules else UNKNOWN
        weight = out_first(own_weight(module.get_submodule(layer.name)), layer.kind)
        weights[layer.name] = rounding.round(weight, key, known, layer.name)
        on_layer(layer.name)
    return Rounded(weights, fell_back)
