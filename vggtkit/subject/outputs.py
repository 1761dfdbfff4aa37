"""What a model returns, flattened to tensors by name.

Dictionaries, dataclasses, named tuples, plain objects, lists and tuples are followed, however nested; an output is
named by its path, as ``pose.quat`` or ``0.boxes``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vggtkit.core.errors import InputError

DEEPEST = 8
"""Levels that are followed, so that an object that holds itself ends somewhere."""


class Flattened(NamedTuple):
    """The outputs of a pass.

    Attributes:
        values: floating-point tensors by path.
        left_out: what else was returned, by path, with what it is.
    """

    values: dict[str, Tensor]
    left_out: dict[str, str]


def flatten_outputs(returned: object) -> Flattened:
    """Every floating-point tensor of what a model returned.

    A single tensor is called ``output``, those of a plain tuple ``output_0`` and so on.

    Raises:
        InputError: there is none.

    >>> import torch
    >>> y = torch.zeros(2)
    >>> flatten_outputs({"pose": {"quat": y, "trans": y}, "ids": torch.ones(2, dtype=torch.int64), "aux": None})
    Flattened(values={'pose.quat': tensor([0., 0.]), 'pose.trans': tensor([0., 0.])}, left_out={'ids': 'int64 tensor'})
    >>> list(flatten_outputs([{"boxes": y}, {"boxes": y}]).values), list(flatten_outputs((y, y)).values)
    (['0.boxes', '1.boxes'], ['output_0', 'output_1'])
    """
    values: dict[str, Tensor] = {}
    left_out: dict[str, str] = {}
    for path, leaf in _leaves(returned, (), DEEPEST):
        name = _name(path)
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            values[name] = leaf if leaf.layout == torch.strided else leaf.to_dense()
        elif leaf is not None:
            left_out[name] = _described(leaf)
    if not values:
        rest = f" (it returns {', '.join(f'{name}: {what}' for name, what in left_out.items())})" if left_out else ""
        raise InputError(f"the model returns no floating-point tensor{rest}: nothing can be compared")
    return Flattened(values, left_out)


def _leaves(value: object, path: tuple[str, ...], levels: int) -> Iterator[tuple[tuple[str, ...], object]]:
    children = _children(value) if levels else None
    if children is None:
        yield path, value
        return
    for key, child in children:
        yield from _leaves(child, (*path, key), levels - 1)


def _children(value: object) -> list[tuple[str, Any]] | None:
    """What a container holds, by name; None for what is no container."""
    if value is None or isinstance(value, Tensor | str | bytes | int | float | complex):
        return None
    if isinstance(value, Mapping):
        return [(str(key), child) for key, child in value.items()]
    if hasattr(value, "_fields") and isinstance(value, tuple):
        names: Sequence[str] = getattr(value, "_fields", ())
        return list(zip(names, value, strict=True))
    if isinstance(value, list | tuple):
        return [(str(number), child) for number, child in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    attributes = getattr(value, "__dict__", None)
    if attributes and any(isinstance(child, Tensor | Mapping | list | tuple) for child in attributes.values()):
        return [(key, child) for key, child in attributes.items() if not key.startswith("_")]
    return None


def _name(path: tuple[str, ...]) -> str:
    """A path as a name: the words joined by dots; places alone are told apart from words."""
    if not path:
        return "output"
    joined = ".".join(path)
    return f"output_{joined}" if all(part.isdigit() for part in path) else joined


def _described(leaf: object) -> str:
    if isinstance(leaf, Tensor):
        return f"{str(leaf.dtype).removeprefix('torch.')} tensor"
    return type(leaf).__name__
