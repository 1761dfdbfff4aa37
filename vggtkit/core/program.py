"""What the program and its options are called, for messages: by how it was started, and by who asks.

A library does not know of a command line. Its messages name settings by `setting`, which gives the keyword of a Python
call; within `on_command_line` it gives the option. Commands to type are made by `command`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

INSTALLED = "vggt-mixedprec"
SCRIPT = "cli.py"
_CHECKOUT = Path(__file__).resolve().parents[2]

_as_options: ContextVar[bool] = ContextVar("as_options", default=False)


def program() -> str:
    """How the command line is called: the installed command by its name, the script by Python's.

    Where something else was started, a notebook say, it is what is there to be called.

    >>> program() in ("python cli.py", "vggt-mixedprec")
    True
    """
    started = Path(sys.argv[0] if sys.argv else "")
    if started.stem == INSTALLED:
        return INSTALLED
    is_script = started.name == SCRIPT or ((_CHECKOUT / SCRIPT).is_file() and (_CHECKOUT / "pyproject.toml").is_file())
    return f"python {SCRIPT}" if is_script else INSTALLED


def command(*words: object) -> str:
    """A command to type: the program and its arguments, quoted as a shell needs them.

    >>> command("plan", "--run", "my runs/one").removeprefix(program())
    " plan --run 'my runs/one'"
    """
    return " ".join([program(), *(shlex.quote(str(word)) for word in words)])


def setting(name: str, value: object = "") -> str:
    """A setting as whoever asked knows it: an option of the command line, or a keyword of a Python call.

    Args:
        name: the keyword, with underscores.
        value: what it was given or should be; "" to name the setting alone.

    >>> setting("keep_fp", "*.norm"), setting("strict")
    ("keep_fp='*.norm'", 'strict')
    >>> with on_command_line():
    ...     setting("keep_fp", "*.norm"), setting("strict")
    ('--keep-fp *.norm', '--strict')
    """
    if _as_options.get():
        return f"--{name.replace('_', '-')} {value}".rstrip()
    return name if value == "" else f"{name}={value if isinstance(value, int | float) else str(value)!r}"


@contextmanager
def on_command_line() -> Iterator[None]:
    """Within it, settings are called by their options."""
    token = _as_options.set(True)
    try:
        yield
    finally:
        _as_options.reset(token)
