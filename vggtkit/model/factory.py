"""Any torch module as a model: made by a function that the user names, fed by another."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError

_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_factory(source: str) -> bool:
    """Whether a source names a function, as ``package.module:function``.

    >>> is_factory("my_models.dpt:build"), is_factory("facebook/VGGT-1B"), is_factory("photos:holiday/day one")
    (True, False, False)
    """
    return _PLACE.fullmatch(source) is not None


def load_custom(source: str, device: str | torch.device = "cpu") -> nn.Module:
    """Call the function that makes a model, without arguments.

    Args:
        source: ``package.module:function``; modules of the current folder are found.
        device: where the model ends up.

    Returns:
        The model in eval mode.

    Raises:
        InputError: there is no such function, it fails, or it makes no module with parameters.

    >>> load_custom("torch.nn:Identity")
    Traceback (most recent call last):
    vggtkit.core.errors.InputError: --model torch.nn:Identity: made Identity, which has no parameters
    """
    model = _called("--model", source)
    if not isinstance(model, nn.Module):
        raise InputError(f"--model {source}: made {type(model).__name__}, which is no torch.nn.Module")
    if next(model.parameters(), None) is None:
        raise InputError(f"--model {source}: made {type(model).__name__}, which has no parameters")
    return model.to(device).eval()


def load_inputs(source: str, count: int) -> list[tuple[Tensor, ...]]:
    """What a model is to be called with: the first items that a function yields.

    Args:
        source: ``package.module:function``; every item is a tensor or a tuple of tensors, one call of the model.
        count: items taken.

    Raises:
        InputError: there is no such function, it fails, or it yields no tensors.
    """
    found = _called("--inputs", source)
    if not isinstance(found, Iterable) or isinstance(found, Tensor):
        raise InputError(f"--inputs {source}: returned {type(found).__name__}; it must yield tensors, a scene each")
    items = [(item,) if isinstance(item, Tensor) else item for item in islice(found, count)]
    for item in items:
        if not isinstance(item, tuple | list) or not item or not all(isinstance(value, Tensor) for value in item):
            raise InputError(
                f"--inputs {source}: yielded {type(item).__name__}; it must yield tensors or tuples of them"
            )
    if not items:
        raise InputError(f"--inputs {source}: yielded nothing")
    return [tuple(item) for item in items]


def _called(option: str, source: str) -> Any:  # noqa: ANN401
    """What the function returns."""
    module, _, name = source.partition(":")
    if not is_factory(source):
        raise InputError(f"{option} {source}: give package.module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        function: Callable[[], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{option} {source}: cannot be imported ({error}); is its folder on PYTHONPATH?") from error
    try:
        return function()
    except Exception as error:  # the user's own code may raise anything
        raise InputError(f"{option} {source}: failed with {type(error).__name__}: {error}") from error
