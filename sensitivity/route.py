"""How a model is differentiated on a scene: which modules alone, and what has to be done so that it can be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sensitivity.dataflow import observe
from sensitivity.differentiable import DetachWatch, differentiable, without_gradients
from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse_or_inf
from vggtkit.quant import Layer, replaced_weights, weight_of
from vggtkit.scenes import Scene
from vggtkit.subject import Subject
from vggtkit.subject.factory import describe_error

SAME = 1e-3
"""NMSE between passes with and without gradients up to which they are the same; another kernel rounds otherwise."""
EXACT = 1e-12
"""NMSE of an output below which nothing has changed, for models whose passes are repeatable."""


@dataclass(frozen=True)
class Route:
    """How to go back through a model.

    Attributes:
        segments: modules that are gone back through one at a time.
        places: see `sensitivity.segments.Tape`; None where weights are used by the segments that hold them.
        reused: the same.
        unsound: why other candidates are no segments, by name.
        through_no_grad: ``torch.no_grad`` within the model is ignored.
        through_detach: so is ``detach``.
        in_place: tensors that are needed on the way back are worked on in place.
        checked: segments have to give the same when they are computed once more.
        detaches: the model stops gradients with ``detach``.
        functions: what in the model brings derivatives of its own: functions, hooks.
    """

    segments: Mapping[str, nn.Module]
    places: Sequence[Collection[str | None]] | None = None
    reused: Collection[str] = ()
    unsound: Mapping[str, str] = field(default_factory=dict)
    through_no_grad: bool = False
    through_detach: bool = False
    in_place: bool = False
    checked: bool = False
    detaches: bool = False
    functions: Collection[str] = ()

    def without(self, name: str, reason: str) -> Route:
        """The same with a segment that is differentiated as part of the whole."""
        segments = {key: module for key, module in self.segments.items() if key != name}
        places = None if self.places is None else [self._outside(used, name) for used in self.places]
        return replace(self, segments=segments, places=places, unsound={**self.unsound, name: reason})

    @staticmethod
    def _outside(used: Collection[str | None], name: str) -> frozenset[str | None]:
        return frozenset(None if place == name else place for place in used)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block the model, or a part of it, can be differentiated."""
        with ExitStack() as undo:
            if self.checked:
                undo.enter_context(
                    differentiable(through_no_grad=self.through_no_grad, through_detach=self.through_detach)
                )
            yield


def route_of(subject: Subject, layers: Sequence[Layer], scene: Scene, *, through_detach: bool = False) -> Route:
    """Find out how to differentiate a model, in a pass over a scene; parameters' flags are the caller's.

    Args:
        subject: to be differentiated.
        layers: whose weights require gradients.
        scene: what it is run on.
        through_detach: ignore ``detach``; so it is done, too, where layers are cut off otherwise.

    Raises:
        InputError: the outputs depend on a layer that no gradient reaches, or the pass fails.
    """
    if subject.segments_are_known:
        return Route(subject.segments())
    asked = Route({}, through_no_grad=True, through_detach=through_detach, checked=True)
    try:
        route = _observed(subject, layers, scene, asked)
    except InputError:  # say, a weight is changed in place where gradients are off
        route = _observed(subject, layers, scene, replace(asked, through_no_grad=False))
    culprit = _cut_off(subject, _unreached(layers, route), scene)
    if culprit is None:
        return route
    try:
        straight = _observed(subject, layers, scene, replace(route, through_detach=True))
    except InputError:
        straight = route
    culprit = _cut_off(subject, _unreached(layers, straight), scene)
    if culprit is not None:
        raise InputError(
            f"layer {culprit.name}: the outputs depend on it, but no gradient reaches it, so its damage cannot be "
            "estimated; the usual causes in a forward are no_grad, inference_mode, detach, .item() and whole numbers "
            "(argmax, rounding)"
        )
    return straight


