"""Attribution of the damage of quantisation: by output, by token class, by role and by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vggtkit.core.arrays import Array
from vggtkit.model.outputs import outputs_by_task
from vggtkit.quant import Layer

STACKS = ("vit", "frame", "global")
"""Stacks of blocks whose damage is drawn along the depth."""


def by_task(damage: Mapping[str, Array]) -> dict[str, Array]:
    """Damage per task ``[layers, formats]``, from that per output; tasks without outputs are left out.

    >>> list(by_task({"depth": np.ones((1, 1)), "conf": np.zeros((1, 1))}))
    ['depth', 'tracks']
    """
    tasks = outputs_by_task(damage)
    return {task: np.asarray(np.mean([damage[name] for name in names], axis=0)) for task, names in tasks.items()}


WHOLE = "all"
"""What stands for all classes of tokens together."""
CLASS_CAPTION = (
    "share: the error made in the tokens of this class alone, of the sum of the classes; whole / sum below 1: "
    "errors of classes cancel; vit: the class token stands where the camera token stands later"
)


@dataclass(frozen=True)
class LayerGroup:
    """Layers that share a role or a block.

    Attributes:
        name: of the role or block.
        layers: how many.
        weights: how many.
        damage: per task, mean over its layers' true damage alone, at one format.
    """

    name: str
    layers: int
    weights: int
    damage: Mapping[str, float]


def group_damage(
    layers: Sequence[Layer], tasks: Mapping[str, Array], column: int, key: Callable[[Layer], str]
) -> list[LayerGroup]:
    """Mean true damage of a layer, by a property of the layers, at the format in a column.

    Args:
        layers: in the order of the damage.
        tasks: NMSE by task, each ``[layers, formats]``.
        column: of the format that is looked at.
        key: the property.
    """
    members: dict[str, list[int]] = {}
    for row, layer in enumerate(layers):
        members.setdefault(key(layer), []).append(row)
    return [
        LayerGroup(
            name,
            len(rows),
            sum(layers[row].weights for row in rows),
            {task: float(values[rows, column].mean()) for task, values in tasks.items()},
        )
        for name, rows in members.items()
    ]


def along_depth(layers: Sequence[Layer], damage: Array, column: int) -> dict[str, list[float]]:
    """Summed damage of every block of the stacks, in order of depth.

    Args:
        layers: in the order of the damage.
        damage: NMSE, ``[layers, formats]``.
        column: of the format that is looked at.

    >>> layers = [Layer("a", "linear", "mlp", f"frame.{n}", (1, 1), 1) for n in (0, 0, 1)]
    >>> along_depth(layers, np.array([[1.0], [2.0], [4.0]]), 0)
    {'frame': [3.0, 4.0]}
    """
    curves: dict[str, dict[int, float]] = {}
    for row, layer in enumerate(layers):
        stack, _, number = layer.block.partition(".")
        if stack in STACKS and number.isdecimal():
            blocks = curves.setdefault(stack, {})
            blocks[int(number)] = blocks.get(int(number), 0.0) + float(damage[row, column])
    return {stack: [blocks[number] for number in sorted(blocks)] for stack, blocks in curves.items()}


@dataclass(frozen=True)
class ClassShares:
    """Which tokens carry the damage of a stack of blocks in one format, to first order.

    Attributes:
        stack: of the blocks.
        scheme: key of the format.
        shares: by token class, the error made in its tokens alone, of the sum of the classes; NaN where that is 0.
        whole: damage of all tokens together over that sum; below 1 where errors of classes cancel.
    """

    stack: str
    scheme: str
    shares: Mapping[str, float]
    whole: float


def class_shares(blocks: Sequence[str], classes: Mapping[str, Array], schemes: Sequence[str]) -> list[ClassShares]:
    """Damage by token class, summed over the layers of every stack.

    Args:
        blocks: of the layers, ``stack.number``.
        classes: damage by token class ``[layers, schemes]``, with ``"all"`` of all tokens together.
        schemes: keys of the formats.

    >>> parts = {"camera": np.array([[1.0]]), "patch": np.array([[3.0]]), "all": np.array([[2.0]])}
    >>> class_shares(["frame.0"], parts, ["int4_group_128"])
    [ClassShares(stack='frame', scheme='int4_group_128', shares={'camera': 0.25, 'patch': 0.75}, whole=0.5)]
    """
    shares_by_stack = []
    for stack in dict.fromkeys(block.partition(".")[0] for block in blocks):
        rows = [row for row, block in enumerate(blocks) if block.startswith(f"{stack}.")]
        for column, scheme in enumerate(schemes):
            parts = {name: float(values[rows, column].sum()) for name, values in classes.items()}
            whole = parts.pop(WHOLE)
            total = sum(parts.values()) or math.nan
            shares = {name: part / total for name, part in parts.items()}
            shares_by_stack.append(ClassShares(stack, scheme, shares, whole / total))
    return shares_by_stack
