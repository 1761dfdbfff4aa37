"""Is the estimate right on networks that are no VGGT, or refused with a reason? JSON on the last line.

Run: ``python benchmarks/trust/models.py [NAME ...]``. For every network of `benchmarks.trust.foreign`, each layer's
estimated damage at INT4 groups of 128 is held against what the layer alone does: a fresh network, copies of the inputs,
that layer's weight replaced. A layer counts as right within a factor of 2, or where both are below the floor of the
network's own precision. The model is given to the tool as a user gives it: by the name of the function that makes it.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.trust import foreign
from sensitivity.estimate_check import noise_floors
from sensitivity.jacobian_sketch import foreseen_route, sketch_damage
from sensitivity.own_derivatives import check_derivatives
from sensitivity.scrutiny import scrutinise
from sensitivity.weight_errors import WeightErrors
from vggtkit.core.errors import InputError
from vggtkit.quant import simulate_layer, weight_of
from vggtkit.scenes import Scene
from vggtkit.subject import ModuleSubject, Subject
from vggtkit.subject.factory import bake_parametrizations, leave_inference_mode, unwrap

SCHEME = "int4_group_128"
PROBES = 64
FACTOR = 2.0
FP32 = torch.float32


class Row(NamedTuple):
    """One layer and output.

    Attributes:
        layer: its name.
        output: its name.
        estimated: damage.
        measured: damage.
        floor: below which neither means anything.
    """

    layer: str
    output: str
    estimated: float
    measured: float
    floor: float

    def within(self, factor: float) -> bool:
        """Whether estimate and measurement agree."""
        low, high = sorted(max(value, self.floor) for value in (self.estimated, self.measured))
        return high <= factor * low


def subject_of_name(name: str) -> Subject:
    """A fresh network, prepared as `vggtkit.subject.load_custom` does."""
    model = unwrap(foreign.MODELS[name]())
    leave_inference_mode(model)
    bake_parametrizations(model)
    return ModuleSubject(model, f"foreign:{name}")


def scenes_of(name: str) -> list[Scene]:
    """Its inputs as scenes."""
    nothing = torch.zeros(0)
    return [Scene(f"{name}[{n}]", nothing, nothing, inputs=(x,)) for n, x in enumerate(foreign.inputs_of(name))]


def estimated(name: str, probes: int = PROBES) -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
    """Per output the damage of every layer, ``[layers]``, and the floors.

    Raises:
        InputError: the network is refused.
    """
    subject, scenes = subject_of_name(name), scenes_of(name)
    layers = subject.layers
    facts = scrutinise(subject, layers, scenes)
    check_derivatives(subject, layers, scenes[0], foreseen_route(subject, layers, scenes[0], FP32), FP32)
    errors = WeightErrors(subject.model, layers, [SCHEME])
    by_scene = [sketch_damage(subject, layers, errors, s, probes=probes, seed=n) for n, s in enumerate(scenes)]
    estimates = {key: torch.stack([one[key] for one in by_scene]).mean(0)[:, 0] for key in by_scene[0]}
    return estimates, noise_floors(facts, tuple(estimates))


@torch.no_grad()
def measured(name: str, layer: str | None = None) -> list[dict[str, Tensor]]:
    """The outputs of a fresh network, scene by scene, one layer's weight replaced."""
    outputs = []
    for scene in scenes_of(name):
        subject = subject_of_name(name)
        for own in subject.layers:
            if own.name == layer:
                weight = weight_of(subject.model, own)
                weight.data = simulate_layer(subject.model.get_submodule(layer), SCHEME, layer).to(weight.dtype)
        outputs.append(subject.predict(scene))
    return outputs


def rows_of(name: str, probes: int = PROBES) -> list[Row]:
    """Estimate beside measurement for every layer and output of a network.

    Raises:
        InputError: the network is refused.
    """
    damage, floors = estimated(name, probes)
    reference = measured(name)
    rows = []
    for number, layer in enumerate(subject_of_name(name).layers):
        changed = measured(name, layer.name)
        for output, values in damage.items():
            nmse = [_nmse(one[output], other[output]) for one, other in zip(reference, changed, strict=True)]
            rows.append(Row(layer.name, output, float(values[number]), sum(nmse) / len(nmse), floors[output]))
    return rows


def _nmse(reference: Tensor, candidate: Tensor) -> float:
    error = float((candidate.double() - reference.double()).square().sum())
    return error / float(reference.double().square().sum()) if error else 0.0


def report(names: list[str]) -> dict[str, Any]:
    """Counts over the networks."""
    start = time.perf_counter()
    refusals: dict[str, str] = {}
    wrong: list[str] = []
    layers = above = within = 0
    for name in names:
        try:
            rows = rows_of(name)
        except InputError as error:
            refusals[name] = str(error)
            if name not in foreign.REFUSED:
                wrong.append(f"{name}: refused")
            continue
        if name in foreign.REFUSED:
            wrong.append(f"{name}: not refused")
        layers += len({row.layer for row in rows})
        loud = [row for row in rows if max(row.estimated, row.measured) > row.floor]
        above, within = above + len(loud), within + sum(row.within(FACTOR) for row in loud)
        far = [row for row in loud if not row.within(FACTOR)]
        wrong += [f"{name}: {r.layer} -> {r.output}, {r.estimated:.1e} for {r.measured:.1e}" for r in far]
        print(f"{name:34} {len(rows):3} layers and outputs, {len(loud):3} above the floor")
    return {
        "modules": len(names), "profiled": len(names) - len(refusals), "layers": layers, "above_floor": above,
        "within_factor_2": within, "refused": refusals, "wrong": len(wrong), "wrong_ones": wrong,
        "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(json.dumps(report(sys.argv[1:] or list(foreign.MODELS))))
