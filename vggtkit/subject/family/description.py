"""Descriptions of published networks: how each is called, what its outputs are, and what its layers play."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from torch import nn

from vggtkit.quant import NameTable
from vggtkit.quant.roles import BLOCK_PATTERNS, ROLE_PATTERNS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PictureLayout = Literal["batch", "views"]
"""``[1, S, 3, H, W]``, or a list of dictionaries with ``img`` ``[1, 3, H, W]``."""
Poses = Literal["encoding", "world_to_camera", "camera_to_world"]


@dataclass(frozen=True)
class Description:
    """What is published of a network.

    Attributes:
        key: name of the file.
        package: that its class is imported from, the first word of its module.
        class_name: of the module.
        source: where this was read.
        unverified: what was not, in words; "" for nothing.
        pictures: how they are given.
        normalized: with ImageNet's mean and deviation taken off before, not by the network.
        queries: whether query points are given too, by keyword.
        sizes: side of the pictures that it is made for, and of its patches, pixels.
        outputs: path of each, by the name that it has here; published names of VGGT where it means the same.
        per_view: path of a list with an entry a view, in which the paths are then found; "" for whole tensors.
        poses: name of the output with cameras; "" for none.
        form: of these.
        intrinsics: name of the output with intrinsics in pixels; "" for none.
        names: roles and blocks of its layers.
    """

    key: str
    package: str
    class_name: str
    source: str
    unverified: str
    pictures: PictureLayout
    normalized: bool
    queries: bool
    sizes: tuple[int, int]
    outputs: dict[str, str]
    per_view: str
    poses: str
    form: Poses
    intrinsics: str
    names: NameTable


@cache
def descriptions() -> tuple[Description, ...]:
    """All that there are.

    >>> sorted(each.key for each in descriptions())
    ['depth_anything_3', 'fastvggt', 'pi3', 'streamvggt', 'vggt_omega']
    """
    descriptions = [place for place in files(__package__).iterdir() if place.name.endswith(".toml")]
    return tuple(
        _read(place.name.removesuffix(".toml"), tomllib.loads(place.read_text(encoding="utf-8")))
        for place in sorted(descriptions, key=lambda place: place.name)
    )


def described(module: nn.Module) -> Description | None:
    """The description of a module, by the package and the name of its class; None for most.

    >>> described(nn.Linear(2, 2)) is None
    True
    """
    package, name = type(module).__module__.partition(".")[0], type(module).__name__
    return next((each for each in descriptions() if (each.package, each.class_name) == (package, name)), None)


def _read(key: str, table: dict[str, Any]) -> Description:
    call, cameras = table.get("call", {}), table.get("cameras", {})
    pictures, form = call.get("pictures", "batch"), cameras.get("form", "encoding")
    assert pictures in get_args(PictureLayout), pictures
    assert form in get_args(Poses), form
    names = NameTable(
        tuple(table.get("roles", {}).items()) + ROLE_PATTERNS, tuple(table.get("blocks", {}).items()) + BLOCK_PATTERNS
    )
    img_size, patch_size = call["sizes"]
    return Description(
        key, table["package"], table["class"], table["source"], table.get("unverified", ""), pictures,
        call.get("normalized", False), call.get("queries", False), (img_size, patch_size), table["outputs"],
        table.get("per_view", ""), cameras.get("poses", ""), form, cameras.get("intrinsics", ""), names,
    )  # fmt: skip
