"""One command at a time in a run folder: a lock that the system takes back when its holder dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vggtkit.core.atomic import remove_partials
from vggtkit.core.errors import InputError
from vggtkit.core.escaping import escape
from vggtkit.core.interrupts import uninterrupted
from vggtkit.core.program import setting

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextmanager
def working_in(run: Path, doing: str) -> Iterator[None]:
    """Nobody else writes into the folder meanwhile; what killed commands left half written there is removed.

    A folder that is not there is made, and removed again if it stays empty. Where it cannot be written to, or the file
    system knows no locks, the work goes on without one.

    Args:
        run: the folder.
        doing: name of the command, for whoever comes second.

    Raises:
        InputError: somebody else works there; the message says who.

    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp()) / "runs" / "default"
    >>> with working_in(run, "profile"):
    ...     (run / LOCK).exists()
    True
    >>> run.parent.exists()
    False
    """
    absent = [folder for folder in (run, *run.parents) if not folder.exists()]
    descriptor = None
    try:
        with uninterrupted():
            descriptor = _locked(run, doing)
        remove_partials(run)
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                (run / LOCK).unlink()
            os.close(descriptor)
        with suppress(OSError):  # one that holds something stays, and so do those above it
            for folder in absent:
                folder.rmdir()


def _locked(run: Path, doing: str) -> int | None:
    """The descriptor that holds the lock; None where there can be none."""
    if fcntl is None:
        return None
    while True:
        try:
            run.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(_refusal(run, descriptor)) from None
        except OSError:
            os.close(descriptor)
            return None
        if _is_still_there(run / LOCK, descriptor):
            os.truncate(descriptor, 0)
            with suppress(OSError):  # a full disk; it is a courtesy
                os.write(descriptor, f"{doing}, process {os.getpid()}".encode())
            return descriptor
        os.close(descriptor)  # its holder has just removed it: take the next one


def _is_still_there(path: Path, descriptor: int) -> bool:
    """Whether the file that is locked is the one of that name."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except OSError:
        return False


def _refusal(run: Path, descriptor: int) -> str:
    try:
        holder = escape(os.pread(descriptor, 200, 0).decode(errors="replace"))
    finally:
        os.close(descriptor)
    return (
        f"{setting('run', run)}: another command is at work in this folder ({holder or 'just starting'}); "
        "wait for it to end, or name another folder"
    )
