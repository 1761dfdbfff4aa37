"""What every file of a run says about its origin, and the refusal of files that belong elsewhere."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from vggtkit.core.errors import InputError
from vggtkit.core.program import command, setting

TOOL = "vggt-mixedprec"

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` while a long job goes on."""

Say = Callable[[str], None]
"""Takes a sentence for the user while work goes on."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """The `Progress` that shows nothing."""


def tool_version() -> str:
    """Version of this tool, ``"source"`` where it was not installed."""
    try:
        return version(TOOL)
    except PackageNotFoundError:
        return "source"


def versions() -> dict[str, str]:
    """Of what decides the last bits of numbers.

    >>> sorted(versions())
    ['numpy', 'tool_version', 'torch']
    """
    return {"tool_version": tool_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def provenance(**facts: object) -> dict[str, object]:
    """Facts on a run that every file of it carries, beside those given: versions, machine, command line.

    >>> provenance(seed=3)["seed"]
    3
    """
    return facts | {
        "tool": TOOL,
        "command": command(*sys.argv[1:]).removeprefix("python "),
        **versions(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
    }


def require_same(
    what: str, expected: Mapping[str, object], stated: Mapping[str, object], keys: tuple[str, ...]
) -> None:
    """Refuse a file made for something else.

    Args:
        what: the file and what it is compared with, for the message.
        expected: facts that should hold.
        stated: facts that the file states.
        keys: which of them must agree.

    Raises:
        InputError: one differs; the message names both values.
    """
    for key in keys:
        if expected.get(key) != stated.get(key):
            raise InputError(
                f"{what}: {key.replace('_', ' ')} is {stated.get(key)}, but {expected.get(key)} is needed; "
                f"run the command that makes the file again, or use another {setting('run')} folder"
            )
