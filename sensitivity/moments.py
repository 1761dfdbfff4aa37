"""Second moments of what every layer's weight is multiplied by: what calibrated rounding must know of the data.

An error E of a weight changes what its layer puts out by ``E x`` for every row x of inputs, and the sum of squares of
these changes is ``tr(E H E^T)`` with ``H = sum x x^T``. What counts is what of it reaches the model's outputs. With g
the gradient of the outputs (each over its own norm, as for NMSE) with respect to a layer's output at one place, the
change of the outputs is ``g . E x``; where neither the places nor the channels of g are correlated, its mean square is
proportional to ``tr(E H E^T)`` with ``H = sum |g|^2 x x^T``: a place counts as much as the outputs hear of it. A few
random combinations of the outputs, as in `sensitivity.jacobian_sketch`, estimate ``|g|^2`` of all outputs together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sensitivity.going_back import differentiated, norm_of, tape_of
from sensitivity.jacobian_sketch import DEFAULT_PROBES, ignores_detach
from sensitivity.layer_rows import has_rows, input_rows, output_sizes, part_count
from sensitivity.route import Route
from sensitivity.segments import Gradients, Tape
from vggtkit.core.errors import InputError
from vggtkit.core.memory import free_bytes
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant import Layer, weight_of
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

MOMENT_ROWS = 2**14
"""Rows multiplied at a time; the patches of a large map are many."""
SHARE = 0.5
"""Of the free memory that second moments may take: the rest is for the pass and for factoring one of them."""
UNSEEN = "what its weight is multiplied by is not seen"
UNREACHED = "no calibration scene reaches it"
NOT_FINITE = "its inputs are not finite"
ALL_ZEROS = "its inputs are all zeros"
ZEROS_OR_NOT_FINITE = f"{ALL_ZEROS} or not finite"
"""Where it is not looked at which of the two it is."""


class Moments:
    """Sums of ``x x^T`` by layer, FP32 ``[parts, in, in]``; parts as in `sensitivity.layer_rows`.

    Args:
        subject: the model.
        layers: of which; those whose rows are not known are left out.

    Attributes:
        channels: of gradients at output channels, ``[parts, out / parts, out / parts]`` by layer, where
            `sensitivity.output_factors` made them.

    Raises:
        InputError: they do not fit into memory.
    """

    def __init__(self, subject: Subject, layers: Sequence[Layer]) -> None:
        modules = {layer.name: subject.model.get_submodule(layer.name) for layer in layers}
        self.modules = {layer.name: modules[layer.name] for layer in layers if has_rows(layer, modules[layer.name])}
        needed, free = sum(moment_bytes(subject, layers).values()), free_bytes(subject.device)
        if free is not None and needed > free:
            raise InputError(
                f"calibrated rounding keeps {needed / 1e9:.1f} GB of second moments, {free / 1e9:.1f} GB of memory are "
                f"free: {setting('rounding', 'nearest')} needs none"
            )
        self.sums: dict[str, Tensor] = {}
        self.rows: dict[str, int] = {}
        self.totals: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}
        self.channels: dict[str, Tensor] = {}

    def get(self, name: str) -> Tensor | None:
        """Of one layer; None where nothing is known, or it is not finite."""
        return None if self.why_unusable(name) else self.sums[name]

    def why_unusable(self, name: str) -> str:
        """Why `get` gives nothing of a layer; empty where it does.

        >>> from vggtkit.quant import find_layers
        >>> from vggtkit.subject import subject_of
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> moments = Moments(subject_of(model), find_layers(model))
        >>> moments.add("0", [torch.zeros(3, 2)])
        >>> moments.why_unusable("0"), moments.why_unusable("1")
        ('its inputs are all zeros', 'no calibration scene reaches it')
        """
        if name not in self.modules:
            return UNSEEN
        if name not in self.sums:
            return UNREACHED
        if not bool(self.sums[name].isfinite().all()):
            return NOT_FINITE
        return "" if bool(self.sums[name].any()) else ALL_ZEROS

    def rows_and_inputs(self, name: str) -> tuple[int, int]:
        """How many rows the moments of a layer are of, and of how many inputs; (0, 0) where `get` gives nothing."""
        return (0, 0) if self.why_unusable(name) else (self.rows[name], self.sums[name].shape[-1])

    def mean(self, name: str) -> Tensor:
        """The mean row of a layer that `get` knows, each as often as it counts; FP32 ``[parts, in]``."""
        return self.totals[name] / self.weights[name][:, None]

    @torch.no_grad()
    def add(self, name: str, arguments: Sequence[Any], sizes: Sequence[Tensor] | None = None) -> None:
        """One call of a layer, each row as often as ``sizes`` (``[rows]`` for each part) say; once by default."""
        parts = input_rows(self.modules[name], arguments)
        if name not in self.sums:
            width = parts[0].shape[1]
            self.sums[name], self.rows[name] = parts[0].new_zeros(len(parts), width, width, dtype=torch.float32), 0
            self.totals[name] = parts[0].new_zeros(len(parts), width, dtype=torch.float32)
            self.weights[name] = parts[0].new_zeros(len(parts), dtype=torch.float32)
        self.rows[name] += len(parts[0])
        for number, rows in enumerate(parts):
            for start in range(0, len(rows), MOMENT_ROWS):
                piece = rows[start : start + MOMENT_ROWS].float()
                scaled = piece if sizes is None else piece * sizes[number][start : start + MOMENT_ROWS, None].float()
                self.sums[name][number].addmm_(scaled.T, piece)
                self.totals[name][number] += scaled.sum(0)
            self.weights[name][number] += len(rows) if sizes is None else sizes[number].sum()

    def merge(self, other: Moments) -> None:
        """Add those of other scenes, which are not to be used any more."""
        for name, rows in other.rows.items():
            for mine, theirs in zip(self._all(), other._all(), strict=True):
                sums = theirs.pop(name)
                mine[name] = mine[name].add_(sums) if name in mine else sums
            self.rows[name] = self.rows.get(name, 0) + rows

    def _all(self) -> tuple[dict[str, Tensor], ...]:
        return self.sums, self.totals, self.weights


def moment_bytes(subject: Subject, layers: Sequence[Layer]) -> dict[str, int]:
    """What the moments of layers take in memory, by name; those whose rows are not known have none.

    >>> from vggtkit.quant import find_layers
    >>> from vggtkit.subject import subject_of
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.Conv2d(4, 6, 2, groups=2))
    >>> moment_bytes(subject_of(model), find_layers(model))
    {'0': 36, '1': 512}
    """
    modules = {layer.name: subject.model.get_submodule(layer.name) for layer in layers}
    return {
        layer.name: 4 * part_count(module) * (layer.weights // layer.shape[0]) ** 2
        for layer, module in zip(layers, modules.values(), strict=True)
        if has_rows(layer, module)
    }


def room_for_moments(subject: Subject, copies: int = 1) -> int | None:
    """Bytes that second moments may take at a time; None where the device does not tell.

    Args:
        subject: the model.
        copies: of the moments that measuring them holds.
    """
    free = free_bytes(subject.device)
    return None if free is None else int(SHARE * free / copies)


def groups_of(sizes: Mapping[str, int], room: int | None) -> list[list[str]]:
    """Names in their order, cut where the sizes of a group would exceed the room; one that does by itself is alone.

    >>> groups_of({"a": 2, "b": 2, "c": 5, "d": 1}, room=4)
    [['a', 'b'], ['c'], ['d']]
    >>> groups_of({"a": 2, "b": 2}, room=None)
    [['a', 'b']]
    """
    groups: list[list[str]] = []
    left = 0
    for name, size in sizes.items():
        if not groups or (room is not None and size > left):
            groups.append([])
            left = room or 0
        groups[-1].append(name)
        left -= size
    return groups


@torch.no_grad()
def input_moments(
    subject: Subject, layers: Sequence[Layer], scenes: Sequence[Scene], progress: Progress = silent
) -> Moments:
    """Of all rows alike, from one pass over every scene.

    Args:
        subject: not packed.
        layers: of `vggtkit.quant.find_layers`.
        scenes: to calibrate with.
        progress: told about every scene.
    """
    moments = Moments(subject, layers)

    def watch(name: str, _module: nn.Module, arguments: tuple[Any, ...], _output: object) -> None:
        moments.add(name, arguments)

    with ExitStack() as undo:
        for name, module in moments.modules.items():
            undo.callback(module.register_forward_hook(partial(watch, name)).remove)
        for number, scene in enumerate(scenes):
            progress(f"inputs of every layer, scene {number + 1}", number, len(scenes))
            subject.run(scene)
    return moments


def output_moments(
    subject: Subject,
    layers: Sequence[Layer],
    scenes: Sequence[Scene],
    *,
    only: Sequence[Layer] | None = None,
    weights: Mapping[str, float] | None = None,
    probes: int = DEFAULT_PROBES,
    seed: int = 0,
    progress: Progress = silent,
) -> Moments:
    """Of rows as much as the model's outputs hear of them, from ``probes`` passes back over every scene.

    Args:
        subject: not packed.
        layers: of `vggtkit.quant.find_layers`.
        scenes: to calibrate with.
        only: of these, which ones moments are wanted of; their numbers do not depend on which others are.
        weights: how much each output counts; all the same by default.
        probes: random combinations of the outputs.
        seed: of these.
        progress: told about every scene.

    Raises:
        InputError: the model cannot be differentiated.
    """
    wanted = layers if only is None else only
    moments, through = Moments(subject, wanted), ignores_detach(subject, layers, scenes[0], torch.float32)
    for number, scene in enumerate(scenes):
        progress(f"what reaches the outputs, scene {number + 1}", number, len(scenes))
        gather = partial(_gather, subject, layers, wanted, scene, weights, probes, seed * len(scenes) + number)
        moments.merge(differentiated(subject, layers, scene, gather, through_detach=through))
    return moments


def _gather(
    subject: Subject, layers: Sequence[Layer], wanted: Sequence[Layer], scene: Scene,
    weights: Mapping[str, float] | None, probes: int, seed: int, route: Route,
) -> Moments:  # fmt: skip
    """One scene. A layer's calls wait until all gradients went through the segment that it is in."""
    moments = Moments(subject, wanted)
    pending = _Pending(moments)
    tape, losses = recorded(subject, layers, scene, weights, probes, seed, route, pending.watching())
    between = set(tape.between)

    def consume(rows: list[int], _gradients: list[Gradients]) -> None:
        for row in rows:
            if row not in between:
                pending.finish(layers[row].name)

    with pending.watching():
        tape.back(losses, [torch.ones_like(loss) for loss in losses], consume)
    for name in list(pending.calls):
        pending.finish(name)
    return moments


