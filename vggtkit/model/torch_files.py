"""Reading what ``torch.save`` wrote, without ever running code that the file names.

torch's own ``weights_only`` reader rebuilds tensors and plain containers and refuses the rest. Trainers put more beside
the weights: arguments, paths, numpy scalars. For those the reader is given *stand-ins* under the names that the file
uses: classes of ours that take anything and do nothing. No class or function that the file names is looked up,
imported or called.
"""

from __future__ import annotations

import pickle
import pickletools
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

LEGACY_PICKLES = 4
"""Of a file older than torch 1.6: magic number, version, system, then the object; the numbers follow."""


class StandIn:
    """An object that the file describes and nobody rebuilt; it knows only the name of its class."""

    name = ""

    def __new__(cls, *_: object, **__: object) -> StandIn:
        """Whatever it was made from is dropped."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Nothing."""

    def __setstate__(self, _: object) -> None:
        """Nothing."""


def load_torch_file(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The object in a file, its tensors on the processor, mapped from the file where its format allows.

    Returns:
        The object, and the names of what was not rebuilt: classes and functions that have a stand-in.

    Raises:
        Exception: of any kind, as the file is broken, or is one that torch's reader refuses even so.
    """
    try:
        return _load(path), ()
    except pickle.UnpicklingError:
        containers = _names(path)
    made: set[str] = set()
    # Names that torch's reader knows stay what they are to it: it asks its own list first.
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]]
    stand_ins = [(_stand_in(name, container, made), name) for name, container in containers.items()]
    with torch.serialization.safe_globals(stand_ins):
        return _load(path), tuple(sorted(made))


def _load(path: Path) -> Any:  # noqa: ANN401 - whatever was saved
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the file's age and protocol; it loads or it does not
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _stand_in(name: str, container: type | None, made: set[str]) -> type:
    """A class to call in the place of ``name``; where items are set or appended to the result, that is a container."""

    def new(cls: type, *_: object, **__: object) -> object:
        made.add(name)
        return container() if container else StandIn.__new__(cls)

    return type("StandInOf", (StandIn,), {"name": name, "__new__": new})


def _names(path: Path) -> dict[str, type | None]:
    scan = PickleScan()
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(LEGACY_PICKLES):
                scan.read(file)
        return scan.containers
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.endswith("/data.pkl"):
                with archive.open(member) as file:
                    scan.read(file)
    return scan.containers


class _Mark:
    """Where a pickle starts to collect items."""


class PickleScan:
    """Follows the opcodes of a pickle without executing one: which names it uses, and what for.

    >>> import collections, io
    >>> scan = PickleScan()
    >>> scan.read(io.BytesIO(pickle.dumps([collections.deque([1]), complex(1, 2)], protocol=2)))
    >>> scan.containers
    {'collections.deque': <class 'list'>, 'builtins.complex': None}
    """

    def __init__(self) -> None:
        self.containers: dict[str, type | None] = {}
        self.stack: list[object] = []
        self.memo: dict[object, object] = {}

    def read(self, file: IO[bytes]) -> None:
        """Read one pickle, to its end and no further."""
        self.stack, self.memo = [], {}
        for opcode, argument, _ in pickletools.genops(file):
            self._follow(opcode, argument)

    def _follow(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """On the stack stand, of everything that the pickle makes, the names that it was made by, else None."""
        stack, name = self.stack, opcode.name
        if name == "GLOBAL":
            stack.append(self._named(str(argument)))
        elif name in ("REDUCE", "NEWOBJ", "BUILD"):
            stack.pop()  # what it is made by stays, in the place of what is made
        elif name in ("SETITEM", "APPEND", "SETITEMS", "APPENDS", "ADDITEMS"):
            self._drop(opcode, keep_first=True)
            self._used_as(OrderedDict if name.startswith("SET") else list)
        elif "GET" in name:
            stack.append(self.memo.get(argument))
        elif "PUT" in name:
            self.memo[argument] = stack[-1]
        elif name == "MARK":
            stack.append(_Mark)
        else:
            self._drop(opcode, keep_first=False)
            stack.extend([None] * len(opcode.stack_after))

    def _named(self, argument: str) -> str:
        """``module.name`` as torch's reader spells it: old names of Python 2 by their new ones."""
        module, _, name = argument.partition(" ")
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.containers.setdefault(f"{module}.{name}", None)
        return f"{module}.{name}"

    def _drop(self, opcode: pickletools.OpcodeInfo, *, keep_first: bool) -> None:
        """Take from the stack what an opcode takes."""
        if pickletools.markobject not in opcode.stack_before:
            count = len(opcode.stack_before) - keep_first
            del self.stack[len(self.stack) - count :]
            return
        while self.stack.pop() is not _Mark:
            pass

    def _used_as(self, container: type) -> None:
        name = self.stack[-1]
        if isinstance(name, str):
            self.containers[name] = container
