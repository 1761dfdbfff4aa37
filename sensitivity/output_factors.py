"""What an error of a weight does to the outputs, as a product of two matrices: of inputs and of output channels.

With D the gradient of a random combination of the outputs with respect to a weight (each output over its own norm), the
outputs change by ``<D, E>`` along it to first order, and its mean square is the damage of the error E. That is taken
for ``tr(G E H E^T)``, ``G = sum D D^T`` and ``H = sum D^T D``: D has the gradients of all places together, so errors of
places that add up count as they do. H is estimated from few D, hence half of it is that of the layer's inputs
(`sensitivity.moments`), both over their mean diagonal. The fewer rows a layer was seen with for each of its inputs, the
more is added to that diagonal: what H says of those rows is not what other scenes will say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from sensitivity.going_back import differentiated
from sensitivity.jacobian_sketch import ignores_detach
from sensitivity.layer_rows import part_count
from sensitivity.moments import Moments, input_moments, recorded
from sensitivity.route import Route
from sensitivity.segments import Gradients
from vggtkit.core.errors import InputError
from vggtkit.core.memory import free_bytes
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.quant import Layer, out_first
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

PROBES = 8
"""Random combinations of the outputs, for each scene."""
SHARE = 0.5
"""Of H that comes from the gradients: with all of it a plan did 1.29e-4, with none 1.22e-4, with half 1.07e-4 (bundled
network, 8 rooms, 75 % of the bytes of INT4 groups of 128)."""
FEW_ROWS = 0.6
"""Times inputs over rows, of the mean diagonal, that is added to H: second layers of MLPs, with 4 rows an input, leave
30 % less damage on other rooms with it, others are level (36 layers of the bundled network, 8 rooms, judged on 14)."""


def output_factors(
    subject: Subject,
    layers: Sequence[Layer],
    scenes: Sequence[Scene],
    *,
    only: Sequence[Layer] | None = None,
    weights: Mapping[str, float] | None = None,
    probes: int = PROBES,
    seed: int = 0,
    progress: Progress = silent,
) -> Moments:
    """Both matrices; of a layer that no output hears, the inputs' alone.

    Args:
        subject: not packed.
        layers: of `vggtkit.quant.find_layers`.
        scenes: to calibrate with.
        only: of these, which ones are wanted; their numbers do not depend on which others are.
        weights: how much each output counts; all the same by default.
        probes: random combinations of the outputs.
        seed: of these.
        progress: told about every scene.

    Returns:
        Second moments with `Moments.channels`.

    Raises:
        InputError: the model cannot be differentiated, or the gradients do not fit into memory.
    """
    wanted = layers if only is None else only
    check_gradients_fit(subject, wanted, probes)
    moments = input_moments(subject, wanted, scenes, progress)
    heard: dict[str, Tensor] = {}
    stage = "what changes of weights do to the outputs"
    for gradients in gradients_by_scene(subject, layers, wanted, scenes, weights, probes, seed, progress, stage):
        for name, of_layer in gradients.items():
            if name in moments.sums:
                _add(moments, heard, name, of_layer)
    for name, of_gradients in heard.items():
        if bool(of_gradients.any()):
            mixed = (1 - SHARE) * _scaled(moments.sums[name]) + SHARE * _scaled(of_gradients)
            mixed.diagonal(dim1=1, dim2=2).add_(FEW_ROWS * mixed.shape[-1] / moments.rows[name])
            moments.sums[name] = mixed
    return moments


def check_gradients_fit(subject: Subject, layers: Sequence[Layer], probes: int) -> None:
    """Refuse more gradients than there is memory for.

    Raises:
        InputError: so it is.
    """
    needed, free = 4 * probes * sum(layer.weights for layer in layers), free_bytes(subject.device)
    if free is not None and needed > free:
        raise InputError(
            f"gradients of all weights take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB of memory are free: "
            f"{setting('rounding', 'output_descent')} needs none"
        )


def gradients_by_scene(
    subject: Subject, layers: Sequence[Layer], wanted: Sequence[Layer], scenes: Sequence[Scene],
    weights: Mapping[str, float] | None, probes: int, seed: int, progress: Progress, stage: str,
) -> Iterator[dict[str, Tensor]]:  # fmt: skip
    """What `weight_gradients` gives of every scene in turn, each with a seed of its own; ``stage`` is told with it."""
    through = ignores_detach(subject, layers, scenes[0], torch.float32)
    for number, scene in enumerate(scenes):
        progress(f"{stage}, scene {number + 1}", number, len(scenes))
        seed_of_scene = seed * len(scenes) + number
        yield weight_gradients(subject, layers, wanted, scene, weights, probes, seed_of_scene, through)


def weight_gradients(
    subject: Subject, layers: Sequence[Layer], wanted: Sequence[Layer], scene: Scene,
    weights: Mapping[str, float] | None, probes: int, seed: int, through_detach: bool,
) -> dict[str, Tensor]:  # fmt: skip
    """Gradients of random combinations of a scene's outputs, ``[probes, out, in]`` by layer, summed over its calls.

    Args:
        subject: not packed.
        layers: of `vggtkit.quant.find_layers`.
        wanted: of these, which ones are returned, where any output hears them.
        scene: what the model sees.
        weights: how much each output counts; 1 for each by default, 0 for those not named.
        probes: random combinations, each output over its norm.
        seed: of these.
        through_detach: what `sensitivity.jacobian_sketch.ignores_detach` says of the model.

    Raises:
        InputError: the model cannot be differentiated.
    """
    gather = partial(_gradients, subject, layers, wanted, weights, probes, seed, scene)
    return differentiated(subject, layers, scene, gather, through_detach=through_detach)


def _gradients(
    subject: Subject, layers: Sequence[Layer], wanted: Sequence[Layer], weights: Mapping[str, float] | None,
    probes: int, seed: int, scene: Scene, route: Route,
) -> dict[str, Tensor]:  # fmt: skip
    tape, losses = recorded(subject, layers, scene, weights, probes, seed, route)
    names, sums = {layer.name for layer in wanted}, dict[str, Tensor]()

    def consume(rows: list[int], gradients: list[Gradients]) -> None:
        for row, of_weight in zip(rows, gradients, strict=True):
            layer = layers[row]
            for probe, gradient in enumerate(of_weight):
                if gradient is not None and layer.name in names:
                    value = out_first(gradient.detach(), layer.kind).flatten(1).float()
                    own = sums.setdefault(layer.name, value.new_zeros(probes, *value.shape))
                    own[probe] += value

    tape.back(losses, [torch.ones_like(loss) for loss in losses], consume)
    return sums


@torch.no_grad()
def _add(moments: Moments, heard: dict[str, Tensor], name: str, gradients: Tensor) -> None:
    """``D^T D`` and ``D D^T`` of a layer, part by part."""
    parts = gradients.unflatten(1, (part_count(moments.modules[name]), -1))  # [probes, parts, out / parts, in]
    of_inputs = torch.einsum("npoi,npoj->pij", parts, parts)
    of_channels = torch.einsum("npoi,npqi->poq", parts, parts)
    heard[name] = heard[name] + of_inputs if name in heard else of_inputs
    before = moments.channels.get(name)
    moments.channels[name] = of_channels if before is None else before + of_channels


def _scaled(moments: Tensor) -> Tensor:
    return moments / moments.diagonal(dim1=1, dim2=2).mean().clamp_min(torch.finfo(torch.float32).tiny)