def recorded(
    subject: Subject, layers: Sequence[Layer], scene: Scene, weights: Mapping[str, float] | None, probes: int,
    seed: int, route: Route, watching: AbstractContextManager[None] | None = None,
) -> tuple[Tape, list[Tensor]]:  # fmt: skip
    """A pass over a scene to go back through, and random combinations of its outputs.

    Args:
        subject: not packed.
        layers: whose weights get gradients.
        scene: what the model sees.
        weights: as `combined` takes them.
        probes: combinations.
        seed: of these.
        route: of the pass.
        watching: entered while the model runs.
    """
    generator = torch.Generator().manual_seed(seed)
    tape = tape_of(route, [weight_of(subject.model, layer) for layer in layers], route.places)
    with tape.recording(), route.running():
        with watching or nullcontext():
            outputs = subject.run(scene)
        return tape, [combined(outputs, weights, generator) for _ in range(probes)]


class _Pending:
    """Calls of layers whose gradients are still to come."""

    def __init__(self, moments: Moments) -> None:
        self.moments = moments
        self.calls: dict[str, list[tuple[tuple[Any, ...], list[Tensor]]]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, calls that gradients go through are noticed."""
        with ExitStack() as undo:
            for name, module in self.moments.modules.items():
                undo.callback(module.register_forward_hook(partial(self._seen, name)).remove)
            yield

    def _seen(self, name: str, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        if not (torch.is_grad_enabled() and output.requires_grad):
            return
        given = tuple(value.detach() if isinstance(value, Tensor) else value for value in arguments)
        sizes: list[Tensor] = []

        def heard(gradient: Tensor) -> None:
            new = output_sizes(module, given, gradient.detach().float())
            sizes[:] = [before + size for before, size in zip(sizes, new, strict=True)] if sizes else new

        output.register_hook(heard)
        self.calls.setdefault(name, []).append((given, sizes))

    @torch.no_grad()
    def finish(self, name: str) -> None:
        """Count the calls of a layer."""
        for given, sizes in self.calls.pop(name, []):
            if sizes:
                self.moments.add(name, given, sizes)


def combined(outputs: Mapping[str, Tensor], weights: Mapping[str, float] | None, generator: torch.Generator) -> Tensor:
    """A random combination of all outputs, each over its norm."""
    parts = []
    for name, value in outputs.items():
        share = 1.0 if weights is None else weights.get(name, 0.0)
        drawn = torch.randn(value.shape, generator=generator).to(value.device)
        if share and value.requires_grad:
            parts.append(math.sqrt(share) * (value.float() * (drawn / norm_of(value))).sum())
    return torch.stack(parts).sum()
