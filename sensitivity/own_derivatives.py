"""Models that bring derivatives of their own: each layer is held against what it does.

A ``torch.autograd.Function`` says itself what its derivative is, and a hook may change a gradient on its way.
Training wants that to be something else than the derivative at times: reversed, scaled, clipped, cut. An estimate
behind it is then wrong by any factor, which no sum over the layers need show. So where a pass meets one, every layer is
run once with its own weight quantised, and one whose estimate is far from that is refused by name. Straight-through
estimators pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sensitivity.jacobian_sketch import TRIAL, sketch_changes
from sensitivity.route import Route, largest_nmse, nmse_by_output
from sensitivity.weight_errors import WeightErrors
from vggtkit.core.errors import InputError
from vggtkit.quant import Layer, replaced_weights, simulate_layer
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

PROBES = 32
APART = 8.0
"""How many times one may be the other: the probes alone make a factor of 2, rounding in the forward more."""
FLOOR = 1e-9
"""NMSE below which neither counts."""
MOST = 256
"""Layers that are tried; of more, so many, evenly spread."""


def check_derivatives(
    subject: Subject, layers: Sequence[Layer], scene: Scene, route: Route, dtype: torch.dtype
) -> None:
    """Refuse a layer whose estimate its own run does not bear out, where the model brings derivatives of its own.

    Args:
        subject: unchanged.
        layers: of it.
        scene: what it sees.
        route: of the model; without functions of its own nothing is tried.
        dtype: that gradients are taken in.

    Raises:
        InputError: one is off by more than `APART`.
    """
    if not route.functions:
        return
    tried = layers[:: -(-len(layers) // MOST)] if layers else ()
    changes = sketch_changes(
        subject, tried, WeightErrors(subject.model, tried, [TRIAL]), scene, probes=PROBES, dtype=dtype,
        through_detach=route.through_detach,
    )  # fmt: skip
    with torch.no_grad():
        reference = subject.run(scene)
        floor = max(FLOOR, 4 * largest_nmse(reference, subject.run(scene)))
        for number, layer in enumerate(tried):
            weight = simulate_layer(subject.model.get_submodule(layer.name), TRIAL, layer.name)
            with replaced_weights(subject.model, {layer.name: weight}):
                measured = nmse_by_output(reference, subject.run(scene, check=False))
            for name, values in changes.items():
                estimated = float(values[number].square().mean())
                low, high = sorted(max(value, floor) for value in (estimated, measured[name]))
                if not high <= APART * low:
                    raise InputError(
                        f"layer {layer.name}: estimated to change output {name} by an NMSE of {estimated:.1e} at "
                        f"{TRIAL}, but does so by {measured[name]:.1e}; the model brings derivatives of its own "
                        f"({', '.join(route.functions)}), which are not those of its forward: leave them out"
                    )
