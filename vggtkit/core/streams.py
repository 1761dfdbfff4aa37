"""Standard output and error that take any text, and may be closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

NOBODY_READS = 141
"""The exit code where a pipe was closed: 128 and SIGPIPE's number, as of a program that it ends."""


@contextmanager
def readable_streams() -> Iterator[None]:
    """Within it a letter that a terminal has not is replaced, and a stream that is closed swallows what is written.

    At the end nothing is left in a buffer that Python would fail to write when it ends.
    """
    for descriptor in range(3):  # else a file that is opened next would take the place, and messages land in it
        with suppress(OSError):
            if not _is_open(descriptor):
                os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            _drain(stream)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _drain(stream: Any) -> None:  # noqa: ANN401
    """Write what is left, or else give the stream a place where it can be written."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
