"""Quantised weights as arrays of a journal's step, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from vggtkit.core.arrays import Arrays
from vggtkit.quant import QuantizedTensor

QuantizedByLayer = Mapping[str, QuantizedTensor]


def arrays_of(weights: QuantizedByLayer) -> Arrays:
    """By layer and part.

    >>> from vggtkit.quant import quantize
    >>> list(arrays_of({"fc": quantize(torch.ones(2, 2), "int4_group_32")}))
    ['fc/codes', 'fc/scales']
    """
    return {
        f"{name}/{part}": tensor.numpy(force=True)
        for name, q in weights.items()
        for part, tensor in q.tensors().items()
    }


def weights_from(arrays: Mapping[str, NDArray[Any]], like: QuantizedByLayer) -> dict[str, QuantizedTensor]:
    """Undo `arrays_of`.

    Args:
        arrays: of it.
        like: weights of the same layers, in the same formats; their biases are taken.
    """
    weights = {}
    for name, q in like.items():
        tensors = {part: torch.from_numpy(arrays[f"{name}/{part}"]).to(q.codes.device) for part in q.tensors()}
        weights[name] = replace(QuantizedTensor.from_tensors(q.format.key, q.shape, tensors), bias=q.bias)
    return weights


def with_prefix(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """The same under longer names.

    >>> list(with_prefix("best/", {"a": torch.ones(1).numpy()}))
    ['best/a']
    """
    return {f"{prefix}{name}": values for name, values in arrays.items()}


def of_prefix(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Undo `with_prefix`; others are left out.

    >>> of_prefix("best/", {"best/a": torch.ones(1).numpy(), "state/a": torch.zeros(1).numpy()})
    {'a': array([1.], dtype=float32)}
    """
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
