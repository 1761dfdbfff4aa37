"""Which functions of the user a run folder may call again.

A profile names the function that made its model. A file of somebody else's must not be able to start code by naming it,
so the name alone is never followed: a function runs when the user gives it on the command line, and that is remembered
for this run folder, outside of it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from vggtkit.core.atomic import replacing
from vggtkit.core.errors import InputError

MOST = 500
"""Run folders that are remembered; the oldest are forgotten."""


def permit(run: Path, source: str) -> None:
    """Remember that the user named a function for a run folder; where nothing can be written, it is not remembered."""
    permits = _read()
    folder = str(run.resolve())
    sources = [*(one for one in permits.pop(folder, []) if one != source), source]
    permits[folder] = sources
    with suppress(InputError, OSError, RuntimeError), replacing(_path()) as temporary:
        temporary.write_text(json.dumps(dict(list(permits.items())[-MOST:]), indent=1), encoding="utf-8")


def check_permitted(run: Path, source: str, named: str) -> None:
    """Refuse a function that a file of a run folder names and the user never named for this folder.

    Args:
        run: the folder.
        source: ``package.module:function``.
        named: the setting that names it.

    Raises:
        InputError: it was never named here.
    """
    if source not in _read().get(str(run.resolve()), []):
        raise InputError(f"{run} is of {source}, which is code that runs only when you name it: add {named}")


def state_folder() -> Path:
    """Where what is remembered of the user between commands lies; it may not be there yet.

    Raises:
        RuntimeError: nobody knows where the user is at home.
    """
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "vggt-mixedprec"


def _path() -> Path:
    return state_folder() / "functions.json"


def _read() -> dict[str, list[str]]:
    with suppress(OSError, ValueError, RuntimeError):
        values = json.loads(_path().read_text(encoding="utf-8"))
        if isinstance(values, dict):
            return {str(run): list(map(str, sources)) for run, sources in values.items() if isinstance(sources, list)}
    return {}
