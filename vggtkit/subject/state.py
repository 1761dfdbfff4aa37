"""A pass that leaves no trace: what a model remembers in attributes, buffers and caches is put back afterwards.

Networks keep positions, masks, keys and values, or a whole result, from one call to the next. A measurement compares
calls, so each has to start from the same state: the one that the model had when it was given to us. That holds for
passes on the meta device above all, which would leave tensors without values behind.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.core.memory import bytes_of

MOST_BYTES = 10**8
"""Buffers and remembered tensors are copied up to this size, so that they can be put back."""

DEEPEST = 6
"""Levels of objects within objects that are followed from a module."""

_OF_EVERY_MODULE = frozenset(nn.Module().__dict__) - {"_buffers"} | {"forward"}
_CONTAINERS = (dict, list, set, deque)
_NOT_FOLLOWED = (str, bytes, int, float, complex, bool, type, type(sys), torch.dtype, torch.device, torch.Generator)


@contextmanager
def unchanged_state(model: nn.Module) -> Iterator[None]:
    """Within the block the model may remember whatever it likes; it is forgotten at the end.

    Followed are attributes, buffers, and the lists, dictionaries and plain objects in them; caches in classes and in
    the Python modules that define them are emptied of the tensors that were added. Parameters are not looked at.

    Raises:
        InputError: a tensor too large to be copied was changed in place.

    >>> class Remembers(nn.Module):
    ...     def forward(self, x):
    ...         self.last = x
    ...         return x
    >>> model = Remembers()
    >>> with unchanged_state(model):
    ...     _ = model(torch.ones(1))
    >>> hasattr(model, "last")
    False
    """
    state = _State(model)
    try:
        yield
    finally:
        state.restore()


class _State:
    """What is reachable from a model's modules, and copies of it."""

    def __init__(self, model: nn.Module) -> None:
        self.undo: list[Callable[[], None]] = []
        self.tensors: dict[int, tuple[Tensor, int]] = {}
        self.seen: set[int] = {id(parameter) for parameter in model.parameters()}
        for module in model.modules():
            self.seen.add(id(module))
        for module in model.modules():
            self._attributes(module)
        for place in _definitions(model):
            self._cache(place)
        self.with_graph = {key for key, (tensor, _) in self.tensors.items() if tensor.grad_fn is not None}
        small = sum(bytes_of(tensor) for tensor, _ in self.tensors.values()) <= MOST_BYTES
        self.copies = {key: tensor.detach().clone() for key, (tensor, _) in self.tensors.items()} if small else {}

    def restore(self) -> None:
        for undo in self.undo:
            undo()
        for key, (tensor, version) in self.tensors.items():
            if tensor._version == version:
                continue
            if key not in self.copies:
                raise InputError(
                    f"the model changes a tensor of {list(tensor.shape)} that it remembers in place in every call: "
                    "calls cannot be compared; let it make a new one"
                )
            with torch.no_grad():
                tensor.copy_(self.copies[key])
            if tensor.grad_fn is not None and key not in self.with_graph:
                tensor.detach_()  # else the next pass would be gone back through into this one

    def _attributes(self, module: nn.Module) -> None:
        attributes = {name: value for name, value in module.__dict__.items() if name not in _OF_EVERY_MODULE}

        def undo() -> None:
            now = module.__dict__
            for name in [name for name in now if name not in _OF_EVERY_MODULE and name not in attributes]:
                del now[name]
            for name, value in attributes.items():
                if now.get(name, undo) is not value:
                    now[name] = value

        self.undo.append(undo)
        for value in attributes.values():
            self._follow(value, DEEPEST)

    def _follow(self, value: object, levels: int) -> None:
        """Take note of a value and of what it holds."""
        if value is None or isinstance(value, _NOT_FOLLOWED) or id(value) in self.seen or not levels:
            return
        self.seen.add(id(value))
        if isinstance(value, Tensor):
            if not value.is_inference():
                self.tensors[id(value)] = (value, value._version)
        elif isinstance(value, _CONTAINERS):
            self.undo.append(_undo_container(value))
            for child in list(value.values() if isinstance(value, dict) else value):
                self._follow(child, levels - 1)
        elif isinstance(value, tuple):
            for child in value:
                self._follow(child, levels - 1)
        elif not isinstance(value, nn.Module) and not callable(value) and hasattr(value, "__dict__"):
            self._follow(value.__dict__, levels)

    def _cache(self, place: Any) -> None:  # noqa: ANN401
        """Containers, tensors and caches of functions in a class or a Python module; what holds no tensors stays."""
        before = dict(vars(place))

        def undo() -> None:
            for name, value in list(vars(place).items()):
                if isinstance(value, Tensor) and before.get(name) is not value:
                    setattr(place, name, before[name]) if name in before else delattr(place, name)

        self.undo.append(undo)
        for value in before.values():
            clear = getattr(value, "cache_clear", None)
            if callable(clear) and hasattr(value, "cache_info"):
                self.undo.append(_undo_calls(value, clear))
            elif type(value) in _CONTAINERS and id(value) not in self.seen:
                self.seen.add(id(value))
                self.undo.append(_undo_container(value, only_tensors=True))
            elif _is_plain(value, place) and id(value) not in self.seen:
                self.seen.add(id(value))
                self.undo.append(_undo_container(value.__dict__, only_tensors=True))


def _undo_container(value: Any, *, only_tensors: bool = False) -> Callable[[], None]:  # noqa: ANN401
    before = dict(value) if isinstance(value, dict) else list(value)

    def undo() -> None:
        same = len(value) == len(before) and all(map(_is, _flat(value), _flat(before)))
        if same or (only_tensors and not bytes_of(_flat(value))):
            return
        value.clear()
        (value.update if isinstance(value, dict | set) else value.extend)(before)

    return undo


def _is_plain(value: object, place: object) -> bool:
    """Whether a global variable is an object of a class of its own Python module, or of a thread's own variables."""
    of_place = type(value).__module__ in (getattr(place, "__name__", ""), "_thread")
    return (
        of_place
        and not isinstance(value, type | nn.Module | Tensor)
        and isinstance(getattr(value, "__dict__", None), dict)
    )


def _undo_calls(function: Any, clear: Callable[[], object]) -> Callable[[], None]:  # noqa: ANN401
    before = function.cache_info().currsize

    def undo() -> None:
        if function.cache_info().currsize != before:
            clear()

    return undo


def _flat(value: Any) -> list[object]:  # noqa: ANN401
    return [*value, *value.values()] if isinstance(value, dict) else list(value)


def _is(one: object, other: object) -> bool:
    return one is other


def _definitions(model: nn.Module) -> Iterator[object]:
    """The classes of a model's modules, and the Python modules where these are; not torch's own."""
    classes = {cls for module in model.modules() for cls in type(module).__mro__}
    foreign = [cls for cls in classes if cls.__module__.split(".")[0] not in ("torch", "builtins")]
    yield from foreign
    names = sorted({cls.__module__ for cls in foreign})
    yield from (sys.modules[name] for name in names if name in sys.modules)
