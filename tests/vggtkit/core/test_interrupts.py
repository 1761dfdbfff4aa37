"""Signals: none is lost, none is printed as a traceback, none comes between two renames."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from vggtkit.core.interrupts import (
    TerminatedError,
    check_interrupted,
    end_at_once,
    exit_code,
    interruptible,
    keeping_handlers,
    uninterrupted,
)


@pytest.fixture(autouse=True)
def handled_as_in_a_program() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Final:
    """What is ended by Python, which prints what its end raises and goes on."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def in_a_finaliser() -> None:
    Final()


def in_a_weak_reference() -> None:
    import weakref

    other = type("Other", (), {})()
    weakref.finalize(other, signal.raise_signal, signal.SIGTERM)
    del other


def at_a_fork() -> None:
    """As when the system takes its time to copy a process: what Python does first after it meets the signal."""
    main = os.getpid()

    def raised() -> None:
        if armed and os.getpid() == main:
            armed.clear()
            signal.raise_signal(signal.SIGTERM)

    armed = [True]
    os.register_at_fork(after_in_parent=raised)
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("where", [in_a_finaliser, in_a_weak_reference, at_a_fork])
def test_a_signal_where_nothing_can_be_raised_is_raised_soon(
    where: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TerminatedError), interruptible():
        where()
        time.sleep(60)  # what goes on is ended
    assert capfd.readouterr().err == ""


def test_what_was_raised_meanwhile_is_not_raised_twice() -> None:
    with interruptible():
        in_a_finaliser()
        with pytest.raises(TerminatedError):
            check_interrupted()
        time.sleep(0.1)  # ten times as long as it would take to come


def test_other_errors_where_nothing_can_be_raised_are_printed_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: said.append(what.exc_value))

    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken")

    with interruptible():
        Broken()
    assert [str(error) for error in said] == ["broken"]


def test_a_signal_waits_though_another_thread_takes_it() -> None:
    """The system gives it to any thread that does not keep it back; Python handles it in the first one."""
    stop, done = threading.Event(), []
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        with pytest.raises(TerminatedError), interruptible():
            with uninterrupted():
                signal.pthread_kill(other.ident or 0, signal.SIGTERM)
                time.sleep(0.05)
                done.append("all of it")
            done.append("more")
    finally:
        stop.set()
        other.join()
    assert done == ["all of it"]


def test_a_library_that_takes_the_signals_gives_them_back() -> None:
    with pytest.raises(TerminatedError), interruptible():
        with keeping_handlers():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_before_and_after_the_work_a_signal_ends_the_program(number: signal.Signals, code: int) -> None:
    program = f"import signal\nfrom {end_at_once.__module__} import end_at_once, interruptible\nend_at_once()\n"
    for last in ("", "with interruptible():\n    pass\n"):
        ran = subprocess.run(
            [sys.executable, "-c", f"{program}{last}signal.raise_signal({int(number)})"],
            capture_output=True,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (code, b"interrupted\n")


def test_an_interruption_keeps_its_kind_whatever_it_became() -> None:
    error = RuntimeError("of a library")
    error.__context__ = KeyboardInterrupt()
    error.__context__.__cause__ = TerminatedError()
    assert exit_code(error) == 143
