"""Ctrl-C and SIGTERM: how a command ends early, and with which exit code."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes: 128 and the number of the signal, as shells have them."""

Handler = Callable[[int, FrameType | None], None]


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came; as an interruption from the keyboard it passes everything that catches mere errors."""


_received: list[type[KeyboardInterrupt]] = []


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGTERM raises `TerminatedError`, and a signal that some callback swallowed is not lost.

    >>> with interruptible():
    ...     check_interrupted()
    """
    _received.clear()
    with _handling({signal.SIGINT: _raise, signal.SIGTERM: _raise}):
        try:
            yield
        finally:
            _received.clear()


def check_interrupted() -> None:
    """Raise what a signal has raised before and a library has swallowed."""
    if _received:
        raise _received[0]


def behind(error: BaseException) -> BaseException:
    """The interruption that a library turned into an error of its own; the error itself where none came.

    >>> behind(ValueError("no number")).args
    ('no number',)
    """
    return _received[0]() if _received and not isinstance(error, KeyboardInterrupt) else error


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Within it a signal ends the process: while packages are imported there is nothing to lose."""
    with _handling({signal.SIGINT: _end, signal.SIGTERM: _end}):
        yield


def exit_code(error: BaseException | None) -> int:
    """Of an interruption, or of what click made of it.

    >>> exit_code(KeyboardInterrupt()), exit_code(TerminatedError())
    (130, 143)
    """
    while error is not None:
        if isinstance(error, TerminatedError):
            return TERMINATED
        error = error.__cause__ or error.__context__
    return INTERRUPTED


def _raise(number: int, _frame: FrameType | None) -> None:
    kind = TerminatedError if number == signal.SIGTERM else KeyboardInterrupt
    _received.append(kind)
    raise kind


def _end(number: int, _frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


@contextmanager
def _handling(handlers: dict[signal.Signals, Handler]) -> Iterator[None]:
    """Only the first thread may; elsewhere, and where somebody else handles the signals, everything stays as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in handlers}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    taken = [number for number in handlers if before[number] in usual]  # nohup has a command ignore them
    for number in taken:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
