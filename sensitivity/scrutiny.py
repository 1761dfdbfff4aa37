"""What is asked of a model before it is profiled, and what a reader of the profile has to know of it.

A profile compares passes. That means something only if two passes over the same scene are the same, if another scene
gives something else, and if it is said which parameters and outputs are not looked at, and which layers do not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sensitivity.route import largest_nmse, nmse_by_output
from vggtkit.core.arrays import Arrays
from vggtkit.core.errors import InputError
from vggtkit.quant import Layer, replaced_weights, simulate_layer, weight_of
from vggtkit.quant.layers import parameter_name
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

NOISIEST = 1e-6
"""NMSE between two FP32 passes over the same scene up to which a model is profiled."""

DIGEST, ZEROS = "digest-", "zeros-"
"""How arrays begin that say what outputs a pass gave."""

NAMED = 3
"""Names that a sentence gives."""


def scrutinise(subject: Subject, layers: Sequence[Layer], scenes: Sequence[Scene]) -> dict[str, Any]:
    """Run a model twice on a scene, and once on another in between.

    Args:
        subject: unchanged.
        layers: of it.
        scenes: to be profiled.

    Returns:
        The facts of `known_beforehand`; ``left_out``, what it returns beside outputs; and ``repeatability``, as
        `repeated` gives it.

    Raises:
        InputError: the passes over the same scene differ, a weight is not finite, or a pass makes or changes
            parameters or runs layers with other weights than theirs.
    """
    with torch.no_grad(), _leaving_parameters(subject):
        facts = known_beforehand(subject, layers)
        with _reading_their_own(subject, layers):
            first = subject.run(scenes[0])
        facts["left_out"] = dict(subject.left_out)
        if len(scenes) > 1:
            subject.run(scenes[1], check=False)
        again = subject.run(scenes[0], check=False)
    return facts | {"repeatability": repeated(first, again, scenes[0])}


def known_beforehand(subject: Subject, layers: Sequence[Layer]) -> dict[str, Any]:
    """What is known of a model without running it.

    Returns:
        ``rounding_floor`` (NMSE that the model's own precision makes, about) and ``uncovered`` (parameters that no
        layer holds).

    Raises:
        InputError: a weight is not finite.
    """
    for layer in layers:
        weight = weight_of(subject.model, layer)
        # Whatever is not finite shows in the sum, which reads a large model in a tenth of the time; so may an overflow.
        if not weight.sum().isfinite() and not weight.isfinite().all():
            raise InputError(
                f"weight of {layer.name} contains NaN or Inf: the checkpoint is damaged, fetch or train it again"
            )
    return {"rounding_floor": _rounding(subject), "uncovered": _uncovered(subject, layers)}


def marks(outputs: Mapping[str, Tensor]) -> Arrays:
    """What tells outputs from others and from zeros, in a few bytes, for `told_by`.

    >>> one, other = marks({"depth": torch.zeros(2)}), marks({"depth": -torch.zeros(2)})
    >>> sorted(one), same_outputs(one, other)
    (['digest-depth', 'zeros-depth'], True)
    """
    marked: Arrays = {}
    for name, value in outputs.items():
        exact = value.detach().to(torch.promote_types(value.dtype, torch.float32))  # NumPy has no bfloat16
        held = np.ascontiguousarray(exact.cpu().numpy() + 0.0)  # -0.0 is 0.0
        marked[f"{DIGEST}{name}"] = np.frombuffer(hashlib.sha256(held.data.cast("B")).digest(), dtype=np.uint8)
        marked[f"{ZEROS}{name}"] = np.array(not held.any())
    return marked


def told_by(first: Arrays, other: Arrays | None) -> dict[str, Any]:
    """Facts that `marks` of a scene, and of one with other inputs, tell.

    Returns:
        ``zero_outputs``, and ``constant``: whether the two scenes give the same.
    """
    zeros = [name.removeprefix(ZEROS) for name, value in first.items() if name.startswith(ZEROS) and value]
    return {"zero_outputs": zeros, "constant": other is not None and same_outputs(first, other)}


def same_outputs(one: Arrays, other: Arrays) -> bool:
    """Whether `marks` are of equal outputs, bit for bit; steps may hold more than these."""
    digests = [
        {name: value.tobytes() for name, value in each.items() if name.startswith(DIGEST)} for each in (one, other)
    ]
    return digests[0] == digests[1]


def repeated(first: Mapping[str, Tensor], again: Mapping[str, Tensor], scene: Scene) -> dict[str, float]:
    """NMSE between two FP32 passes over the same scene, by output.

    Raises:
        InputError: they differ.
    """
    apart = nmse_by_output(first, again)
    name = max(apart, key=lambda key: apart[key])
    if not apart[name] <= NOISIEST:
        raise InputError(
            f"two FP32 passes over scene {scene.name} differ by an NMSE of {apart[name]:.1e} in output {name}, at "
            f"most {NOISIEST:.0e} can be profiled; the usual causes are dropout that forgets eval, random numbers in "
            "the forward and a cache that outlives a call: make the forward repeatable"
        )
    return apart


@contextmanager
def _leaving_parameters(subject: Subject) -> Iterator[None]:
    """Passes within the block that make or change parameters are refused at its end."""
    before = {name: _sum(parameter) for name, parameter in subject.model.named_parameters()}
    yield
    for name, parameter in subject.model.named_parameters():
        if name not in before:
            raise InputError(
                f"a pass makes the parameter {name}, which the model did not have before: make it where the model is "
                "made, or call the model once there"
            )
        if _sum(parameter) != before[name]:
            raise InputError(
                f"a pass changes the parameter {name}: a weight that is replaced by a quantised one would not stay it; "
                "change it once, where the model is made"
            )


@contextmanager
def _reading_their_own(subject: Subject, layers: Sequence[Layer]) -> Iterator[None]:
    """Within the block a layer that is run with another weight than its own is refused."""

    def check(layer: Layer, own: nn.Parameter, module: nn.Module, _arguments: object) -> None:
        if getattr(module, parameter_name(module)) is not own:
            raise InputError(
                f"layer {layer.name}: it is run with another weight than its own, as torch.func.functional_call does, "
                "so that a quantised one would not be used; give a model whose layers hold what they are run with"
            )

    with ExitStack() as undo:
        for layer in layers:
            module = subject.model.get_submodule(layer.name)
            hook = partial(check, layer, weight_of(subject.model, layer))
            undo.callback(module.register_forward_pre_hook(hook).remove)
        yield


@torch.no_grad()
def check_unseen(subject: Subject, layers: Sequence[Layer], scenes: Sequence[Scene], scheme: str) -> None:
    """Check that layers whose damage is estimated as none do nothing indeed when they are quantised.

    Raises:
        InputError: they do.
    """
    for scene in scenes if layers else ():
        weights = {
            layer.name: simulate_layer(subject.model.get_submodule(layer.name), scheme, layer.name) for layer in layers
        }
        reference = subject.run(scene)
        floor = max(NOISIEST, 4 * largest_nmse(reference, subject.run(scene)))
        with replaced_weights(subject.model, weights):
            changed = largest_nmse(reference, subject.run(scene, check=False))
        if not changed <= floor:
            raise InputError(
                f"layer {layers[0].name}{f' and {len(layers) - 1} others' * (len(layers) > 1)}: estimated to do no "
                f"damage, but outputs of scene {scene.name} change by an NMSE of {changed:.1e} at {scheme}; gradients "
                "do not see it, the usual causes are rounding, comparisons and whole numbers in the forward"
            )


def remarks(facts: Mapping[str, Any], parameters: int) -> list[str]:
    """What a reader of a profile has to know of its model, as sentences."""
    said = []
    if facts.get("constant"):
        said.append(
            "THE OUTPUTS DO NOT DEPEND ON THE SCENE: two different ones give the same bit for bit; does the model keep "
            "a result from one call to the next?"
        )
    if unreached := facts.get("unreached"):
        said.append(
            f"Not reached by these scenes ({_counted(unreached)}): {_listed(unreached)}; damage 0, because nothing was "
            "seen of it."
        )
    if silent := facts.get("silent"):
        said.append(
            f"Without effect on these scenes ({_counted(silent)}): {_listed(silent)}; no output changes when it is "
            "quantised."
        )
    if uncovered := facts.get("uncovered"):
        said.append(
            f"{uncovered['parameters']:,} of {parameters:,} parameters lie in no layer that can be quantised: "
            f"{_listed(uncovered['names'], uncovered['count'])}."
        )
    if left_out := facts.get("left_out"):
        names = [f"{name} ({what})" for name, what in left_out.items()]
        said.append(f"Left out of what the model returns: {_listed(names)}.")
    if zeros := facts.get("zero_outputs"):
        said.append(f"All zeros in FP32, so that no error can be told relative to it: {_listed(zeros)}.")
    loud = {name: value for name, value in (facts.get("repeatability") or {}).items() if value > 0}
    if loud:
        name = max(loud, key=lambda key: loud[key])
        said.append(
            f"NOT REPEATABLE: two FP32 passes differ by an NMSE of {loud[name]:.1e} in {name}; less damage says "
            "nothing."
        )
    return said


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} layer{'s' * (len(names) != 1)}"


def _listed(names: Sequence[str], count: int | None = None) -> str:
    more = (len(names) if count is None else count) - len(names[:NAMED])
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _rounding(subject: Subject) -> float:
    """The square of the coarsest precision that weights are held or computed in."""
    dtypes = {p.dtype for p in subject.model.parameters() if p.is_floating_point()} | {subject.precision}
    return max(torch.finfo(dtype).eps ** 2 for dtype in dtypes)


def _uncovered(subject: Subject, layers: Sequence[Layer]) -> dict[str, Any]:
    """Parameters that no layer holds: how many numbers and tensors, and the names of the largest."""
    covered = {id(weight_of(subject.model, layer)) for layer in layers}
    left = {name: p for name, p in subject.model.named_parameters() if id(p) not in covered}
    largest = sorted(left, key=lambda name: -left[name].numel())
    if not left:
        return {}
    return {"parameters": sum(p.numel() for p in left.values()), "count": len(left), "names": largest[:NAMED]}


def _sum(parameter: Tensor) -> str:
    """What another parameter hardly has; as text, so that NaN is NaN."""
    parameter = parameter.cpu() if parameter.device.type == "mps" else parameter  # Metal has no float64
    dtype = torch.complex128 if parameter.is_complex() else torch.float64
    return str((parameter.sum(dtype=dtype) + parameter.flatten()[:1].sum(dtype=dtype)).item())


def same_inputs(one: Scene, other: Scene) -> bool:
    """Whether two scenes show a model the same."""
    pairs = [(one.images, other.images), (one.query_points, other.query_points)]
    pairs += list(zip(tree_leaves(one.inputs), tree_leaves(other.inputs), strict=False))
    return all(a.equal(b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b for a, b in pairs)
