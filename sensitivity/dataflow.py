"""Which modules of a foreign model may be gone back through one at a time, seen in one pass.

A *segment* (`sensitivity.segments`) is computed without a graph and once more on the way back. That is right only if
all that it is given and all that it hands on is seen. Here a pass keeps autograd's graph, but none of the tensors that
the graph would need, so it takes no more memory than a plain pass; then the graph says what went where:

- walked back from what a module handed on, everything must end at what it was given, or at parameters;
- walked back from the outputs of the model, nothing inside a module may be met except through what it handed on.

Whatever is passed past that, in an object that nobody can look into, an attribute, a closure or a global variable,
breaks one of the two, and the module is differentiated as part of the whole. So does a module that changes what it was
given, or that takes or returns what is neither a tensor nor a constant.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks
from torch.nn.modules._functions import BackwardHookFunction
from torch.utils._pytree import tree_flatten

from vggtkit.runtime.forwards import replaced_forward

Edge = tuple[Any, int]
"""A node of autograd's graph and the number of one of its outputs."""

_CONSTANTS = (
    type(None), bool, int, float, complex, str, bytes, slice, range, enum.Enum, torch.dtype, torch.device,
    torch.Size, torch.layout, torch.memory_format, type(Ellipsis),
)  # fmt: skip


@dataclass
class _Call:
    """One call of a candidate."""

    name: str
    start: int
    end: int = 0
    given: set[Edge] = field(default_factory=set)
    handed_on: set[Edge] = field(default_factory=set)
    versions: list[tuple[Tensor, int]] = field(default_factory=list)
    entries: set[Edge] = field(default_factory=set)
    leaves: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Dataflow:
    """What a pass shows.

    Attributes:
        segments: names of the modules that may be gone back through alone.
        unsound: why each of the others may not.
        reused: segments whose tensors are worked on in place by what comes before or after them.
        places: by number of a weight, the segments in which it is used, and None where it is used outside of them.
        functions: names of ``torch.autograd.Function`` that the model brings itself, and so their derivatives.
    """

    segments: tuple[str, ...]
    unsound: Mapping[str, str]
    reused: frozenset[str]
    places: tuple[frozenset[str | None], ...]
    functions: frozenset[str] = frozenset()


def observe(
    candidates: Mapping[str, nn.Module], weights: Sequence[nn.Parameter], run: Callable[[], Iterable[Tensor]]
) -> Dataflow:
    """Run a model once and follow its gradients.

    Args:
        candidates: modules that may become segments, by name; none inside another.
        weights: those that require gradients.
        run: runs the model and returns its outputs.

    Raises:
        Exception: whatever the model raises.
    """
    watch = _Watch()
    with ExitStack() as undo:
        undo.enter_context(torch.enable_grad())
        undo.enter_context(saved_tensors_hooks(lambda _: None, _never))
        for name, module in candidates.items():
            undo.enter_context(replaced_forward(module, partial(watch.call, name, module.forward)))
        outputs = [edge for value in run() if (edge := _edge(value)) is not None]
    return watch.conclude([*candidates], outputs, [id(weight) for weight in weights])


