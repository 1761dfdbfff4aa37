"""A tensor of an ONNX file: its shape now, its numbers when they are written, so that one is in memory at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vggtkit.core.errors import InputError

if TYPE_CHECKING:
    import onnx_ir

Operate = Callable[..., "onnx_ir.Value"]
"""``operate("Mul", [a, b], attribute=1)``: adds a node to the graph and gives its output."""
AddNodes = Callable[[Operate, "Mapping[str, onnx_ir.Value]"], "onnx_ir.Value"]


WRITERS = ("onnx", "onnxscript")
"""Packages that a file is written with."""


@dataclass(frozen=True)
class Stored:
    """Numbers in the file.

    Attributes:
        shape: their shape.
        type: their type, by ONNX's name.
        make: them; 4-bit types are made as int8 or uint8.
    """

    shape: tuple[int, ...]
    type: str
    make: Callable[[], Tensor]


@dataclass(frozen=True)
class FileTensor:
    """What the graph reads in the place of a tensor: numbers of the file, and what is computed of them.

    Runtimes compute what depends on nothing but the file once, while they load it.

    Attributes:
        shape: of the result.
        dtype: of the result.
        parts: by name.
        compute: the result from the parts; None where the only part is the result, or becomes it by a cast.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    parts: Mapping[str, Stored]
    compute: AddNodes | None = None

    def placeholder(self) -> Tensor:
        """A tensor of this shape that takes no memory, to trace with."""
        return torch.zeros((), dtype=self.dtype).expand(self.shape)


def plain(shape: tuple[int, ...], dtype: torch.dtype, stored: str, make: Callable[[], Tensor]) -> FileTensor:
    """A tensor that is in the file as it is, or is cast."""
    return FileTensor(shape, dtype, {"": Stored(shape, stored, make)})


def as_it_is(value: Tensor) -> FileTensor:
    """A tensor that is kept: in FP16 where that loses nothing, as with the values of a packed model.

    >>> [as_it_is(torch.tensor([x])).parts[""].type for x in (0.5, 0.1)]
    ['FLOAT16', 'FLOAT']
    """
    value = value.detach()
    shape = tuple(value.shape)
    if value.dtype == torch.float32 and bool(value.half().float().equal(value)):
        return plain(shape, torch.float32, "FLOAT16", value.half)
    return plain(shape, value.dtype, onnx_type(value.dtype), lambda: value)


def onnx_type(dtype: torch.dtype) -> str:
    """ONNX's name of a type.

    >>> onnx_type(torch.int8)
    'INT8'
    """
    names = {torch.float32: "FLOAT", torch.float16: "FLOAT16", torch.int8: "INT8", torch.uint8: "UINT8"}
    return names[dtype]


def check_packages(*names: str, extra: str = "onnx") -> None:
    """Refuse to go on without packages of an extra.

    Raises:
        InputError: with the first that is not installed, and how to get it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"{name} is not installed: get it with `pip install 'vggt-mixedprec[{extra}]'`")
