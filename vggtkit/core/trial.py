"""Reading a file in a child process first: what makes a library loop, crash or eat memory ends there, in an error."""

from __future__ import annotations

import faulthandler
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from vggtkit.core.errors import InputError

CPU_SECONDS = 10
WALL_SECONDS = 300
"""A disk may be slow; a library that loops is busy."""
_SPARE_BYTES = 4 * 10**9
_FINE, _AGAIN = b"fine", b"again"
_ADVICE = "it is damaged, make it again"


def try_first(read: Callable[[], object], what: object, *, cpu_seconds: int = CPU_SECONDS) -> bool:
    """Run something in a copy of this process, which must end within a time.

    Args:
        read: what is going to be done; it must neither change anything nor use threads.
        what: the file, for messages.
        cpu_seconds: that it may compute.

    Returns:
        True where it went well; False where it is to be done here to know: the system has no such copies, or it failed
        as a program fails.

    Raises:
        InputError: it raised one, which is raised here; or it does not end, or it crashes.

    >>> try_first(lambda: 1 + 1, "file")
    True
    """
    if not hasattr(os, "fork"):
        return False
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on threads: the child uses none of theirs
        child = os.fork()
    if child == 0:
        _run(read, theirs, cpu_seconds)
    os.close(theirs)
    try:
        said = _said(ours)
    finally:
        os.close(ours)
        if (status := _end(child)) is not None:
            how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"code {os.WEXITSTATUS(status)}"
    if said in (_FINE, _AGAIN):
        return said == _FINE
    if said:
        raise InputError(said.decode(errors="replace"))
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
        raise InputError(f"{what}: reading it does not come to an end; {_ADVICE}")
    raise InputError(f"{what}: reading it crashes the library ({how}); {_ADVICE}")


def _run(read: Callable[[], object], pipe: int, cpu_seconds: int) -> NoReturn:
    """The child: limits, the work, one word, and no farewell."""
    try:
        faulthandler.disable()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        _limit(resource.RLIMIT_CPU, int(time.process_time()) + cpu_seconds + 1)
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_AS, _address_space() + _SPARE_BYTES)
        read()
        said = _FINE
    except InputError as error:
        said = str(error).encode(errors="backslashreplace")[:4000]
    except MemoryError:
        said = f"the file asks for more than {_SPARE_BYTES / 1e9:.0f} GB of memory; {_ADVICE}".encode()
    except BaseException:  # a fault of ours: let the parent meet it where it can be seen
        said = _AGAIN
    with suppress(OSError):
        os.write(pipe, said)
    os._exit(0)


def _limit(which: int, value: int) -> None:
    _, most = resource.getrlimit(which)
    with suppress(ValueError, OSError):
        resource.setrlimit(which, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def _address_space() -> int:
    """Bytes that the process has mapped."""
    with suppress(OSError, ValueError), open("/proc/self/statm", "rb") as file:  # noqa: PTH123
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 1 << 46


def _said(pipe: int) -> bytes:
    """What comes before the child ends, or nothing."""
    ready, _, _ = select.select([pipe], [], [], WALL_SECONDS)
    return os.read(pipe, 1 << 16) if ready else b""


def _end(child: int) -> int | None:
    """How the child ended; None where it had to be ended."""
    for _ in range(200):
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            return status
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
