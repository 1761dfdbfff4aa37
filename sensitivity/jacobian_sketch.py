"""What quantising a layer does to the model's outputs, estimated for all layers from a few backward passes.

To first order, changing a layer's weight from W to W + dW changes an output f, divided by its own norm, by J dW, where
J is the Jacobian with respect to that weight. For a random vector v of independent standard normal numbers,

    E[<J^T v, dW>^2] = E[(v . J dW)^2] = |J dW|^2,

which is the normalised squared error (NMSE) of the output. J^T v is what one backward pass of ``v . f`` leaves at
every weight at once, so a handful of passes gives the damage of every layer in every format. Summing over the calls
of a layer before squaring, which a layer that runs several times needs, is what the gradient of its weight already
does.

The inner products themselves have signs: those of several layers add up before they are squared, so they also say,
to first order, what layers do together (`mixedprec.joint`).

The estimate of a probe has a relative standard deviation of at most sqrt(2); scenes and probes average it down.
Source of the estimator: Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989.

All outputs and probes go back through the model together, a segment at a time (`sensitivity.segments`), so every layer
is quantised once per scene, the gradients of one segment's weights are in memory at a time, and a model at full size
needs no more than its weights and a few gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from sensitivity.attention_gradients import kept_attention_weights
from sensitivity.going_back import differentiated, gradients_of, norm_of, tape_of, with_gradients
from sensitivity.input_rounding import InputErrors
from sensitivity.route import Route, nmse_by_output, route_of
from sensitivity.segments import Gradients, Tape
from sensitivity.weight_errors import NOISE_DRAWS, WeightErrors
from vggtkit.core.errors import InputError
from vggtkit.model.outputs import OUTPUTS
from vggtkit.quant import Layer, replaced_weights, simulate_layer, weight_of
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

Outcomes = TypeVar("Outcomes")
Vectors = Callable[[dict[str, Tensor]], Iterable[tuple[Tensor, Tensor]]]
"""Gives every output with the vectors that are multiplied with it, as many of each."""

DEFAULT_PROBES = 4
FLOAT = 4
TRIAL, TINY = "int4_group_128", 1e-12
"""Format, and least damage, of the measurement that decides what ``detach`` means."""


def sketch_damage(
    subject: Subject,
    layers: Sequence[Layer],
    errors: WeightErrors,
    scene: Scene,
    *,
    probes: int = DEFAULT_PROBES,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """First-order NMSE of each output on one scene when only one layer is quantised.

    The arguments are those of `sketch_changes`.

    Returns:
        Per output, float64 ``[layers, schemes]``; exactly 0 for layers that the output does not depend on.
    """
    changes = sketch_changes(subject, layers, errors, scene, probes=probes, seed=seed, dtype=dtype)
    return {name: value.square().mean(2) for name, value in changes.items()}


class Sketch(NamedTuple):
    """First-order changes of outputs along random vectors, as `sketch_changes` describes them.

    Attributes:
        weights: of the errors of weights, per output ``[layers, schemes, probes]``.
        inputs: of rounded inputs, per output ``[layers, activation formats, probes]``; NaN where a layer has none.
        noise: mean square of the changes by Gaussian noise of the errors' norm, per output ``[layers, schemes]``.
        repeated: whether parts that were computed once more gave the same bits.
    """

    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    noise: dict[str, Tensor]
    repeated: bool


def sketch_changes(
    subject: Subject,
    layers: Sequence[Layer],
    errors: WeightErrors,
    scene: Scene,
    *,
    probes: int = DEFAULT_PROBES,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    through_detach: bool | None = None,
) -> dict[str, Tensor]:
    """First-order change of each output, divided by its norm, along random vectors, by layer and scheme.

    Its mean square over the vectors is the NMSE that the layer alone causes; that of a sum over layers, what they
    cause together.

    Args:
        subject: its weights do not change.
        layers: of `vggtkit.quant.find_layers`.
        errors: of the same layers.
        scene: a calibration scene.
        probes: random vectors per output.
        seed: of the random vectors; give every scene its own.
        dtype: that gradients are taken in: they need less precision than what they are compared for.
        through_detach: what `ignores_detach` says of the model; by default it is asked on this scene.

    Returns:
        Per output, float64 ``[layers, schemes, probes]``; exactly 0 for layers that the output does not depend on.

    Raises:
        InputError: a model that is not VGGT cannot be differentiated, or no gradient reaches a layer that matters.
    """
    nothing = InputErrors(subject.model, layers, ())
    return sketch_errors(
        subject, layers, errors, nothing, scene, probes=probes, seed=seed, dtype=dtype, through_detach=through_detach
    ).weights


def sketch_errors(
    subject: Subject,
    layers: Sequence[Layer],
    errors: WeightErrors,
    inputs: InputErrors,
    scene: Scene,
    *,
    probes: int = DEFAULT_PROBES,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    through_detach: bool | None = None,
) -> Sketch:
    """What errors of weights and rounded inputs change, both from the same backward passes.

    The arguments are those of `sketch_changes`, with ``inputs`` for the inputs of the same layers.

    Raises:
        InputError: as `sketch_changes`.
    """
    draw = partial(random_vectors, probes=probes, seed=seed)
    if subject.segments_are_known:
        recording = RecordedForward(subject, layers, inputs, dtype)
        recording.take(scene)
        return recording.sketch(errors, draw)
    if through_detach is None:
        through_detach = ignores_detach(subject, layers, scene, dtype)

    def passes(route: Route) -> Sketch:
        return _changes(subject, layers, errors, inputs, scene, draw, route)

    return differentiated(subject, layers, scene, passes, dtype, through_detach=through_detach)


def foreseen_route(
    subject: Subject, layers: Sequence[Layer], scene: Scene, dtype: torch.dtype, *, through_detach: bool = False
) -> Route:
    """How `sketch_changes` will go back through a scene, as far as it is known before.

    Raises:
        InputError: it cannot.
    """
    with with_gradients(subject, layers, dtype):
        return route_of(subject, layers, scene, through_detach=through_detach)


def ignores_detach(subject: Subject, layers: Sequence[Layer], scene: Scene, dtype: torch.dtype) -> bool:
    """Whether gradients say more of a model when ``detach`` within it is ignored.

    Iterations are detached from each other for training's sake and pass errors on all the same; a straight-through
    estimator detaches what has no derivative. Which it is decides a measurement: how far `TRIAL` in all layers moves
    every output, beside how far either way says that it does in that very direction, for one pass back an output.

    Raises:
        InputError: the model cannot be differentiated.
    """
    if not foreseen_route(subject, layers, scene, dtype).detaches:
        return False
    weights = {la.name: simulate_layer(subject.model.get_submodule(la.name), TRIAL, la.name) for la in layers}
    reference = subject.predict(scene)
    with replaced_weights(subject.model, weights):
        moved = subject.predict(scene)
    measured = nmse_by_output(reference, moved)
    errors, nothing = WeightErrors(subject.model, layers, [TRIAL]), InputErrors(subject.model, layers, ())
    draw = partial(_towards, moved={name: _direction(value, moved.get(name)) for name, value in reference.items()})

    def passes(route: Route) -> Sketch:
        return _changes(subject, layers, errors, nothing, scene, draw, route)

    distances = []
    for through in (False, True):
        try:
            changes = differentiated(subject, layers, scene, passes, dtype, through_detach=through).weights
        except InputError:
            distances.append(math.inf)
            continue
        jointly = {name: max(0.0, float(values.sum())) ** 2 for name, values in changes.items()}
        distances.append(sum(_apart(jointly[name], measured[name]) for name in jointly))
    return distances[1] < distances[0]


def _direction(reference: Tensor, moved: Tensor | None) -> Tensor:
    """Of length 1, from an output to what it becomes; zeros where that is not finite, or of another shape."""
    if moved is None or moved.shape != reference.shape:
        return torch.zeros_like(reference)
    way = moved.double() - reference.double()
    length = way.norm()
    return (way / length if bool(length.isfinite()) and length > 0 else torch.zeros_like(way)).to(reference)


def _apart(estimated: float, measured: float) -> float:
    """How many times one is the other, as a logarithm; what is tiny or not finite counts as little and as much."""
    low, high = (min(max(value, TINY), 1.0) for value in (estimated, measured))
    return abs(math.log(low / high))


class RecordedForward:
    """A pass of a model whose segments are known, to be gone back through later, in any precision.

    Whatever else happens during the pass, errors of layers can be seen in it, no other one is needed.

    Args:
        subject: its weights do not change.
        layers: of `vggtkit.quant.find_layers`.
        inputs: of the same layers.
        dtype: that the way back computes in.

    Attributes:
        outputs: of the pass; whoever runs it within `taking` sets them.
    """

    def __init__(self, subject: Subject, layers: Sequence[Layer], inputs: InputErrors, dtype: torch.dtype) -> None:
        self.subject, self.layers, self.inputs, self.dtype = subject, layers, inputs, dtype
        self.tape = _tape(subject, layers, inputs, Route(subject.segments()), subject.lowered_segments(dtype))
        self.outputs: dict[str, Tensor] = {}

    @contextmanager
    def taking(self) -> Iterator[None]:
        """The pass runs inside."""
        with (
            torch.enable_grad(),
            gradients_of(self.subject, self.layers),
            self.inputs.watching(),
            self.tape.recording(),
        ):
            yield

    def take(self, scene: Scene) -> None:
        """The pass over a scene, and nothing beside it."""
        with self.taking():
            self.outputs = self.subject.run(scene)

    def sketch(self, errors: WeightErrors, draw: Vectors) -> Sketch:
        """As `sketch_errors`; once."""
        with (
            with_gradients(self.subject, self.layers, self.dtype),
            self.inputs.watching(),
            kept_attention_weights(self.dtype),
        ):
            return _gone_back(self.tape, self.layers, errors, self.inputs, self.outputs, list(draw(self.outputs)))


def _changes(
    subject: Subject, layers: Sequence[Layer], errors: WeightErrors, inputs: InputErrors, scene: Scene, draw: Vectors,
    route: Route,
) -> Sketch:  # fmt: skip
    """`sketch_errors` on a given way back."""
    tape = _tape(subject, layers, inputs, route, {})
    with inputs.watching():
        with tape.recording(), route.running():
            outputs = subject.run(scene)
        return _gone_back(tape, layers, errors, inputs, outputs, list(draw(outputs)))


def _tape(
    subject: Subject, layers: Sequence[Layer], inputs: InputErrors, route: Route, lowered: Mapping[str, torch.dtype]
) -> Tape:
    places = [set(used) for used in route.places] if route.places is not None else [set() for _ in layers]
    places += [inputs.places(route.segments, row) | places[row] for row in inputs.rows]
    weights = [*(weight_of(subject.model, layer) for layer in layers), *inputs.steps]
    return tape_of(route, weights, places, lowered)


def _gone_back(
    tape: Tape, layers: Sequence[Layer], errors: WeightErrors, inputs: InputErrors, outputs: dict[str, Tensor],
    drawn: Sequence[tuple[Tensor, Tensor]],
) -> Sketch:  # fmt: skip
    """The changes of a recorded pass."""
    probes = len(drawn) // len(outputs)
    # The norm of the reference is a constant of the metric, not something to differentiate. An output of zeros has no
    # error relative to it, whatever changes.
    norms = [norm_of(value) for value in outputs.values() for _ in range(probes)]
    halved = [value.element_size() < FLOAT for value in outputs.values() for _ in range(probes)]
    cotangents = [v if late else v / norm for (_, v), norm, late in zip(drawn, norms, halved, strict=True)]
    repeated = [value for value in outputs.values() for _ in range(probes)]
    changes = torch.zeros(len(layers), len(repeated), len(errors.schemes), dtype=torch.float64)
    of_inputs = torch.full((len(layers), len(repeated), len(inputs.formats)), torch.nan, dtype=torch.float64)
    of_inputs[inputs.rows] = 0
    of_noise = torch.zeros(len(layers), len(repeated), NOISE_DRAWS, dtype=torch.float64)

    def consume(rows: list[int], gradients: list[Gradients]) -> None:
        for row, of_weight in zip(rows, gradients, strict=True):
            there = [c for c, gradient in enumerate(of_weight) if gradient is not None]
            known = [gradient for gradient in of_weight if gradient is not None]
            of_weight.clear()
            if known and row < len(layers):
                of_errors, noise = errors.products(layers[row], known)
                changes[row, there] += of_errors
                of_noise[row, there] += noise
            elif known:
                of_inputs[inputs.rows[row - len(layers)], there] += torch.stack(known).double().cpu()

    tape.back(repeated, cotangents, consume)
    by_kind = []
    for values in (changes, of_inputs, of_noise):
        for column in [number for number, late in enumerate(halved) if late]:
            values[:, column] /= norms[column].cpu()  # gradients in half precision would have vanished below it
        by_output = values.unflatten(1, (len(outputs), probes)).transpose(2, 3)
        by_kind.append({name: by_output[:, number].clone() for number, name in enumerate(outputs)})
    of_weights, by_inputs, by_noise = by_kind
    squares = errors.squared_norms()
    noise = {name: squares * values.square().mean((1, 2))[:, None] for name, values in by_noise.items()}
    return Sketch(of_weights, by_inputs, noise, tape.same)


def random_vectors(outputs: dict[str, Tensor], probes: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every output with each of its random vectors."""
    for number, value in enumerate(outputs.values()):
        generator = torch.Generator().manual_seed(seed * len(OUTPUTS) + number)
        for _ in range(probes):
            yield value, torch.randn(value.shape, generator=generator).to(value)


def _towards(outputs: dict[str, Tensor], moved: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Every output with where it goes."""
    for name, value in outputs.items():
        yield value, moved[name].to(value)
