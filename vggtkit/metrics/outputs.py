"""The eight metrics of every output of a model against the outputs of its FP32 reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vggtkit.metrics.registry import further_values
from vggtkit.metrics.ssim import SMALLEST_MAP, SsimReference
from vggtkit.metrics.tensors import (
    ce_excess,
    cross_entropy,
    error_sums,
    metrics_from_sums,
    relative_error,
)
from vggtkit.model.outputs import OUTPUTS, PUBLISHED_OUTPUTS, Kind


@dataclass(frozen=True)
class OutputMetrics:
    """One output's distance from its FP32 reference; NaN throughout if the output is not finite.

    ``mae``, ``mse``, ``rmse`` are in the output's unit, ``psnr_db`` and ``sqnr_db`` in dB, ``ce`` and
    ``ce_excess`` in nats, ``relative_error`` and ``nmse`` are fractions. ``ssim`` is ``None`` where
    there is no image. ``extra`` holds the metrics that were registered beside these, by key, where they apply.
    """

    mae: float
    mse: float
    rmse: float
    psnr_db: float
    ce: float
    ce_excess: float
    cosine: float
    relative_error: float
    ssim: float | None
    nmse: float
    sqnr_db: float
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _View:
    """How an output is read: its distributions ``[..., n]`` and its images ``[M, H, W]``."""

    distributions: Callable[[Tensor], Tensor]
    maps: Callable[[Tensor], Tensor] | None = None


def _point_maps(points: Tensor) -> Tensor:
    """``[B, S, H, W, 3]`` as one map per frame and coordinate."""
    return points.movedim(-1, 2).flatten(0, 2)


_NOT_OUTPUTS = ("images", "pose_enc_list", "track_list")
"""What else VGGT returns: its input, and steps on the way."""

_VIEWS: dict[Kind, _View] = {
    "cameras": _View(lambda x: x),
    "depth": _View(lambda x: x.flatten(2), lambda x: x.squeeze(-1).flatten(0, 1)),
    "map": _View(lambda x: x.flatten(2), lambda x: x.flatten(0, 1)),
    "points": _View(lambda x: _point_maps(x).flatten(1), _point_maps),
    "tracks": _View(lambda x: x.movedim(-1, -2)),
    "track_scores": _View(lambda x: x),
    "values": _View(lambda x: x if x.ndim else x[None]),
}


def compare_outputs(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> dict[str, OutputMetrics]:
    """The eight metrics, and the normalised errors, of every published output.

    Args:
        reference: what the FP32 model returned: any of `OUTPUTS` as tensors (or NumPy arrays) with the
            published shapes. Other keys, and values that are not arrays, are ignored; where none of the published ones
            is there, all tensors are compared as plain numbers.
        candidate: what the quantised model returned for the same input.

    The softmax of the cross-entropy runs over the pixels of one frame (depth, confidences; world_points per
    coordinate), over the 9 numbers of one camera (pose_enc), over the query points of one frame (vis, conf;
    track per coordinate), over the last axis of an output that VGGT does not have; the mean over the rest. SSIM is
    the mean over frames (and the coordinates of world_points), each map with its own range; ``None`` for outputs that
    are no image or below 3 pixels.

    Returns:
        A dict in the order of `OUTPUTS`, or of the reference.

    Raises:
        ValueError: the two hold different outputs, or no known one, or an output's shapes differ or are not
            the published ones.

    >>> depth = torch.arange(256.0).reshape(1, 1, 16, 16, 1)
    >>> metrics = compare_outputs({"depth": depth}, {"depth": depth + 0.5})["depth"]
    >>> metrics.mae, round(metrics.psnr_db, 3), round(metrics.ssim, 4)
    (0.5, 54.151, 1.0)
    """
    references, candidates = _published(reference), _published(candidate)
    if references.keys() != candidates.keys():
        msg = f"the reference holds {_listed(references)}, the candidate {_listed(candidates)}"
        raise ValueError(msg)
    if not references:
        msg = f"nothing to compare: no tensor, say one named {', '.join(OUTPUTS)}"
        raise ValueError(msg)
    for name, values in references.items():
        _require_shape(name, values, candidates[name])
    return {name: _compare(name, references[name], candidates[name]) for name in references}


def average(scenes: Sequence[Mapping[str, OutputMetrics]]) -> dict[str, OutputMetrics]:
    """Mean over scenes of every metric of every output; each scene counts alike.

    Decibels are averaged as decibels. NaN in one scene is NaN in the mean; scenes where a metric does not
    apply (``None``) are left out, and ``None`` in all stays ``None``.

    Args:
        scenes: what `compare_outputs` returned, one per scene.

    Raises:
        ValueError: no scenes, or scenes with different outputs.

    >>> track = torch.zeros(1, 1, 4, 2)
    >>> scenes = [compare_outputs({"track": track}, {"track": track + shift}) for shift in (1.0, 3.0)]
    >>> average(scenes)["track"].mae
    2.0
    """
    if not scenes:
        msg = "no scenes to average"
        raise ValueError(msg)
    for scene in scenes:
        if scene.keys() != scenes[0].keys():
            msg = f"one scene holds {_listed(scenes[0])}, another {_listed(scene)}"
            raise ValueError(msg)
    return {name: _mean([scene[name] for scene in scenes]) for name in scenes[0]}


def _published(outputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The outputs that are compared, on the CPU, as the two models may have run on different devices."""
    arrays = {name: value for name, value in outputs.items() if isinstance(value, Tensor | np.ndarray)}
    names = [name for name in OUTPUTS if name in arrays] or [name for name in arrays if name not in _NOT_OUTPUTS]
    return {name: torch.as_tensor(arrays[name]).detach().cpu() for name in names}


