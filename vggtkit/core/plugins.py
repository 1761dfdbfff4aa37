"""A user's own formats, scores, metrics and kinds of scenes: a file or module that registers them when imported.

A plugin is code, so only the user names one; no file of a run does.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting

_loaded: dict[str, None] = {}
_OURS = tuple(
    str(Path(__file__).parents[2] / package) for package in ("vggtkit", "sensitivity", "mixedprec", "analysis")
)


def load_plugins(names: Sequence[str]) -> list[str]:
    """Import plugins in their order; one that was imported already is left as it is.

    Args:
        names: each a Python file, which is imported under a name of its own, or a module as ``package.module``.

    Returns:
        The same names.

    Raises:
        InputError: there is no such file or module, or it fails.
    """
    for name in names:
        where = str(Path(name).expanduser().resolve()) if _is_file(name) else name
        if where not in _loaded:
            _import(name, where)
            _loaded[where] = None
    return list(names)


def loaded_plugins() -> list[str]:
    """What was loaded, files by their absolute paths; for other processes, which have to load the same."""
    return list(_loaded)


def _is_file(name: str) -> bool:
    return name.endswith(".py") or "/" in name or "\\" in name


def _import(name: str, where: str) -> None:
    label = setting("plugin", name)
    if _is_file(name) and not Path(where).is_file():
        raise InputError(f"{label}: no such file; give a Python file, or a module as package.module")
    try:
        if _is_file(name):
            _import_file(Path(where))
        else:
            here = str(Path.cwd())
            if here not in sys.path:
                sys.path.insert(0, here)
            importlib.import_module(name)
    except Exception as error:  # a user's own code may raise anything
        raise InputError(f"{label}: cannot be loaded, {_describe_error(error)}") from error


def _import_file(path: Path) -> None:
    """Under a private name, so that it neither hides a module nor is hidden by one."""
    name = f"_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _describe_error(error: Exception) -> str:
    """The exception and the line of the plugin that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    user_frames = [frame for frame in frames if not frame.filename.startswith(("<", *_OURS))]
    where = f" ({Path(user_frames[-1].filename).name}:{user_frames[-1].lineno})" if user_frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
