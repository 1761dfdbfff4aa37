"""Ctrl-C and SIGTERM: how a command ends early, and with which exit code."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType, TracebackType

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes: 128 and the number of the signal, as shells have them."""

Handler = Callable[[int, FrameType | None], None]


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came; as an interruption from the keyboard it passes everything that catches mere errors."""


_received: list[type[KeyboardInterrupt]] = []
_swallowed = threading.Event()
"""Set while one is to be raised again."""
_waiting = 0
"""How many blocks there are, one in another, within which none is raised."""
_SOON = 0.01
"""Seconds until then: the finaliser or callback that it was raised in has ended."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGTERM raises `TerminatedError`, and a signal that some callback swallowed is not lost.

    Where nothing can be raised (in a finaliser, the callback of a weak reference or of a C library), Python prints what
    was raised and goes on; here it is not printed, and raised once more.

    >>> with interruptible():
    ...     check_interrupted()
    """
    _received.clear()
    with _handling({signal.SIGINT: _raise, signal.SIGTERM: _raise}), _hooks():
        try:
            yield
        finally:
            _received.clear()
            _swallowed.clear()


def check_interrupted() -> None:
    """Raise what a signal has raised before and a library has swallowed."""
    _swallowed.clear()
    if _received:
        raise _received[0]


def behind(error: BaseException) -> BaseException:
    """The interruption that a library turned into an error of its own; the error itself where none came.

    >>> behind(ValueError("no number")).args
    ('no number',)
    """
    _swallowed.clear()
    return _received[0]() if _received and not isinstance(error, KeyboardInterrupt) else error


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within it signals that would end the work wait; they count when it ends, or where it asks `check_interrupted`.

    >>> with interruptible():
    ...     try:
    ...         with uninterrupted():
    ...             signal.raise_signal(signal.SIGTERM)
    ...             print("done")
    ...     except TerminatedError:
    ...         print("and ended")
    done
    and ended
    """
    global _waiting
    if threading.current_thread() is not threading.main_thread():  # where none is raised
        yield
        return
    before = len(_received)
    ours = all(signal.getsignal(number) in (_raise, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM))
    with nullcontext() if ours else _blocked():  # which does not hold back those that another thread takes
        _waiting += 1
        try:
            yield
        finally:
            _waiting -= 1
    if len(_received) > before and not _waiting:
        check_interrupted()


def end_at_once() -> None:
    """From here on, but within `interruptible`, a signal ends the process: as the last work that it does is over."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in _USUAL:
                signal.signal(number, _end)


@contextmanager
def keeping_handlers() -> Iterator[None]:
    """Within it a library may handle signals; after it they are handled as before."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)


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
    if not _waiting:
        raise kind


@contextmanager
def _blocked() -> Iterator[None]:
    """The system keeps signals back; Python may not handle them at all where this is a library."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _hooks() -> Iterator[None]:
    """An interruption that Python cannot raise is raised soon; one that a library has Python print is not printed."""
    unraisable, uncaught = sys.unraisablehook, sys.excepthook

    def raise_again(what: sys.UnraisableHookArgs) -> None:
        if not (_received and isinstance(what.exc_value, KeyboardInterrupt)):
            unraisable(what)
            return
        _swallowed.set()
        timer = threading.Timer(_SOON, _raise_in_first_thread)
        timer.daemon = True
        timer.start()

    def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (_received and issubclass(kind, KeyboardInterrupt)):
            uncaught(kind, error, trace)

    sys.unraisablehook, sys.excepthook = raise_again, say
    try:
        yield
    finally:
        sys.unraisablehook, sys.excepthook = unraisable, uncaught


def _raise_in_first_thread() -> None:
    """Unless it was raised meanwhile."""
    if _swallowed.is_set() and _received:
        _swallowed.clear()
        number = signal.SIGTERM if _received[0] is TerminatedError else signal.SIGINT
        if hasattr(signal, "pthread_kill"):  # which also ends its waiting
            signal.pthread_kill(threading.main_thread().ident or 0, number)
        else:
            _thread.interrupt_main(number)


def _end(number: int, _frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


_USUAL = (signal.SIG_DFL, signal.default_int_handler, _end)
"""Handlers that nobody else has put there."""


@contextmanager
def _handling(handlers: dict[signal.Signals, Handler]) -> Iterator[None]:
    """Only the first thread may; elsewhere, and where somebody else handles the signals, everything stays as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in handlers}
    taken = [number for number in handlers if before[number] in _USUAL]  # nohup has a command ignore them
    for number in taken:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
