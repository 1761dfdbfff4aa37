"""Block by block: every block's outputs under those of FP32, in one pass of the model over all scenes.

The pass takes the scenes twice, in one batch: the first half is computed with the original weights, the second with the
tuned ones. When it reaches a block, the inputs of both halves are at hand. The block's weights are tuned so that what
it makes of the second half's inputs, which bear the errors of all blocks before it, comes near what the original makes
of the first half's, every token as much as it counts for the outputs; then the pass goes on. So one block's weights,
inputs and outputs are in memory at a time, however large the model, and no pass is made twice.

Source: Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", ICLR 2021; inputs
with the errors before them as in Wei et al., "QDrop", ICLR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from mixedprec.tuning.distillation import batches
from mixedprec.tuning.importance import importance
from mixedprec.tuning.loss import mean_relative_error, weighed_error
from mixedprec.tuning.recipe import Recipe
from mixedprec.tuning.stored import arrays_of, weights_from
from mixedprec.tuning.student import Student, decoded_value, standing_in
from sensitivity.going_back import with_gradients
from vggtkit.core.journal import Parts
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant import Layer, QuantizedTensor
from vggtkit.runtime.forwards import replaced_forward
from vggtkit.scenes import Scene
from vggtkit.subject import Subject
from vggtkit.subject.base import Call

TeacherForward = Callable[..., Any]


@dataclass(frozen=True)
class TunedBlock:
    """What is tuned at a time.

    Attributes:
        name: of the module.
        module: that is called.
        layers: whose weights it reads.
    """

    name: str
    module: nn.Module
    layers: tuple[Layer, ...]


def tuned_blocks(subject: Subject) -> list[TunedBlock]:
    """The segments of a subject, and each layer outside of them by itself.

    >>> from vggtkit.model import load_vggt
    >>> from vggtkit.subject import subject_of
    >>> [block.name for block in tuned_blocks(subject_of(load_vggt("tiny", weights="random")))][-1]
    'aggregator.patch_embed.patch_embed.proj'
    """
    taken: set[str] = set()
    blocks = []
    for name, module in subject.segments().items():
        own = tuple(layer for layer in subject.layers if layer.name.startswith(f"{name}.") or layer.name == name)
        taken |= {layer.name for layer in own}
        if own:
            blocks.append(TunedBlock(name, module, own))
    rest = [layer for layer in subject.layers if layer.name not in taken]
    return blocks + [TunedBlock(layer.name, subject.model.get_submodule(layer.name), (layer,)) for layer in rest]


def tune_blocks(
    subject: Subject,
    start: Mapping[str, QuantizedTensor],
    scenes: Sequence[Scene],
    recipe: Recipe,
    *,
    weights: Mapping[str, float] | None = None,
    parts: Parts | None = None,
    progress: Progress = silent,
) -> dict[str, QuantizedTensor]:
    """Tune the weights of a model block by block.

    Args:
        subject: one whose segments are known, called with tensors whose first axis is the batch; unchanged.
        start: the weights to begin with.
        scenes: to tune on, all of one size.
        recipe: how.
        weights: what each output counts for; 1 for those not named.
        parts: where every block is kept that is done, and taken from.
        progress: told about every block.

    Returns:
        The weights. A block that did not come nearer on the scenes is as it was at the start.
    """
    if not recipe.block_steps:
        return dict(start)
    blocks, tuned = tuned_blocks(subject), dict(start)
    counts = importance(subject, scenes, weights=weights, seed=recipe.seed, parts=parts, progress=progress)
    with torch.no_grad(), subject.as_written(), ExitStack() as undo:
        done: list[str] = []
        for block in blocks:
            own = [of_scene.get(block.name) for of_scene in counts]
            twice = _TwoHalves(subject, block, own, tuned, recipe, parts)

            def finished(name: str = block.name) -> None:
                done.append(name)
                progress(f"tuning {name}", len(done), len(blocks))

            twice.finished = finished
            undo.enter_context(replaced_forward(block.module, twice.forward))
        progress("tuning block by block", 0, len(blocks))
        subject.call(_together([subject.arguments(scene, subject.device) for scene in [*scenes, *scenes]]))
    return tuned


def _together(calls: Sequence[Call]) -> Call:
    """Many calls with a batch of one each as one call."""
    arguments = tuple(torch.cat(values) for values in zip(*(call.arguments for call in calls), strict=True))
    return Call(arguments, {name: torch.cat([call.keywords[name] for call in calls]) for name in calls[0].keywords})


class _TwoHalves:
    """A block within the pass: computed for both halves, tuned the first time that it is called."""

    finished: Callable[[], None]

    def __init__(
        self, subject: Subject, block: TunedBlock, counts: Sequence[Sequence[Tensor] | None],
        weights: dict[str, QuantizedTensor], recipe: Recipe, parts: Parts | None,
    ) -> None:  # fmt: skip
        self.subject, self.block, self.counts, self.scenes = subject, block, counts, len(counts)
        self.weights, self.recipe, self.parts = weights, recipe, parts
        self.original: TeacherForward = block.module.forward
        self.is_tuned = False

    def forward(self, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        """In the place of the block's own."""
        given, spec = tree_flatten((arguments, keywords))
        clean = [self._of(given, scene) for scene in range(self.scenes)]
        noisy = [self._of(given, self.scenes + scene) for scene in range(self.scenes)]
        targets: list[list[Any]] = []
        shape: TreeSpec | None = None
        for one in clean:
            leaves, shape = tree_flatten(self._run(one, spec))
            targets.append(leaves)
        assert shape is not None
        if not self.is_tuned:
            self._tune(noisy, spec, targets)
            self.is_tuned = True
            self.finished()
        outputs = [*targets, *self._outputs(self._values(), noisy, spec)]
        together = [torch.cat(leaf) if isinstance(leaf[0], Tensor) else leaf[0] for leaf in zip(*outputs, strict=True)]
        return tree_unflatten(together, shape)

    def _of(self, given: Sequence[Any], number: int) -> list[Any]:
        """What a block is given for one scene of one half."""
        return [self._rows(value, number) if isinstance(value, Tensor) else value for value in given]

    def _rows(self, value: Tensor, number: int) -> Tensor:
        rows = len(value) // (2 * self.scenes)
        return value[number * rows : (number + 1) * rows]

    def _run(self, given: Sequence[Any], spec: TreeSpec) -> Any:  # noqa: ANN401
        arguments, keywords = tree_unflatten(list(given), spec)
        return self.original(*arguments, **keywords)

    def _values(self) -> dict[str, Tensor]:
        layers = self.block.layers
        return {own.name: decoded_value(self.subject.model, own, self.weights[own.name]) for own in layers}

    def _outputs(self, values: Mapping[str, Tensor], noisy: Sequence[list[Any]], spec: TreeSpec) -> list[list[Any]]:
        with standing_in(self.subject.model, self.block.layers, values):
            return [tree_flatten(self._run(one, spec))[0] for one in noisy]

    def _error(self, outputs: Sequence[Sequence[Any]], targets: Sequence[Sequence[Any]]) -> float:
        losses = [self._loss(own, targets[scene], scene) for scene, own in enumerate(outputs)]
        return math.fsum(map(float, losses))

    def _loss(self, outputs: Sequence[Any], targets: Sequence[Any], scene: int) -> Tensor:
        """What is made small: the part of the damage that comes from here, or where that is not known the error."""
        counts = self.counts[scene]
        if counts is None:
            return mean_relative_error(*_numbers(outputs, targets))
        return weighed_error(*_numbers(outputs, targets), counts)

    def _tune(self, noisy: Sequence[list[Any]], spec: TreeSpec, targets: Sequence[list[Any]]) -> None:
        """The block's weights for these inputs and outputs; those of the journal where they are there."""
        step, before = f"block {self.block.name}", {own.name: self.weights[own.name] for own in self.block.layers}
        if self.parts is not None and step in self.parts.done():
            self.weights |= weights_from(self.parts.load(step), before)
            return
        error = self._error(self._outputs(self._values(), noisy, spec), targets)
        if error > 0:
            self.weights |= self._learned(noisy, spec, targets, self.scenes / (self.recipe.batch * error))
        if not self._error(self._outputs(self._values(), noisy, spec), targets) < error:  # so where it is NaN
            self.weights |= before
        if self.parts is not None:
            self.parts.save(step, arrays_of({name: self.weights[name] for name in before}))

    def _learned(
        self, noisy: Sequence[list[Any]], spec: TreeSpec, targets: Sequence[list[Any]], unit: float
    ) -> dict[str, QuantizedTensor]:
        """The block's weights after all steps; ``unit`` brings the loss to about 1, so that no gradient vanishes."""
        student = Student(self.subject.model, self.block.layers, self.weights, self.recipe)
        order = batches(self.scenes, self.recipe)
        with with_gradients(self.subject, (), torch.float32):
            for number in range(self.recipe.block_steps if student.learned else 0):
                student.refresh()
                with student.in_place():
                    for scene in next(order):
                        outputs = tree_flatten(self._run(noisy[scene], spec))[0]
                        (unit * self._loss(outputs, targets[scene], scene)).backward()
                with torch.no_grad():
                    student.move(share := self.recipe.share(number, self.recipe.block_steps), share)
        return student.encoded()


def _numbers(outputs: Sequence[Any], targets: Sequence[Any]) -> tuple[list[Tensor], list[Tensor]]:
    """What is compared: the tensors of numbers."""
    numbers = [isinstance(value, Tensor) and value.is_floating_point() for value in targets]
    chosen = [[value for value, there in zip(values, numbers, strict=True) if there] for values in (outputs, targets)]
    return chosen[0], chosen[1]
