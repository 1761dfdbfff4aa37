"""From whatever a training script saved to the state dict in it, by the names that the network has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import escape
from vggtkit.model.torch_files import StandIn

ROOTS = ("aggregator", "camera_head", "point_head", "depth_head", "track_head")
"""What the names of a VGGT begin with."""

USUAL_KEYS = ("model", "state_dict", "model_state_dict", "module", "net", "network", "weights", "params")
"""Under which weights are saved; the first counts where two state dicts are equally large."""

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch's own wrappers put into the names of parameters: data parallel, compiled, sharded, checkpointed."""

COUNTERS = ("n_averaged",)
"""What lies beside the weights in a state dict and is none: how many were averaged, of torch's `AveragedModel`."""

DEEPEST = 4
"""Levels of dicts that are looked through."""


def state_in(content: object, origin: str, say: Callable[[str], None]) -> dict[str, Tensor]:
    """The largest dict of tensors in what a file holds, its names freed of what wrappers put in front.

    Args:
        content: a state dict, or nested dicts with one among them.
        origin: names the file in errors.
        say: told what was unwrapped, stripped or left out.

    Raises:
        InputError: there is no dict of tensors, or two names become one.

    >>> import torch
    >>> weights = {"module.aggregator.camera_token": torch.ones(2)}
    >>> state = state_in({"epoch": 3, "model": weights}, "last.pt", print)
    last.pt: the weights are those under 'model'
    last.pt: taken off the names of all tensors: module.
    >>> list(state)
    ['aggregator.camera_token']
    """
    if isinstance(content, StandIn):
        raise InputError(
            f"{origin}: expected a state dict of tensors, found a whole {escape(content.name)}, whose code is not run; "
            "save its state_dict() instead"
        )
    candidates = list(_dicts_of_tensors(content, (), set()))
    if not candidates:
        raise InputError(
            f"{origin}: expected a state dict of tensors, found {escape(type(content).__name__)} without any"
        )
    keys, state = max(candidates, key=_rank)
    if keys:
        say(f"{origin}: the weights are those under '{escape(' > '.join(keys))}'")
    rivals = [other for other, tensors in candidates if len(tensors) == len(state) and other != keys]
    if rivals:
        say(f"{origin}: not read, though as many tensors: {', '.join(escape(' > '.join(rival)) for rival in rivals)}")
    return _unwrapped(state, origin, say)


def _dicts_of_tensors(
    content: object, keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every dict with names of tensors, each once, and the keys that lead to it."""
    if not isinstance(content, Mapping) or len(keys) > DEEPEST or id(content) in seen:
        return
    seen.add(id(content))
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors := {key: value for key, value in tensors.items() if key not in COUNTERS}:
        yield keys, tensors
    for key, value in content.items():
        if isinstance(key, str):
            yield from _dicts_of_tensors(value, (*keys, key), seen)


def _rank(candidate: tuple[tuple[str, ...], dict[str, Tensor]]) -> tuple[bool, int, int, int]:
    """First what has names of a VGGT, then the largest, then the usual key, then the outermost."""
    keys, tensors = candidate
    is_vggt = any(root in name.split(".") for name in tensors for root in ROOTS)
    usual = -USUAL_KEYS.index(keys[-1]) if keys and keys[-1] in USUAL_KEYS else -len(USUAL_KEYS)
    return is_vggt, len(tensors), usual, -len(keys)


def _unwrapped(state: Mapping[str, Tensor], origin: str, say: Callable[[str], None]) -> dict[str, Tensor]:
    """The tensors by the names of the network."""
    names = {name: name.split(".") for name in state}
    wrapped = {part for parts in names.values() for part in parts} & set(WRAPPERS)
    names = {name: [part for part in parts if part not in WRAPPERS] for name, parts in names.items()}
    prefix = _prefix(list(names.values()))
    if others := [name for name, parts in names.items() if parts[: len(prefix)] != prefix]:
        raise InputError(
            f"{origin}: {len(others)} tensors are not called {escape('.'.join(prefix))}. like those of the network, "
            f"the first is {escape(others[0])}; save the network's state dict alone"
        )
    new_names = {name: ".".join(parts[len(prefix) :]) for name, parts in names.items()}
    if twice := [name for name, count in Counter(new_names.values()).items() if count > 1]:
        raise InputError(f"{origin}: two tensors are called {escape(twice[0])} once their prefixes are taken off")
    if removed := [*sorted(wrapped), *prefix]:
        say(f"{origin}: taken off the names of all tensors: {' '.join(escape(part) + '.' for part in removed)}")
    return {new: state[name] for name, new in new_names.items()}


def _prefix(names: list[list[str]]) -> list[str]:
    """What stands in front of the network's own names.

    >>> _prefix([["net", "vggt", "aggregator", "camera_token"], ["net", "vggt", "camera_head", "norm"]])
    ['net', 'vggt']
    """
    first = next((name for name in names if "aggregator" in name), [])
    return first[: first.index("aggregator")] if first else []
