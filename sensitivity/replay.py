"""Run a model again with one layer changed, computing only what the change reaches.

One pass is recorded: what went into every part of the model (trunk, block, head, convolution of a head) and what came
out. When the model is run again with another weight somewhere, a part that does not hold this layer and is given
what it was given before returns what it returned before; the model's own ``forward`` stays the only description
of what depends on what. So nothing is computed in front of the layer's block, in heads that do not see it, or in the
early calls of parts that run several times, and what is computed is bit for bit what the whole model would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.quant import Layer, layer_kind, replaced_weights
from vggtkit.runtime.forwards import replaced_forward
from vggtkit.scenes import Scene
from vggtkit.subject import Subject
from vggtkit.subject.base import Call


class Passes(Protocol):
    """Passes over one scene with another weight in one layer at a time.

    Attributes:
        outputs: of the FP32 model, each ``[rows, ...]``.
        rows: how many weights of a layer are tried side by side.
    """

    outputs: dict[str, Tensor]
    rows: int

    def changed(self, layer: Layer, weights: Sequence[Tensor]) -> dict[str, Tensor]:
        """The outputs with other weights in one layer, one per row, in the module's own layout: ``[rows, ...]``."""


def passes_over(subject: Subject, scene: Scene, rows: int = 1) -> Passes:
    """The cheapest passes that are right for a model: in parts where these are known, else whole.

    Raises:
        InputError: an output of the FP32 model is not finite.
    """
    if subject.recorded_whole is None:
        return WholePasses(subject, scene)
    return RecordedPass(subject, scene, rows)


class WholePasses:
    """The model run from its beginning every time, for models of which nothing is known.

    Args:
        subject: not packed.
        scene: what it is run on.
    """

    rows = 1

    def __init__(self, subject: Subject, scene: Scene) -> None:
        self.subject, self.scene = subject, scene
        with torch.no_grad():
            self.outputs = {name: value[None] for name, value in subject.run(scene).items()}

    @torch.no_grad()
    def changed(self, layer: Layer, weights: Sequence[Tensor]) -> dict[str, Tensor]:
        """As `Passes.changed`."""
        (weight,) = weights
        with replaced_weights(self.subject.model, {layer.name: weight}):
            outputs = self.subject.run(self.scene, check=False)
        return {name: value[None] for name, value in outputs.items()}


class RecordedPass:
    """A pass over one scene, on record.

    Args:
        subject: not packed; the recording holds as long as nobody changes its weights.
        scene: what it is run on.
        rows: how many weights of a layer are tried side by side, as a batch of that many copies of the scene.

    Attributes:
        outputs: of the FP32 model, each ``[rows, ...]``.

    Raises:
        InputError: an output is not finite.
    """

    def __init__(self, subject: Subject, scene: Scene, rows: int = 1) -> None:
        self.subject, self.model, self.scene, self.rows = subject, subject.model, scene, rows
        self.parts = {name: _Part(module) for name, module in recorded_parts(self.model, subject.recorded_whole or ())}
        with torch.no_grad(), self._running({name: part.record for name, part in self.parts.items()}):
            self.outputs = self._run()
        for name, value in self.outputs.items():
            if not value.isfinite().all():
                raise InputError(
                    f"scene {scene.name}: the FP32 model gives NaN or Inf in {name}; it cannot be a reference"
                )

    @torch.no_grad()
    def changed(self, layer: Layer, weights: Sequence[Tensor]) -> dict[str, Tensor]:
        """The outputs with other weights in one layer; those that do not see it are equal to the recorded ones.

        Args:
            layer: whose weight is another.
            weights: one per row, in the module's own layout.

        Returns:
            The published outputs, each ``[rows, ...]``; of a broken format they may be NaN.

        Raises:
            ValueError: not as many weights as rows.
        """
        if len(weights) != self.rows:
            raise ValueError(f"{len(weights)} weights for {self.rows} rows")
        # The parts around the layer must run: what they did before holds the old weight.
        replaying = {name: part.replay for name, part in self.parts.items() if not _holds(name, layer.name)}
        forward = _with_weights(self.model.get_submodule(layer.name), weights)
        with self._running(replaying | {layer.name: forward}):
            return self._run()

    def _run(self) -> dict[str, Tensor]:
        call = self.subject.arguments(self.scene, self.subject.device)
        # The copies of the scene share memory until a layer gives each row a value of its own.
        rows = tuple(value.expand(self.rows, *value.shape[1:]) for value in call.arguments)
        return self.subject.outputs(self.subject.call(Call(rows, call.keywords)))

    @contextmanager
    def _running(self, forwards: dict[str, Callable[..., object]]) -> Iterator[None]:
        """The model with other functions in place of some modules' ``forward``."""
        with ExitStack() as undo:
            # A part that runs several times is compared call by call, so every run counts from the first.
            for part in self.parts.values():
                part.call = 0
            for name, forward in forwards.items():
                undo.enter_context(replaced_forward(self.model.get_submodule(name), forward))
            yield


