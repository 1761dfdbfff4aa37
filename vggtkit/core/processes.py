"""A measurement shared among processes, one a core: a small network leaves the threads of one process waiting.

On the bundled network two threads take 0.65 of the time of one, two processes about half (docs/log.md).
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from vggtkit.core.errors import InputError
from vggtkit.core.memory import LARGE, free_bytes, resident_bytes
from vggtkit.core.plugins import load_plugins, loaded_plugins

AT_MOST = 8
"""Processes."""

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Task(Protocol[Result_co]):
    """What can be shared; to be sent to a process it must be picklable, say a ``partial`` of a function."""

    def __call__(self, share: slice, step: Callable[[], None], /) -> Result_co:
        """The result of some of the items; ``step`` is to be called after each."""


def processes_for(model: nn.Module, needed: int) -> int:
    """One a core, as many as memory holds, up to `AT_MOST`; one, which uses all cores itself, for a large network.

    Args:
        model: what is measured; one on a GPU is never shared.
        needed: bytes of memory that a process takes beside what this one has now.

    >>> processes_for(nn.Linear(2, 2), 10**15)
    1
    """
    parameters = list(model.parameters())
    device = parameters[0].device
    if device.type != "cpu" or sum(weight.numel() for weight in parameters) > LARGE:
        return 1
    free = free_bytes(device)
    fit = AT_MOST if free is None else free // (needed + (resident_bytes() or 0))
    return max(1, min(torch.get_num_threads(), AT_MOST, fit))


def in_processes(task: Task[Result], processes: int, step: Callable[[], None] = lambda: None) -> list[Result]:
    """Run every share of a task, ``items[0::processes]``, ``items[1::processes]``, ..., in a process of its own.

    A single share is run here. Where this process is interrupted, killed or fails, the others end. As all of
    multiprocessing, this asks a script for ``if __name__ == "__main__":`` around its work.

    Args:
        task: what is run.
        processes: how many; each has its part of the threads of this one.
        step: called whenever a task calls its own.

    Returns:
        The results, by share.

    Raises:
        InputError: a process died, say for want of memory.
        Exception: what a task raised.

    >>> in_processes(lambda share, step: list(range(5))[share], 1)
    [[0, 1, 2, 3, 4]]
    """
    if processes == 1:
        return [task(slice(0, None, 1), step)]
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // processes)
    packed = pickle.dumps(task)  # not the pickler of torch's processes, which moves weights into shared memory
    children: list[SpawnProcess] = []
    pipes: list[Connection] = []
    results: dict[int, Result] = {}
    try:
        for number in range(processes):
            ours, theirs = context.Pipe()
            share = slice(number, None, processes)
            child = context.Process(target=_run, args=(theirs, share, threads, loaded_plugins()), daemon=True)
            child.start()
            children.append(child)
            theirs.close()
            pipes.append(ours)
        for pipe in pipes:  # it waits until the process reads, so not before all have started
            with suppress(BrokenPipeError):  # it died; found out below
                pipe.send_bytes(packed)
        while waiting := [number for number in range(processes) if number not in results]:
            ready = wait([pipes[number] for number in waiting])
            for number in (number for number in waiting if pipes[number] in ready):
                kind, value = _received(pipes[number], children[number], processes)
                if kind == "step":
                    step()
                else:
                    results[number] = value
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.join()
    return [results[number] for number in range(processes)]


def _received(pipe: Connection, child: SpawnProcess, processes: int) -> tuple[str, Any]:
    """What a process says: a step, or that it is done and with what; what it raised is raised here."""
    try:
        kind, value = pipe.recv()
    except (EOFError, ConnectionResetError):
        child.join()
        code = child.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise InputError(
            f"one of {processes} measuring processes died ({how}), perhaps for want of memory: "
            "with OMP_NUM_THREADS=1 there is only one"
        ) from None
    if kind == "failed":
        raise value
    return kind, value


def _run(pipe: Connection, share: slice, threads: int, plugins: list[str]) -> None:
    """The process of one share. Its pipe breaks when the first process dies, and it ends as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is interrupted too, and ends this one
    torch.set_num_threads(threads)
    try:
        packed = pipe.recv_bytes()
    except EOFError:
        return
    try:
        load_plugins(plugins)
        result = pickle.loads(packed)(share, lambda: pipe.send(("step", None)))
        pipe.send(("done", result))
    except BrokenPipeError:
        return
    except Exception as error:
        pipe.send(("failed", error))
