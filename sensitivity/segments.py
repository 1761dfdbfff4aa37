"""Vector-Jacobian products of a large model in little memory: forward once, then back one segment at a time.

The forward pass runs every *segment* (a transformer block, a head) without a graph and keeps its inputs alone. Going
back, a segment is computed once more with a graph, and the gradients of all outputs and probes pass through it
together before the one before it is taken up. So a segment's activations exist for a moment, each segment is
recomputed once however many gradients there are, and the gradients of its weights, for all of them, can be used and
forgotten while it is at hand. What lies between segments keeps its (small) graph.

This is gradient checkpointing (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016) turned around:
that recomputes for every backward pass, here once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from sensitivity.differentiable import without_gradients

Gradients = list[Tensor | None]
"""One per cotangent; None where it is zero."""

Consume = Callable[[list[int], list[Gradients]], None]
"""Takes the numbers of some weights, and for each the gradients of all cotangents."""


NOISE = 1000
"""Machine precisions by which a segment that is computed again may differ from the first time, relative to its size."""

LOUDEST = 0.03
"""The same for precisions that are coarse themselves."""


class UnsoundError(Exception):
    """A segment cannot be gone back through alone.

    Attributes:
        name: of the segment.
        reason: why, as the end of a sentence.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name, self.reason = name, reason


@dataclass
class _Call:
    """One call of one segment: what it was given, and stand-ins for what it gave."""

    name: str
    module: nn.Module
    forward: Callable[..., Any]
    given: list[Any]
    spec: TreeSpec
    autocast: tuple[bool, torch.dtype]
    leaves: list[Tensor]
    pending: list[list[Tensor | None]] = field(default_factory=list)


