"""What a process or node does with the work that it was sent: make it ready once, then piece after piece."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from vggtkit.core.errors import InputError
from vggtkit.core.executors.base import Work
from vggtkit.core.plugins import load_plugins, loaded_plugins
from vggtkit.core.program import setting
from vggtkit.core.provenance import tool_version


def packed_work(work: Work[Any, Any]) -> bytes:
    """Work, the plugins that it may need and the versions that it counts on, as bytes.

    Not by the pickler of torch's processes, which moves weights into shared memory.

    Raises:
        InputError: it cannot be pickled, as models of functions within functions cannot.
    """
    into = io.BytesIO()
    try:
        pickle.dump((_versions(), loaded_plugins()), into)
        pickle.dump(work, into, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"this model cannot be sent to workers ({error}); define its classes and functions at the top of a module, "
            f"or do without {setting('workers')}"
        ) from error
    return into.getvalue()


def work_key(data: bytes | memoryview) -> str:
    """By which a worker knows what it has made ready before: 16 hex digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


class Bench:
    """The work that is ready in this process; another takes its place."""

    def __init__(self) -> None:
        self._key = ""
        self._open = ExitStack()
        self._run: Callable[[Any], Any] | None = None

    def do(self, key: str, threads: int, data: Callable[[], bytes | memoryview], piece: object) -> object:
        """The result of a piece.

        Args:
            key: fingerprint of the work.
            threads: that torch computes with.
            data: gives the packed work, where it is not ready yet.
            piece: of it.
        """
        if self._run is None or key != self._key:
            self._open.close()
            self._run = None
            torch.set_num_threads(threads)
            source = io.BytesIO(data())
            versions, plugins = pickle.load(source)  # our own bytes, of the process that started this one
            _check_versions(versions)
            load_plugins(plugins)
            work: Work[Any, Any] = pickle.load(source)
            self._run, self._key = self._open.enter_context(work.opened()), key
        return self._run(piece)


def _versions() -> Sequence[str]:
    return (tool_version(), str(torch.__version__))


def _check_versions(wanted: Sequence[str]) -> None:
    """Refuse to compute with other versions: numbers would not be the same bits."""
    if tuple(wanted) != tuple(_versions()):
        names = ("this tool", "torch")
        asked, here = (", ".join(map(" ".join, zip(names, v, strict=True))) for v in (wanted, _versions()))
        raise InputError(f"a worker has {here}, this process has {asked}: install the same on every node")