def _view_of(name: str) -> _View:
    return _VIEWS[PUBLISHED_OUTPUTS[name].kind if name in PUBLISHED_OUTPUTS else "values"]


def _listed(outputs: Mapping[str, object]) -> str:
    return ", ".join(outputs) or "no output"


def _require_shape(name: str, reference: Tensor, candidate: Tensor) -> None:
    if reference.shape != candidate.shape:
        shapes = f"{tuple(reference.shape)}, the candidate {tuple(candidate.shape)}"
        msg = f"{name}: the reference has shape {shapes}"
        raise ValueError(msg)
    if name not in PUBLISHED_OUTPUTS:
        return
    expected = PUBLISHED_OUTPUTS[name].axes
    last = expected.strip("[]").split(", ")[-1]
    if reference.ndim != expected.count(",") + 1 or (last.isdigit() and reference.shape[-1] != int(last)):
        msg = f"{name}: expected shape {expected}, got {tuple(reference.shape)}"
        raise ValueError(msg)


def _compare(output: str, reference: Tensor, candidate: Tensor) -> OutputMetrics:
    view = _view_of(output)
    sums = error_sums(reference, candidate.unsqueeze(0))[0]
    values = {name: value.item() for name, value in metrics_from_sums(sums).items()}
    r, c = view.distributions(reference), view.distributions(candidate)
    return OutputMetrics(
        **values,
        ce=cross_entropy(r, c),
        ce_excess=ce_excess(r, c),
        relative_error=relative_error(reference, candidate),
        ssim=None if view.maps is None else _map_ssim(view.maps(reference), view.maps(candidate)),
        extra=further_values(output, reference, candidate),
    )


def _map_ssim(reference: Tensor, candidate: Tensor) -> float | None:
    if min(reference.shape[1:]) < SMALLEST_MAP:
        return None
    ranges = reference.amax((1, 2)) - reference.amin((1, 2))
    return SsimReference(reference, ranges).compare(candidate.unsqueeze(0)).item()


def _mean(metrics: Sequence[OutputMetrics]) -> OutputMetrics:
    means: dict[str, Any] = {
        each.name: _mean_of([getattr(one, each.name) for one in metrics])
        for each in fields(OutputMetrics)
        if each.name != "extra"
    }
    keys = dict.fromkeys(key for one in metrics for key in one.extra)
    extra = {key: _mean_of([one.extra.get(key) for one in metrics]) for key in keys}
    return OutputMetrics(**means, extra={key: value for key, value in extra.items() if value is not None})


def _mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of those that apply; None where none does."""
    there = [value for value in values if value is not None]
    # Not fmean: it refuses inf - inf, which is NaN here as everywhere.
    return sum(there) / len(there) if there else None
