"""Unfinished work on disk: what a profile has measured so far, one file per step, so that it can be killed any time.

A step is one scene under one scheme (or in FP32, or its damage at the outputs). Its file appears under its name when
it is complete. The whole is put together from the files alone, in one order, so a profile that was interrupted has the
numbers of one that was not.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggtkit.core.atomic import replacing

PURPOSE = "purpose.json"
Arrays = dict[str, NDArray[np.generic]]


class Parts:
    """The steps done so far, in a folder beside the file that they are for.

    Args:
        path: of the file in the making.
        purpose: everything that decides the numbers; steps that were made for another purpose are thrown away.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "profile.h5"
    >>> Parts(path, {"seed": 0}).save("first", {"sums": np.ones(2)})
    >>> Parts(path, {"seed": 0}).done(), Parts(path, {"seed": 1}).done()
    (['first'], [])
    """

    def __init__(self, path: Path, purpose: Mapping[str, object]) -> None:
        self.folder = folder_of(path)
        text = json.dumps(purpose, sort_keys=True)
        self.replaced = (self.folder / PURPOSE).is_file() and (self.folder / PURPOSE).read_text() != text
        if not (self.folder / PURPOSE).is_file() or self.replaced:
            shutil.rmtree(self.folder, ignore_errors=True)
            with replacing(self.folder / PURPOSE) as temporary:
                temporary.write_text(text)
        for leftover in self.folder.glob(".*.partial"):  # of a process that was killed while it wrote
            leftover.unlink()

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
        return sorted(path.stem for path in self.folder.glob("*.npz") if zipfile.is_zipfile(path))

    def save(self, step: str, arrays: Mapping[str, object]) -> None:
        """Write a step; it counts from here on.

        Raises:
            InputError: it cannot be written.
        """
        with replacing(self.folder / f"{step}.npz") as temporary, temporary.open("wb") as file:
            named: dict[str, Any] = {name: np.asarray(values) for name, values in arrays.items()}
            np.savez(file, **named)

    def load(self, step: str) -> Arrays:
        """A step's arrays."""
        with np.load(self.folder / f"{step}.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def remove(self) -> None:
        """Nothing of it is needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


def folder_of(path: Path) -> Path:
    """Where the steps of a file in the making are kept.

    >>> folder_of(Path("runs/default/profile.h5")).name
    'profile.h5.parts'
    """
    return path.with_name(f"{path.name}.parts")
