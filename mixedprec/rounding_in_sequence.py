"""The weights of an assignment, each rounded for what the quantised layers before it put out, kept as it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mixedprec.apply import check_assignment
from mixedprec.rounding import Rounded
from mixedprec.rounding_in_passes import KeptLayers, RoundedLayer
from sensitivity.moments import UNREACHED, UNSEEN, ZEROS_OR_NOT_FINITE
from sensitivity.paired_moments import Calls
from vggtkit.core.journal import Parts
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant import Layer, QuantizedTensor, dequantize_layer, get_format, out_first, weight_of
from vggtkit.quant.rounding import Rounding, aimed_at_exact_outputs
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, subject_of


def sequentially_rounded(
    model: nn.Module | Subject,
    assignment: Mapping[str, str],
    rounding: Rounding,
    scenes: Sequence[Scene],
    *,
    keep: str = "fp16",
    parts: Parts | None = None,
    progress: Progress = silent,
) -> Rounded:
    """Round every weight for what the layers before it put out once they are quantised; the model stays as it is.

    A layer is aimed at its exact outputs from the inputs that it will be given
    (`vggtkit.quant.rounding.gptq.aimed_at_exact_outputs`). Each layer is rounded before the next is looked at: of two
    that are aimed at once, the second would make up a second time for what the first does.

    Args:
        model: not packed.
        assignment: format key for every layer.
        rounding: one that needs the ``"sequence"``.
        scenes: to calibrate with; every layer runs the model up to it twice on each.
        keep: precision of everything else.
        parts: where layers that are done are kept, and taken from.
        progress: told about every layer.

    Raises:
        InputError: as `mixedprec.rounding.rounded_weights`.
    """
    layers, subject = check_assignment(model, assignment, keep), subject_of(model)
    kept = KeptLayers(subject, {layer.name: layer for layer in layers}, assignment, parts)
    calls, quantized = Calls(subject, layers, scenes[0]), dict[str, Tensor]()

    def finish(name: str, q: QuantizedTensor, reason: str) -> None:
        kept.add(name, RoundedLayer(q, "" if q.format.is_float else reason, (0, 0)))
        progress(f"rounding by {rounding.key}", len(kept.done), len(layers))

    for name in calls.counts:
        if name not in kept.done:
            finish(name, *_next(subject, kept.layers[name], assignment[name], rounding, calls, scenes, quantized))
        quantized[name] = dequantize_layer(kept.done[name].q, subject.model.get_submodule(name))
    for name, layer in kept.layers.items():
        if name not in kept.done:
            weight = out_first(weight_of(subject.model, layer), layer.kind)
            reason = UNREACHED if name in calls.modules else UNSEEN
            finish(name, rounding.round(weight, assignment[name], None, name), reason)
    return kept.rounded()


def _next(
    subject: Subject, layer: Layer, key: str, rounding: Rounding, calls: Calls, scenes: Sequence[Scene],
    quantized: Mapping[str, Tensor],
) -> tuple[QuantizedTensor, str]:  # fmt: skip
    """A layer for what the quantised ones before it put out, and why it was rounded without calibration."""
    own, cross = calls.moments([layer.name], scenes, quantized)[layer.name]
    usable = bool(own.isfinite().all() and cross.isfinite().all() and own.any())
    weight = out_first(weight_of(subject.model, layer), layer.kind)
    aimed = _aimed(weight, own, cross) if usable and not get_format(key).is_float else weight
    return rounding.round(aimed, key, own if usable else None, layer.name), "" if usable else ZEROS_OR_NOT_FINITE


def _aimed(weight: Tensor, own: Tensor, cross: Tensor) -> Tensor:
    """The weight that is to be rounded, part by part."""
    matrix = weight.detach().float().flatten(1)
    parts = zip(matrix.chunk(len(own)), own, cross, strict=True)
    return torch.cat([aimed_at_exact_outputs(*part) for part in parts]).view(weight.shape)
