"""Unfinished work on disk: what a profile has measured so far, one file per step, so that it can be killed any time.

A step is one scene under one scheme (or in FP32, or its damage at the outputs). Its file appears under its name when
it is complete. The whole is put together from the files alone, in one order, so a profile that was interrupted has the
numbers of one that was not. A step says what it was made for and carries a digest of its numbers: one that is
damaged, or of another purpose, is measured again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggtkit.core.arrays import Arrays
from vggtkit.core.atomic import remove_partials, replacing
from vggtkit.core.escaping import first_line
from vggtkit.core.provenance import versions

PURPOSE = "purpose.json"
_SEAL = "digest of purpose, name and arrays"
"""The name of an array in a step's file."""


class Parts:
    """The steps done so far, in a folder beside the file that they are for.

    Args:
        path: of the file in the making.
        purpose: everything that decides the numbers, beside the versions of this tool, torch and NumPy; steps that were
            made for another purpose, or by other versions, are thrown away.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "profile.h5"
    >>> Parts(path, {"seed": 0}).save("first", {"sums": np.ones(2)})
    >>> Parts(path, {"seed": 0}).done(), Parts(path, {"seed": 1}).done()
    (['first'], [])
    """

    def __init__(self, path: Path, purpose: Mapping[str, object]) -> None:
        self.folder = folder_of(path)
        self.purpose = json.dumps({**purpose, "versions": versions()}, sort_keys=True).encode()
        earlier = _bytes_of(self.folder / PURPOSE)
        self.replaced = earlier is not None and earlier != self.purpose
        if earlier != self.purpose:
            _remove(self.folder)
            with replacing(self.folder / PURPOSE) as temporary:
                temporary.write_bytes(self.purpose)
        remove_partials(self.folder)
        self.damaged: dict[str, str] = {}
        self._done = {step for step in self._files() if self._is_sound(step)}

    @contextmanager
    def kept_if_any(self) -> Iterator[None]:
        """Whatever ends the work inside, the folder stays only if it holds something."""
        try:
            yield
        except BaseException:
            if not self.done():
                self.remove()
            raise

    def done(self) -> list[str]:
        """Names of the steps that are complete."""
        return sorted(self._done)

    def save(self, step: str, arrays: Mapping[str, object]) -> None:
        """Write a step; it counts from here on.

        Raises:
            InputError: it cannot be written.
        """
        named: dict[str, Any] = {name: np.asarray(values) for name, values in arrays.items()}
        named[_SEAL] = np.array(self._digest(step, named))
        with replacing(self.folder / f"{step}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **named)
        self._done.add(step)

    def load(self, step: str) -> Arrays:
        """A step's arrays."""
        with np.load(self.folder / f"{step}.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != _SEAL}

    def remove(self) -> None:
        """Nothing of it is needed any more."""
        _remove(self.folder)

    def _files(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.npz"))

    def _is_sound(self, step: str) -> bool:
        """Whether a step is complete, as it was written, and for this purpose; else its file is removed."""
        path = self.folder / f"{step}.npz"
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if str(arrays.pop(_SEAL)) == self._digest(step, arrays):
                return True
        except Exception as error:  # a damaged archive fails in a dozen ways, of four libraries
            self.damaged[step] = first_line(error)
        else:
            self.damaged[step] = "its digest is of something else"
        with suppress(OSError):
            path.unlink()
        return False

    def _digest(self, step: str, arrays: Mapping[str, NDArray[Any]]) -> str:
        sha256 = hashlib.sha256(self.purpose)
        for name, array in sorted(arrays.items()):
            sha256.update(f"\n{step} {name} {array.dtype.str} {array.shape}\n".encode())
            sha256.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
        return sha256.hexdigest()


def discard(path: Path) -> None:
    """The file is there, or is not wanted: nothing of its steps is needed any more."""
    _remove(folder_of(path))


def folder_of(path: Path) -> Path:
    """Where the steps of a file in the making are kept.

    >>> folder_of(Path("runs/default/profile.h5")).name
    'profile.h5.parts'
    """
    return path.with_name(f"{path.name}.parts")


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _remove(folder: Path) -> None:
    """Remove a folder of ours; where a link stands in its place, the link."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
