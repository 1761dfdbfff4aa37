"""Which layers keep floating-point activations where a plan is executed in whole numbers.

Rounding the inputs of layers adds damage to that of the weights, most of it in a few layers: inputs with outliers, or
with coordinates. These keep floating-point activations, as few weights of them as it takes until what is left adds no
more than a share of the plan's own damage, a tenth unless asked otherwise. To first order the damages of layers add up,
so this is a knapsack (most damage kept away per weight) that going from the most damage per weight down solves but for
the last layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mixedprec.evidence import SKETCH
from mixedprec.planner import Planned
from sensitivity import Profile
from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.quant import Layer
from vggtkit.runtime.backend import RUNNABLE, Backend

FLOAT = "bfloat16"
"""How a layer is told to run that keeps floating-point activations; in FP32 where bfloat16 gains nothing."""
TOLERATED = 0.1
"""What rounded inputs may add, as a share of the damage that a plan predicts of its weights."""
OTHERWISE = (0.1, 0.3, 1.0, 3.0)
"""Such shares, of which is told how many weights would keep floating-point activations."""


@dataclass(frozen=True)
class ExecutionChoice:
    """How layers are executed, and what that is expected to do.

    Attributes:
        backend: key of the backend.
        kept: names of layers that keep floating-point activations, from the most damage per weight down.
        added: damage that rounding the inputs of all others adds.
        without: the same if none were kept.
        share: of the weights of linear layers, those of the kept ones.
        tolerated: what the others might add, as a share of the plan's predicted damage.
        otherwise: `share`, by what else might be tolerated.
    """

    backend: str
    kept: tuple[str, ...]
    added: float
    without: float
    share: float
    tolerated: float = TOLERATED
    otherwise: Mapping[float, float] = field(default_factory=dict)


def damage_of_inputs(planned: Planned, profile: Profile, backend: Backend) -> dict[str, float]:
    """What rounding its input adds to the damage of each layer that a backend runs in whole numbers.

    Args:
        planned: the formats of the weights, and what each output counts for.
        profile: that the plan was made from.
        backend: says to what it rounds the input of a product with a weight in some format.

    Raises:
        InputError: the profile was made without that format of activations.
    """
    evidence, rows = planned.search_space.evidence, {layer.name: row for row, layer in enumerate(profile.layers)}
    shares = evidence.shares()
    by_format: dict[str, dict[str, Array]] = {}
    damage = {}
    for layer in evidence.layers:
        key = backend.rounds_inputs_to(planned.plan.formats[layer.name])
        if key is None:
            continue
        if key not in by_format:
            by_format[key] = profile.activation_damage(key)
        by_output = by_format[key]
        total = math.fsum(share * float(by_output[name][rows[layer.name]]) for name, share in shares.items())
        if not math.isnan(total):  # it is no product with each token, so its input is not rounded
            damage[layer.name] = total
    return damage


def choose_float(layers: Sequence[Layer], damage: Mapping[str, float], allowed: float) -> list[str]:
    """The layers to keep in floating point so that what rounding the other inputs adds is no more than allowed.

    Args:
        layers: of the model.
        damage: that rounding its input adds, by layer.
        allowed: what may be added in all.

    >>> layers = [Layer(name, "linear", "mlp", "vit.0", (2, n), 2 * n) for name, n in (("a", 4), ("b", 4), ("c", 40))]
    >>> choose_float(layers, {"a": 5.0, "b": 0.1, "c": 6.0}, allowed=7.0)
    ['a']
    """
    weights = {layer.name: layer.weights for layer in layers}
    order = sorted(damage, key=lambda name: -damage[name] / weights[name])
    kept: dict[str, None] = {}  # in this order; a list would be searched for every layer
    for name in order:
        if math.fsum(damage[other] for other in damage if other not in kept) <= allowed:
            break
        kept[name] = None
    for name in list(kept):  # the last one may have made some before it unnecessary
        if math.fsum(damage[other] for other in damage if other == name or other not in kept) <= allowed:
            del kept[name]
    return list(kept)


def _check(planned: Planned, backend: Backend) -> None:
    plan, name = planned.plan, setting("execute", backend.key)
    if plan.score != SKETCH:
        raise InputError(
            f"{name}: damage of rounded activations is by {SKETCH!r}, the plan's is by {plan.score!r}; leave out "
            f"{setting('score', plan.score)}"
        )
    linear = [layer.name for layer in planned.search_space.evidence.layers if layer.kind == "linear"]
    refused = [layer for layer in linear if not backend.runs(plan.formats[layer], "linear")]
    if refused:
        raise InputError(
            f"{name}: it does not run {len(refused)} linear layers of this plan, first {refused[0]} "
            f"({plan.formats[refused[0]]}): plan with {setting('formats', RUNNABLE)}"
        )


def with_execution(
    planned: Planned, profile: Profile, backend: Backend, tolerated: float = TOLERATED
) -> tuple[Planned, ExecutionChoice]:
    """The plan as a backend is to execute it, and what was chosen.

    Args:
        planned: the formats of the weights.
        profile: that the plan was made from.
        backend: that executes it.
        tolerated: what rounded inputs may add, as a share of the damage that the plan predicts of its weights.

    Raises:
        InputError: the plan is not by the sketch, the backend does not run a format of a linear layer, the share is
            no number from 0 up, or as `damage_of_inputs`.
    """
    if not 0 <= tolerated < math.inf:
        raise InputError(f"{setting('inputs_add', f'{tolerated:g}')}: give a share from 0 up, such as {TOLERATED}")
    _check(planned, backend)
    layers, plan = planned.search_space.evidence.layers, planned.plan
    damage = damage_of_inputs(planned, profile, backend)
    linear = {layer.name: layer.weights for layer in layers if layer.kind == "linear"}

    def kept(share: float) -> list[str]:
        return choose_float(layers, damage, share * plan.total_damage)

    def weights(names: Sequence[str]) -> float:
        return sum(linear.get(name, 0) for name in names) / max(1, sum(linear.values()))

    chosen = kept(tolerated)
    choice = ExecutionChoice(
        backend.key,
        tuple(chosen),
        math.fsum(value for name, value in damage.items() if name not in chosen),
        math.fsum(damage.values()),
        weights(chosen),
        tolerated,
        {share: weights(kept(share)) for share in OTHERWISE if share != tolerated},
    )
    facts = {"execute": backend.key, "input_damage": choice.added, "input_damage_unkept": choice.without}
    plan = replace(plan, executions=dict.fromkeys(chosen, FLOAT), provenance={**plan.provenance, **facts})
    return replace(planned, plan=plan), choice
