"""Evidence without a profile: bytes are exact, damage is a guess from weights, shapes and roles.

The guess for a layer is the relative squared error of its weight in a format, times what such an error did at the
outputs of the bundled network for layers of the same role (`ROLE_FACTORS`). The error is measured on a sample of the
checkpoint's own weights where that is on this machine, else on normally distributed ones, which makes the plan a matter
of bytes and roles alone. Both take seconds; neither has seen a picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mixedprec.apply import split_state
from mixedprec.evidence import Evidence
from mixedprec.plan import ANY_WEIGHTS, DATA_FREE
from vggtkit.model import stored_weights
from vggtkit.model.outputs import outputs_of_head
from vggtkit.quant import Layer, dequantize, out_first, quantize, quantized_nbytes
from vggtkit.quant import candidates as scored_formats
from vggtkit.subject import Subject, bare_subject

SAMPLED, SHAPES_ALONE = f"{DATA_FREE}, weight error", f"{DATA_FREE}, bytes and roles alone"
ROLE_FACTORS = {"patch_embed": 100.0, "attention": 4.0, "camera_head": 3.0, "depth_head": 15.0, "point_head": 15.0}
"""Damage at the outputs per relative weight error, against an MLP layer of the aggregator; 1 for roles not named.

Rounded between the medians and the means over the layers of the bundled network, see docs/methods.md. A prior, not a
measurement of your model.
"""
SAMPLE_ROWS, SAMPLE_COLUMNS = 16, 2048
NO_SCENES = "0" * 16


def data_free(source: str, subject: Subject | None = None, *, candidates: Sequence[str] | None = None) -> Evidence:
    """Evidence for planning without a profile.

    Args:
        source: as ``load_vggt`` takes it; its weights are looked at where they are on this machine.
        subject: its architecture, if at hand.
        candidates: keys of formats; by default all that profiles score.

    Returns:
        Evidence whose ``score`` says which of the two guesses it is.

    Raises:
        InputError: there is no such source.

    >>> data_free("tiny", candidates=["int4_group_128", "int8_per_channel_sym"]).score
    'data-free, weight error'
    """
    subject = bare_subject(source) if subject is None else subject
    candidates = scored_formats() if candidates is None else candidates
    model, layers = subject.model, subject.layers
    weights = stored_weights(source)
    if weights is None:
        errors, score = _gaussian_errors(layers, candidates), SHAPES_ALONE
    else:
        errors, score = _weight_errors(weights, model, layers, candidates), SAMPLED
    factors = np.array([[ROLE_FACTORS.get(layer.role, 1.0)] for layer in layers])
    damage = factors * errors / factors.sum()
    return Evidence(
        origin=f"{source} without a profile",
        facts={
            "model": source,
            "model_fingerprint": ANY_WEIGHTS,
            "scene_fingerprint": NO_SCENES,
            "weights": "trained" if score == SAMPLED else "none",
            "parameters": subject.parameters,
        },
        layers=tuple(layers),
        candidates=tuple(candidates),
        size_bytes=np.array([[quantized_nbytes(layer.shape, key) for key in candidates] for layer in layers]),
        damage={name: damage * _reached(layers, head) for head in subject.heads for name in outputs_of_head(head)},
        score=score,
    )


def _reached(layers: Sequence[Layer], head: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """1 for the layers that a head's outputs depend on: its own and the aggregator's; ``[layers, 1]``."""
    return np.array([[float(not layer.role.endswith("_head") or layer.role == f"{head}_head")] for layer in layers])


def _weight_errors(
    weights: Mapping[str, Tensor], model: nn.Module, layers: Sequence[Layer], candidates: Sequence[str]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    names, _ = split_state(model, list(layers))
    return np.array([_errors(_sample(weights[names[layer.name]], layer), candidates) for layer in layers])


def _sample(stored: Tensor, layer: Layer) -> Tensor:
    """Some rows of a weight and the first of their columns, ``[rows, columns]``, evenly spread."""
    rows = range(0, layer.shape[0], max(1, layer.shape[0] // SAMPLE_ROWS))[:SAMPLE_ROWS]
    if layer.kind == "conv_transpose2d":
        sample = torch.stack([out_first(stored, layer.kind)[row] for row in rows])
    else:
        sample = torch.cat([stored[row : row + 1] for row in rows])
    return sample.float().flatten(1)[:, :SAMPLE_COLUMNS]


def _gaussian_errors(
    layers: Sequence[Layer], candidates: Sequence[str]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Errors of normally distributed weights, made once per length of a row."""
    by_length: dict[int, list[float]] = {}
    for layer in layers:
        length = min(math.prod(layer.shape[1:]), SAMPLE_COLUMNS)
        if length not in by_length:
            generator = torch.Generator().manual_seed(length)
            by_length[length] = _errors(torch.randn(SAMPLE_ROWS, length, generator=generator), candidates)
    return np.array([by_length[min(math.prod(layer.shape[1:]), SAMPLE_COLUMNS)] for layer in layers])


def _errors(weight: Tensor, candidates: Sequence[str]) -> list[float]:
    """Relative squared error of a weight in every format."""
    energy = float(weight.square().sum()) or 1.0
    return [float((dequantize(quantize(weight, key)) - weight).square().sum()) / energy for key in candidates]