def _observed(subject: Subject, layers: Sequence[Layer], scene: Scene, route: Route) -> Route:
    """A pass over a scene, observed.

    Raises:
        InputError: it fails, say because what is not detached becomes a NumPy array.
    """
    candidates = subject.segments()
    weights = [weight_of(subject.model, layer) for layer in layers]
    outputs: dict[str, Tensor] = {}

    def run() -> Iterable[Tensor]:
        outputs.update(subject.run(scene))
        return outputs.values()

    try:
        with route.running(), DetachWatch() as watch:
            flow = observe(candidates, weights, run)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f"the model's forward fails where gradients are taken: {describe_error(error)}") from error
    _check_same(subject, scene, {name: value.detach() for name, value in outputs.items()})
    segments = {name: candidates[name] for name in flow.segments}
    functions = sorted(flow.functions) + ["a hook of a tensor"] * watch.hooked
    return replace(
        route, segments=segments, places=flow.places, reused=flow.reused, unsound=flow.unsound, detaches=watch.noticed,
        functions=functions,
    )  # fmt: skip


def _check_same(subject: Subject, scene: Scene, outputs: Mapping[str, Tensor]) -> None:
    """Refuse a model that gives something else where gradients are taken.

    Raises:
        InputError: it does.
    """
    with without_gradients():
        apart = nmse_by_output(subject.run(scene), outputs)
    name = max(apart, key=lambda key: apart[key])
    if not apart[name] <= SAME:
        raise InputError(
            f"the model gives something else where gradients are taken (an NMSE of {apart[name]:.1e} in output {name} "
            f"of scene {scene.name}), so that gradients say nothing of what it does without them; the usual causes are "
            "torch.is_grad_enabled() and requires_grad in the forward"
        )


def _unreached(layers: Sequence[Layer], route: Route) -> list[Layer]:
    assert route.places is not None
    return [layer for layer, used in zip(layers, route.places, strict=True) if not used]


def _cut_off(subject: Subject, layers: Sequence[Layer], scene: Scene) -> Layer | None:
    """The first of some layers that the outputs depend on, by running the model with other weights there."""
    if not layers:
        return None
    with without_gradients():
        reference, again = (subject.run(scene) for _ in range(2))
        floor = max(EXACT, 4 * largest_nmse(reference, again))
        suspects = list(layers)
        if not _moves(subject, suspects, scene, reference, floor):
            return None
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2]
            suspects = half if _moves(subject, half, scene, reference, floor) else suspects[len(half) :]
    return suspects[0]


def _moves(
    subject: Subject, layers: Sequence[Layer], scene: Scene, reference: Mapping[str, Tensor], floor: float
) -> bool:
    """Whether outputs change when the weights of some layers clearly do."""
    generator = torch.Generator().manual_seed(0)
    changed = {}
    for layer in layers:
        weight = weight_of(subject.model, layer).detach()
        noise = torch.randn(weight.shape, generator=generator).to(weight)
        changed[layer.name] = weight + (weight.std(correction=0) or 1.0) * noise
    with replaced_weights(subject.model, changed):
        outputs = subject.run(scene, check=False)
    return not largest_nmse(reference, outputs) <= floor


def largest_nmse(reference: Mapping[str, Tensor], candidate: Mapping[str, Tensor]) -> float:
    """The largest NMSE of all outputs; infinite where outputs are others.

    >>> largest_nmse({"depth": torch.tensor([3.0, 4.0])}, {"depth": torch.tensor([3.0, 4.5])})
    0.01
    """
    return max(nmse_by_output(reference, candidate).values(), default=0.0)


def nmse_by_output(reference: Mapping[str, Tensor], candidate: Mapping[str, Tensor]) -> dict[str, float]:
    """NMSE of every output; infinite where one has another shape, is not finite, or differs from zeros."""
    return {
        name: _nmse(value, candidate[name]) if name in candidate else float("inf") for name, value in reference.items()
    }


def _nmse(reference: Tensor, candidate: Tensor) -> float:
    if candidate.shape != reference.shape:
        return float("inf")
    return nmse_or_inf(reference.cpu(), candidate.cpu()) if reference.numel() else 0.0