class _Part:
    """What went into a module and what came out, call by call."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.call = module, 0
        self.forward: Callable[..., object] = module.forward
        self.calls: list[tuple[tuple[object, ...], object]] = []

    def record(self, *arguments: object) -> object:
        output = self.forward(*arguments)
        self.calls.append((arguments, output))
        return output

    def replay(self, *arguments: object) -> object:
        # A call that was given something else still uses up its place: the next one is compared with its own past.
        before, output = self.calls[self.call]
        self.call += 1
        return output if _same(arguments, before) else self.forward(*arguments)


def recorded_parts(
    module: nn.Module, whole: tuple[type[nn.Module], ...], name: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """Modules with a layer to quantise, from whole heads down to blocks and single convolutions.

    Args:
        module: whose parts are wanted.
        whole: modules that are recorded as a whole; all others are recorded down to their convolutions.
        name: of the module.
    """
    for key, child in module.named_children():
        full_name = f"{name}.{key}" if name else key
        if not any(layer_kind(inner) for inner in child.modules()):
            continue
        if not isinstance(child, nn.ModuleList):
            yield full_name, child
        if not isinstance(child, whole):
            yield from recorded_parts(child, whole, full_name)


def _holds(part: str, layer: str) -> bool:
    return layer == part or layer.startswith(f"{part}.")


def _with_weights(module: nn.Module, weights: Sequence[Tensor]) -> Callable[..., object]:
    """The module's ``forward``, each row of the batch with a weight of its own."""
    usual = module.forward

    def forward(*arguments: object) -> object:
        # Row by row, as torch's layers take one weight for all rows; all else of the model runs on the whole batch.
        outputs = []
        for row, weight in enumerate(weights):
            row_arguments = _row(arguments, row, len(weights))
            with replaced_weights(module, {"": weight}):  # the name of a module in itself
                outputs.append(usual(*row_arguments))
        if isinstance(outputs[0], tuple):
            return tuple(map(torch.cat, zip(*outputs, strict=True)))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    return forward


def _row(arguments: tuple[object, ...], row: int, rows: int) -> list[object]:
    """One row's arguments; the batch is the slowest axis of each, and a tensor given twice stays one object."""
    # By identity: torch's attention projects query, key and value in one product where they are one object.
    parts = {id(a): a.chunk(rows)[row] if isinstance(a, Tensor) else a for a in arguments}
    return [parts[id(argument)] for argument in arguments]


def _same(given: object, before: object) -> bool:
    """Whether a part is given what it was given before.

    What is no tensor (sizes, rotary positions) follows from the size of the pictures, which does not change.
    """
    if isinstance(given, Tensor) and isinstance(before, Tensor):
        # What a replayed part returned is the recorded tensor itself: then no element has to be read.
        same_memory = given.data_ptr() == before.data_ptr() and given.stride() == before.stride()
        return given.shape == before.shape and (same_memory or torch.equal(given, before))
    if isinstance(given, dict) and isinstance(before, dict):
        return all(_same(given[key], value) for key, value in before.items())
    if isinstance(given, list | tuple) and isinstance(before, list | tuple):
        return all(map(_same, given, before))
    return True
