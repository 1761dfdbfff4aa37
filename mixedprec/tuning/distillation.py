"""The whole model's outputs under those of FP32: no labels, the model itself is the teacher.

A step makes the weights from what is learned, runs some scenes forward and back, one at a time, and moves codes and
scales once. At times the weights are judged as a file holds them; the best so far are kept, the start among them.

Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; with outputs that are numbers, as here,
the error takes the place of the cross entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mixedprec.tuning.loss import outputs_error
from mixedprec.tuning.recipe import WHOLE_CODES, WHOLE_SCALES, Recipe
from mixedprec.tuning.stored import QuantizedByLayer, arrays_of, of_prefix, weights_from, with_prefix
from mixedprec.tuning.student import Student
from sensitivity.differentiable import differentiable
from sensitivity.going_back import with_gradients
from vggtkit.core.journal import Parts
from vggtkit.core.provenance import Progress, silent
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

Judge = Callable[[QuantizedByLayer], float]
"""Damage of weights on the selection scenes."""

STATE = "whole-model"
JUDGED = 20
"""How often, about, weights are judged and the state is kept."""


@dataclass(frozen=True)
class Tuned:
    """Weights, and how they came about.

    Attributes:
        weights: by layer name; the best of all that were judged.
        damage: of them on the selection scenes.
        start: damage of the weights where tuning began.
        blocks: damage after tuning block by block; None where that was left out.
        steps: that were made of the whole model.
        history: damage after so many steps.
        stopped: why it ended early; "" where it did not.
    """

    weights: QuantizedByLayer
    damage: float
    start: float
    blocks: float | None = None
    steps: int = 0
    history: tuple[tuple[int, float], ...] = ()
    stopped: str = ""


@dataclass
class _Course:
    """Where a distillation is."""

    best: Tuned
    step: int = 0


def distil(
    subject: Subject,
    start: Tuned,
    scenes: Sequence[Scene],
    judge: Judge,
    recipe: Recipe,
    *,
    weights: Mapping[str, float] | None = None,
    parts: Parts | None = None,
    progress: Progress = silent,
) -> Tuned:
    """Tune all weights of a model so that its outputs come near those of FP32.

    Args:
        subject: with its original weights; unchanged.
        start: the weights to begin with, and their damage.
        scenes: to tune on.
        judge: measures weights on other scenes.
        recipe: how.
        weights: what each output counts for; 1 for those not named.
        parts: where the state is kept, and taken up again.
        progress: told about every step.

    Returns:
        The best weights of those that were judged: never worse than ``start``. A loss that is no number ends it.
    """
    if not recipe.steps:
        return start
    references = []
    for number, scene in enumerate(scenes):
        progress("FP32 outputs to tune towards", number, len(scenes))
        references.append(subject.predict(scene, check=True))
    student = Student(subject.model, subject.layers, start.weights, recipe)
    course = _Course(start)
    _take_up(course, student, parts)
    every = max(1, math.ceil(recipe.steps / JUDGED))
    orders = batches(len(scenes), recipe, skip=course.step)
    while course.step < recipe.steps and not course.best.stopped:
        progress(f"tuning the whole model, damage {course.best.damage:.1e}", course.step, recipe.steps)
        student.refresh()
        loss = _backward(subject, student, [(scenes[i], references[i]) for i in next(orders)], weights or {})
        if not math.isfinite(loss):
            course.best = replace(course.best, stopped=f"the loss is {loss} after {course.step} steps")
            break
        share = recipe.share(course.step, recipe.steps)
        student.move(WHOLE_CODES * share, WHOLE_SCALES * share)
        course.step += 1
        if course.step % every == 0 or course.step == recipe.steps:
            _judge(course, student, judge)
            _keep(course, student, parts)
    return replace(course.best, steps=course.step)


def batches(count: int, recipe: Recipe, skip: int = 0) -> Iterator[list[int]]:
    """Numbers of the scenes of every step, without end: each scene as often as any other, in random order.

    >>> steps = batches(3, Recipe(batch=2))
    >>> sorted(next(steps) + next(steps) + next(steps))
    [0, 0, 1, 1, 2, 2]
    >>> again = batches(3, Recipe(batch=2), skip=1)
    >>> next(again) == [list(b) for _, b in zip(range(2), batches(3, Recipe(batch=2)))][1]
    True
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < recipe.batch:
            waiting += torch.randperm(count, generator=generator).tolist()
        batch, waiting = waiting[: recipe.batch], waiting[recipe.batch :]
        if skip:
            skip -= 1
        else:
            yield batch


def _backward(
    subject: Subject,
    student: Student,
    batch: Sequence[tuple[Scene, Mapping[str, Tensor]]],
    weights: Mapping[str, float],
) -> float:
    """The mean loss of some scenes; its gradients are left at the weights in place."""
    total = 0.0
    with student.in_place(), passes(subject):
        for scene, references in batch:
            loss = outputs_error(subject.run(scene, check=False), references, weights) / len(batch)
            if loss.requires_grad:
                loss.backward()
            total += float(loss.detach())
    return total


@contextmanager
def passes(subject: Subject) -> Iterator[None]:
    """Within the block passes have gradients, for what stands in the place of weights alone."""
    with with_gradients(subject, (), torch.float32), differentiable(), subject.as_written():
        yield


def _judge(course: _Course, student: Student, judge: Judge) -> None:
    weights = student.encoded()
    damage = judge(weights)
    best = replace(course.best, history=(*course.best.history, (course.step, damage)))
    course.best = replace(best, weights=weights, damage=damage) if damage < best.damage else best


def _keep(course: _Course, student: Student, parts: Parts | None) -> None:
    if parts is not None:
        facts = {"step": course.step, "damage": course.best.damage, "history": np.array(course.best.history)}
        best = arrays_of(course.best.weights)
        parts.save(STATE, {**with_prefix("state/", student.state()), **with_prefix("best/", best), **facts})


def _take_up(course: _Course, student: Student, parts: Parts | None) -> None:
    """Go on where an earlier process stopped, if one did."""
    if parts is None or STATE not in parts.done():
        return
    arrays = parts.load(STATE)
    student.load(of_prefix("state/", arrays))
    course.step = int(arrays["step"])
    history = tuple((int(step), float(damage)) for step, damage in arrays["history"])
    weights = weights_from(of_prefix("best/", arrays), course.best.weights)
    course.best = replace(course.best, weights=weights, damage=float(arrays["damage"]), history=history)