class _Watch:
    """The calls of candidates, and what is wrong with them."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.unsound: dict[str, str] = {}
        self.functions: set[str] = set()
        self.inside = False
        self.counter = torch.zeros((), requires_grad=True)

    def call(self, name: str, forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        """A candidate's ``forward``."""
        if self.inside:  # part of the one around it
            return forward(*arguments, **keywords)
        call = _Call(name, self._now())
        before, spec = tree_flatten((arguments, keywords))
        tensors = [value for value in before if isinstance(value, Tensor)]
        call.given = {edge for value in tensors if (edge := _edge(value)) is not None}
        call.versions = [(value, _version(value)) for value in tensors]
        self.inside = True
        try:
            output = forward(*arguments, **keywords)
        finally:
            self.inside = False
        after, spec_after = tree_flatten((arguments, keywords))
        returned, _ = tree_flatten(output)
        if any(_version(value) != version for value, version in call.versions):
            self._refuse(name, "works in place on what it is given")
        if spec_after != spec or any(a is not b for a, b in zip(after, before, strict=True)):
            self._refuse(name, "changes what it is given")
        for what, values in (("is given", before), ("returns", returned)):
            if opaque := [value for value in values if not isinstance(value, (Tensor, *_CONSTANTS))]:
                self._refuse(name, f"{what} a {type(opaque[0]).__name__}, which nobody can look into")
        handed_on = [value for value in returned if isinstance(value, Tensor)]
        if any(value.is_leaf and value.requires_grad for value in handed_on):
            self._refuse(name, "returns a parameter")
        call.end = self._now()
        call.handed_on = {edge for value in handed_on if (edge := _edge(value)) is not None}
        call.versions += [(value, _version(value)) for value in handed_on]
        self.calls.append(call)
        return output

    def conclude(self, names: Sequence[str], outputs: Sequence[Edge], weights: Sequence[int]) -> Dataflow:
        """Judge the candidates."""
        for call in self.calls:
            self._walk_inside(call)
        while True:
            known = len(self.unsound)
            reached, outside = self._walk_outside(outputs)
            if len(self.unsound) == known:
                break
        places: dict[int, set[str | None]] = {leaf: {None} for leaf in outside}
        for call in reached:
            for leaf in call.leaves:
                places.setdefault(leaf, set()).add(call.name)
        reused = {c.name for c in self.calls if any(_version(value) != version for value, version in c.versions)}
        called = {call.name for call in self.calls}
        sound = tuple(name for name in names if name not in self.unsound and name in called)
        return Dataflow(
            sound, self.unsound, frozenset(reused & set(sound)),
            tuple(frozenset(places.get(weight, ())) for weight in weights), frozenset(self.functions),
        )  # fmt: skip

    def _walk_inside(self, call: _Call) -> None:
        """From what a call handed on to what it was given."""
        for node in _walk(call.handed_on - call.given, lambda edge: edge in call.given, call.entries):
            self._note(node)
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                call.leaves.add(id(leaf))
            elif _number(node) < call.start:
                self._refuse(call.name, "reads a tensor that it is not given")
                return

    def _walk_outside(self, outputs: Sequence[Edge]) -> tuple[list[_Call], set[int]]:
        """From the outputs of the model through what lies between segments: the calls and leaves that are reached."""
        calls = [call for call in self.calls if call.name not in self.unsound]
        made = {edge: call for call in calls for edge in call.handed_on - call.given}
        reached: dict[int, _Call] = {}
        leaves: set[int] = set()
        stack, seen = list(outputs), set()
        while stack:
            edge = stack.pop()
            if edge in seen:
                continue
            seen.add(edge)
            node = edge[0]
            self._note(node)
            if (call := made.get(edge)) is not None:
                reached[id(call)] = call
                stack += call.entries
                continue
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                leaves.add(id(leaf))
                continue
            if owner := next((c for c in calls if c.start < _number(node) < c.end), None):
                self._refuse(owner.name, "leaves behind a tensor that it does not return")
                return [], set()
            stack += [(after, number) for after, number in node.next_functions if after is not None]
        return list(reached.values()), leaves

    def _note(self, node: Any) -> None:  # noqa: ANN401
        """Whether it is a function that somebody wrote, or the hook of a module, which may change gradients too."""
        if isinstance(node, BackwardCFunction):
            function: Any = getattr(node, "_forward_cls", type(node))
            if function is BackwardHookFunction or not function.__module__.startswith("torch."):
                self.functions.add(function.__name__)

    def _refuse(self, name: str, reason: str) -> None:
        self.unsound.setdefault(name, reason)

    def _now(self) -> int:
        """A number between those of the nodes before and after."""
        return _number((self.counter * 1).grad_fn)


def _walk(starts: Iterable[Edge], ends: Callable[[Edge], bool], met: set[Edge]) -> Iterable[Any]:
    """Nodes behind some edges; ends are not gone past, and those that were met are noted."""
    stack, seen = list(starts), set()
    while stack:
        edge = stack.pop()
        if edge in seen:
            continue
        seen.add(edge)
        if ends(edge):
            met.add(edge)
            continue
        node = edge[0]
        yield node
        stack += [(after, number) for after, number in node.next_functions if after is not None]


def _edge(value: Tensor) -> Edge | None:
    if not value.requires_grad:
        return None
    edge = get_gradient_edge(value)
    return edge.node, edge.output_nr


def _number(node: Any) -> int:  # noqa: ANN401 - autograd's nodes have no public type
    """When a node was made, in the order of nodes."""
    return int(node._sequence_nr())


def _version(value: Tensor) -> int:
    return -1 if value.is_inference() else value._version


def _never(_packed: object) -> Tensor:
    raise RuntimeError("it takes gradients itself, by torch.autograd.grad or backward()")
