"""Names of layers as tables print them, and the layers that a user means by a name or a pattern."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from vggtkit.core.errors import InputError
from vggtkit.quant.layers import Layer

# Parts of the heads' names that only say what is clear without.
_SHORTER = (
    ("updateformer.", ""),
    ("tracker.", ""),
    ("cross_attn.", ""),
    ("space_", ""),
    ("_blocks.", "."),
    ("feature_extractor.", ""),
    ("scratch.", ""),
    ("resConfUnit", "res"),
)
_WILD = frozenset("*?[")


def short_name(layer: Layer) -> str:
    """A layer's name as tables print it, without what its block says already.

    >>> short_name(Layer("aggregator.frame_blocks.3.attn.qkv", "linear", "attention", "frame.3", (6, 2), 12))
    'frame.3 attn.qkv'
    """
    parts = layer.name.split(".")
    kind, _, number = layer.block.rpartition(".")
    if kind and number in parts:
        return f"{layer.block} {'.'.join(parts[parts.index(number) + 1 :])}"
    name = layer.name.removeprefix("aggregator.")
    for long, short in _SHORTER:
        name = name.replace(long, short)
    return name


def named_layers(layers: Sequence[Layer], name: str) -> list[Layer]:
    """The layers that a user means.

    Args:
        layers: of the model.
        name: a full name; a name as tables print it; the end of a name; or a pattern as of file names (``*``, ``?``,
            ``[...]``) over full names, and where none fits over printed ones.

    Returns:
        In the order of the model; none where nothing fits, several where a name is not unique.

    >>> names = ("track_head.tracker.input_transform", "depth_head.projects.0", "depth_head.projects.1")
    >>> layers = [Layer(name, "linear", "head", "other", (1, 1), 1) for name in names]
    >>> [layer.name for layer in named_layers(layers, "track_head.input_transform")]
    ['track_head.tracker.input_transform']
    >>> [layer.name for layer in named_layers(layers, "depth_head.*")]
    ['depth_head.projects.0', 'depth_head.projects.1']
    """
    full = [layer.name for layer in layers]
    printed = [short_name(layer) for layer in layers]
    if _WILD & set(name):
        ways = [[fnmatchcase(one, name) for one in names] for names in (full, printed)]
    else:
        ways = [[one == name for one in names] for names in (full, printed)]
        ways.append([one.endswith(f".{name}") for one in full])
    for fits in ways:
        if any(fits):
            return [layer for layer, fit in zip(layers, fits, strict=True) if fit]
    return []


def one_layer(layers: Sequence[Layer], name: str) -> int:
    """The place of the one layer that a user means, as `named_layers` reads names.

    Raises:
        InputError: there is none, or several; the message names the nearest.

    >>> layers = [Layer(name, "linear", "mlp", "frame.0", (1, 1), 1) for name in ("a.fc1", "b.fc1", "b.fc2")]
    >>> one_layer(layers, "fc2"), one_layer(layers, "a.fc1")
    (2, 0)
    """
    meant = named_layers(layers, name)
    if len(meant) == 1:
        return layers.index(meant[0])
    names = [layer.name for layer in layers]
    near = [layer.name for layer in meant] or [one for one in names if name in one]
    near = near or difflib.get_close_matches(name, names, 4, 0.3)
    what = f"{len(meant)} layers end so" if meant else "no such layer"
    hint = f", say {', '.join(near[:4])}" if near else ""
    raise InputError(f"layer {name!r}: {what}; give one name in full{hint}")
