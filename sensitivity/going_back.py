"""Going back through a model, whatever its route allows: begun anew where the route turns out not to be sound."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor

from sensitivity.attention_gradients import kept_attention_weights
from sensitivity.differentiable import mutations
from sensitivity.route import Route, route_of
from sensitivity.segments import Tape, UnsoundError
from vggtkit.core.errors import InputError
from vggtkit.quant import Layer, weight_of
from vggtkit.scenes import Scene
from vggtkit.subject import Subject
from vggtkit.subject.factory import describe_error

Outcome = TypeVar("Outcome")


def differentiated(
    subject: Subject,
    layers: Sequence[Layer],
    scene: Scene,
    passes: Callable[[Route], Outcome],
    dtype: torch.dtype = torch.float32,
    *,
    through_detach: bool = False,
) -> Outcome:
    """Do passes back through a model on the route that it allows; begun anew where a route turns out not to.

    Args:
        subject: its weights do not change.
        layers: whose weights get gradients.
        scene: what the model sees.
        passes: forward and back on a route.
        dtype: that the trunk and the dense heads compute in here.
        through_detach: what `sensitivity.jacobian_sketch.ignores_detach` says of the model.

    Returns:
        What ``passes`` returned.

    Raises:
        InputError: a model that is not VGGT cannot be differentiated, or no gradient reaches a layer that matters.
    """
    with with_gradients(subject, layers, dtype):
        route = route_of(subject, layers, scene, through_detach=through_detach)
        while True:
            try:
                with mutations(route.in_place), subject.as_written(), kept_attention_weights(dtype):
                    return passes(route)
            except UnsoundError as error:
                route = route.without(error.name, error.reason)
            except (RuntimeError, NotImplementedError) as error:
                if subject.segments_are_known or isinstance(error, torch.OutOfMemoryError):
                    raise
                if route.in_place or "inplace" not in str(error):
                    raise InputError(
                        f"the model ({subject.source or type(subject.model).__name__}) cannot be differentiated, which "
                        f"a profile needs: {describe_error(error)}"
                    ) from error
                route = replace(route, in_place=True)


@contextmanager
def with_gradients(subject: Subject, layers: Sequence[Layer], dtype: torch.dtype) -> Iterator[None]:
    """Gradients for the weights of layers, and a precision."""
    with torch.enable_grad(), gradients_of(subject, layers), subject.differentiated_in(dtype):
        yield


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """The precision that errors of a weight of some precision are taken in.

    >>> computed_in(torch.bfloat16), computed_in(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.promote_types(dtype, torch.float32)


def tape_of(
    route: Route, weights: Sequence[Tensor], places: Sequence[Collection[str | None]] | None,
    lowered: Mapping[str, torch.dtype] = MappingProxyType({}),
) -> Tape:  # fmt: skip
    """To record a pass on a route that gradients of ``weights`` are wanted of; the others as `Tape` has them."""
    return Tape(
        route.segments, weights, places=places, reused=route.reused, running=route.running, checked=route.checked,
        lowered=lowered,
    )  # fmt: skip


def norm_of(output: Tensor) -> Tensor:
    """What an output's change is divided by; infinite for zeros, of which no change can be told."""
    norm: Tensor = output.detach().to(computed_in(output.dtype)).norm()
    return norm if norm else norm + torch.inf


@contextmanager
def gradients_of(subject: Subject, layers: Sequence[Layer]) -> Iterator[None]:
    """Gradients for the weights of layers alone; all flags are as before afterwards."""
    flags = [(parameter, parameter.requires_grad) for parameter in subject.model.parameters()]
    identities = {id(weight_of(subject.model, layer)) for layer in layers}
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in identities)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
