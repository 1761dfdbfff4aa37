"""What tuning makes small: the error of outputs, each relative to its own size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mixedprec.evidence import shares_of


def outputs_error(
    outputs: Mapping[str, Tensor], references: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """Weighted mean of the outputs' squared errors, each over its reference's: the damage, of one scene.

    Args:
        outputs: by name, with a graph.
        references: those of FP32.
        weights: what each output counts for; 1 for those not named. An output of zeros counts nothing.

    >>> float(outputs_error({"depth": torch.tensor([1.5])}, {"depth": torch.tensor([1.0])}, {}))
    0.25
    """
    shares = shares_of(references, weights)
    parts = [shares[name] * mean_relative_error([outputs[name]], [value]) for name, value in references.items()]
    return torch.stack(parts).sum()


def mean_relative_error(values: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
    """Mean over some tensors of their squared errors over the references' squares; where these are 0, nothing.

    >>> mean_relative_error([torch.tensor([3.0, 5.0])], [torch.tensor([3.0, 4.0])])
    tensor(0.0400)
    """
    errors = []
    for value, reference in zip(values, references, strict=True):
        wanted = reference.to(value.device, torch.float32)
        energy = wanted.square().sum()
        error = (value.float() - wanted).square().sum()
        errors.append(error / torch.where(energy > 0, energy, torch.inf))
    return torch.stack(errors).mean()


def weighed_error(values: Sequence[Tensor], references: Sequence[Tensor], counts: Sequence[Tensor]) -> Tensor:
    """Sum over some tensors of their squared errors, each as much as it counts.

    Args:
        values: with a graph.
        references: of the same shapes.
        counts: broadcast to these, see `mixedprec.tuning.importance`.

    >>> weighed_error([torch.tensor([3.0, 5.0])], [torch.tensor([3.0, 4.0])], [torch.tensor(2.0)])
    tensor(2.)
    """
    squares = [
        ((value.float() - reference.float()).square() * count.to(value.device)).sum()
        for value, reference, count in zip(values, references, counts, strict=True)
    ]
    return torch.stack(squares).sum()
