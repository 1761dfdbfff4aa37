"""Processes of this machine, fresh ones: torch's threads do not survive a fork.

On the bundled network two threads take 0.65 of the time of one, two processes about half (docs/log.md).
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vggtkit.core.errors import InputError
from vggtkit.core.executors.base import Done, Piece, Result, Results, Work
from vggtkit.core.executors.worker import Bench, packed_work, work_key
from vggtkit.core.program import setting

ATTEMPTS = 3
"""Times in a row that processes may die with no piece done in between."""


class Processes:
    """Runs pieces in processes that are started for them and end with them.

    The work is written to this machine's disk once and read by each. When a process is lost, what was at work is done
    again by new ones. As all of multiprocessing, this asks a script for ``if __name__ == "__main__":`` around its work.

    Args:
        workers: how many, at most.
        threads: of each.
        gpus: each has a GPU of its own.
    """

    def __init__(self, workers: int, threads: int = 1, *, gpus: bool = False) -> None:
        self.workers, self.threads, self.gpus = workers, threads, gpus
        self.title = f"{workers} processes"

    def run(
        self,
        work: Work[Piece, Result],
        pieces: Sequence[Piece],
        places: Sequence[Hashable] | None = None,  # noqa: ARG002
    ) -> Results[Result]:
        """As `Executor.run`; in the order of the pieces, whatever their places."""
        if not pieces:
            return
        with tempfile.TemporaryDirectory(prefix="work-") as folder:
            path = Path(folder) / "work.pickle"
            path.write_bytes(data := packed_work(work))
            key = work_key(data)
            del data
            waiting = dict(enumerate(pieces))
            lost = 0
            while waiting:
                try:
                    for done in self._round(path, key, dict(waiting)):
                        del waiting[done.number]
                        lost = 0
                        yield done
                except BrokenProcessPool:
                    lost += 1
                    if lost == ATTEMPTS:
                        raise InputError(
                            f"processes of {self.title} died {lost} times in a row at the same pieces, perhaps for "
                            f"want of memory: give a lower {setting('workers')}, 1 to work without them"
                        ) from None

    def _round(self, path: Path, key: str, pieces: dict[int, Piece]) -> Iterator[Done[Any]]:
        """Pieces as they are done, until all are or a process dies."""
        with self._pool(min(self.workers, len(pieces)), path, key) as pool:
            left = iter(pieces.items())
            at_work: dict[Future[tuple[int, object]], int] = {}
            while True:
                for number, piece in itertools.islice(left, 2 * self.workers - len(at_work)):
                    at_work[pool.submit(_do, piece)] = number
                if not at_work:
                    return
                # Broken ones come last: what was done before a process died is not done again.
                ready = sorted(wait(at_work, return_when=FIRST_COMPLETED).done, key=_is_broken)
                for future in ready:
                    process, value = future.result()
                    yield Done(at_work.pop(future), value, f"process {process}")

    @contextmanager
    def _pool(self, size: int, path: Path, key: str) -> Iterator[ProcessPoolExecutor]:
        """Processes that end with this block, and when this process dies: their end of a pipe then closes."""
        context = multiprocessing.get_context("spawn")
        theirs, ours = context.Pipe(duplex=False)
        counter = context.Value("i", 0)
        started = (theirs, counter if self.gpus else None, str(path), key, self.threads)
        pool = ProcessPoolExecutor(size, context, initializer=_start, initargs=started)
        try:
            yield pool
        finally:
            ours.close()
            pool.shutdown(wait=True, cancel_futures=True)
            theirs.close()


def _is_broken(future: Future[Any]) -> bool:
    return isinstance(future.exception(), BrokenProcessPool)


_bench = Bench()
_work: tuple[str, Path, int] = ("", Path(), 1)


def _start(pipe: Connection, counter: Any, path: str, key: str, threads: int) -> None:  # noqa: ANN401
    """What a process does first. Nothing is ever sent through its pipe, which closes when the work is to end."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is interrupted too, and ends this one
    if counter is not None:
        with counter.get_lock():
            os.environ["CUDA_VISIBLE_DEVICES"] = str(counter.value)
            counter.value += 1
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    _work = (key, Path(path), threads)


def _end_with(pipe: Connection) -> None:
    pipe.poll(None)
    os._exit(1)


def _do(piece: object) -> tuple[int, object]:
    """A piece, in a process."""
    key, path, threads = _work
    return os.getpid(), _bench.do(key, threads, path.read_bytes, piece)