class Tape:
    """A forward pass that can be gone back through.

    Args:
        segments: the modules that are gone back through one at a time, by name; see `Subject.segments`.
        weights: gradients are wanted of, in any order.
        places: by number of a weight, the segments in which it is used, and None for its use outside of them; by
            default those that hold it.
        reused: segments whose tensors are worked on in place before or after them, so that they need copies.
        running: entered wherever a segment is computed once more.
        checked: whether that must give the same as the first time.
        lowered: by name of a segment, a precision that it is computed in once more, other than the first time.

    Attributes:
        same: whether every segment that was computed once more gave the same bits; not asked where it is checked.
    """

    def __init__(
        self,
        segments: Mapping[str, nn.Module],
        weights: Sequence[Tensor],
        *,
        places: Sequence[Collection[str | None]] | None = None,
        reused: Collection[str] = (),
        running: Callable[[], AbstractContextManager[None]] = nullcontext,
        checked: bool = False,
        lowered: Mapping[str, torch.dtype] = MappingProxyType({}),
    ) -> None:
        self.segments, self.weights, self.lowered, self.same = segments, weights, lowered, True
        self.reused, self.running, self.checked = reused, running, checked
        holders: dict[int, set[str | None]] = {}
        for name, module in segments.items():
            for parameter in module.parameters():
                holders.setdefault(id(parameter), set()).add(name)
        self.of_segment: dict[str, list[int]] = {name: [] for name in segments}
        self.between: list[int] = []
        for number, weight in enumerate(weights):
            used = holders.get(id(weight), set()) | set(places[number] if places is not None else ())
            for place in used & set(segments):
                self.of_segment[str(place)].append(number)
            if None in used or not used & set(segments):
                self.between.append(number)
        self.calls: list[_Call] = []
        self.inside = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, a forward pass of the model is recorded."""
        modules = list(self.segments.items())
        own = [module.__dict__.get("forward") for _, module in modules]
        try:
            for name, module in modules:
                module.forward = self._cut(name, module, module.forward)
            yield
        finally:
            for (_, module), forward in zip(modules, own, strict=True):
                module.__dict__.pop("forward", None)
                if forward is not None:
                    module.forward = forward

    def _cut(self, name: str, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def segment(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
            if self.inside:  # part of the one around it
                return forward(*arguments, **keywords)
            given, spec = tree_flatten((arguments, keywords))
            if name in self.reused:
                given = [value.clone() if isinstance(value, Tensor) else value for value in given]
            self.inside = True
            try:
                with without_gradients():
                    inner = [value.detach() if isinstance(value, Tensor) else value for value in given]
                    detached, named = tree_unflatten(inner, spec)
                    output, output_spec = tree_flatten(forward(*detached, **named))
                    leaves = [value.detach() for value in output if _differentiable(value)]
            finally:
                self.inside = False
            device = next((value.device.type for value in given if isinstance(value, Tensor)), "cpu")
            autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
            for leaf in leaves:
                leaf.requires_grad_()
            self.calls.append(_Call(name, module, forward, given, spec, autocast, leaves))
            stand_ins = iter([leaf.clone() for leaf in leaves] if name in self.reused else leaves)
            return tree_unflatten([next(stand_ins) if _differentiable(v) else v for v in output], output_spec)

        return segment

    def back(self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor], consume: Consume) -> None:
        """Take the gradients of ``cotangents[c] . outputs[c]`` back through the recorded pass, all c together.

        Args:
            outputs: of the recorded pass; the same one may stand there several times.
            cotangents: of the same shapes.
            consume: called with the gradients of weights, of some at a time; those of a weight that is used in
                several places come in several calls and are to be added up.

        Raises:
            UnsoundError: a segment that is computed once more gives something else.
        """
        count = len(outputs)
        self.leaves = [leaf for call in self.calls for leaf in call.leaves]
        self.place = {id(leaf): (call, i) for call in self.calls for i, leaf in enumerate(call.leaves)}
        for call in self.calls:
            call.pending = [[None] * count for _ in call.leaves]
        for number, (output, cotangent) in enumerate(zip(outputs, cotangents, strict=True)):
            self._between([output], [cotangent], number, count, consume)
        while self.calls:
            self._through(self.calls.pop(), count, consume)

    def _through(self, call: _Call, count: int, consume: Consume) -> None:
        """One segment, computed once more, for all cotangents."""
        wanted = self.of_segment[call.name]
        reached = [c for c in range(count) if any(row[c] is not None for row in call.pending)]
        if not reached:
            return
        inner, again = self._again(call)
        entries = [i for i, v in enumerate(inner) if isinstance(v, Tensor) and v.requires_grad]
        sources = [inner[i] for i in entries] + [self.weights[i] for i in wanted]
        rows: list[Gradients] = [[None] * count for _ in wanted]
        for c in reached:
            given = [(value, row[c]) for value, row in zip(again, call.pending, strict=True) if value.requires_grad]
            heads = [(value, gradient) for value, gradient in given if gradient is not None]
            if not heads or not sources:
                continue
            values, gradients = zip(*heads, strict=True)
            results = torch.autograd.grad(values, sources, gradients, retain_graph=c != reached[-1], allow_unused=True)
            for row, gradient in zip(rows, results[len(entries) :], strict=True):
                row[c] = gradient
            there = [(call.given[i], g) for i, g in zip(entries, results, strict=False) if g is not None]
            if there:
                self._between([v for v, _ in there], [g for _, g in there], c, count, consume)
        call.pending = []
        if wanted:
            consume(wanted, rows)

    def _again(self, call: _Call) -> tuple[list[Any], list[Tensor]]:
        """A segment computed once more, with a graph: what it is given, and what it gives."""
        with without_gradients():
            inner = [v.detach() if isinstance(v, Tensor) else v for v in call.given]
        for value, before in zip(inner, call.given, strict=True):
            if isinstance(value, Tensor):
                value.requires_grad_(before.requires_grad)
        arguments, keywords = tree_unflatten(inner, call.spec)
        enabled, dtype = call.autocast
        if call.name in self.lowered:
            enabled, dtype = True, self.lowered[call.name]
        device = call.leaves[0].device.type
        with (
            torch.enable_grad(),
            torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False),
            self.running(),
        ):
            again = [v for v in tree_flatten(call.forward(*arguments, **keywords))[0] if _differentiable(v)]
        if not self.checked:
            self.same = self.same and all(map(torch.equal, again, call.leaves))
        else:
            coarse = torch.finfo(dtype).eps if enabled else 0.0
            if len(again) != len(call.leaves) or not all(map(partial(_alike, coarse), again, call.leaves)):
                raise UnsoundError(call.name, "gives something else when it is computed once more")
        return inner, again

    def _between(
        self, values: Sequence[Tensor], gradients: Sequence[Tensor], number: int, count: int, consume: Consume
    ) -> None:
        """From what a segment was given, or an output, back to what other segments gave."""
        reached = [(v, g) for v, g in zip(values, gradients, strict=True) if v.requires_grad]
        if not reached:
            return
        sources = [*self.leaves, *(self.weights[i] for i in self.between)]
        results = torch.autograd.grad(
            [v for v, _ in reached], sources, [g.to(v.dtype) for v, g in reached], retain_graph=True, allow_unused=True
        )
        for leaf, gradient in zip(self.leaves, results, strict=False):
            if gradient is not None:
                call, place = self.place[id(leaf)]
                before = call.pending[place][number]
                call.pending[place][number] = gradient if before is None else before + gradient
        weights = [(i, g) for i, g in zip(self.between, results[len(self.leaves) :], strict=True) if g is not None]
        if weights:
            rows: list[Gradients] = [[g if c == number else None for c in range(count)] for _, g in weights]
            consume([i for i, _ in weights], rows)


def _differentiable(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _alike(coarse: float, actual: Tensor, expected: Tensor) -> bool:
    """Whether two results of the same computation agree up to the noise of their precision."""
    actual, expected = actual.detach(), expected.detach()
    if actual.shape != expected.shape:
        return False
    if torch.equal(actual, expected):
        return True
    allowed = min(LOUDEST, NOISE * max(coarse, torch.finfo(expected.dtype).eps))
    actual, expected = actual.cpu().double(), expected.cpu().double()  # Metal has no float64
    return bool((actual - expected).norm() <= allowed * expected.norm())
