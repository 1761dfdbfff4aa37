"""Work, its pieces, and what an executor promises.

A piece is a step of a journal (`vggtkit.core.journal`): a scene under a scheme, some layers on a scene, a plan to be
measured. Its result depends on the work, the piece and the number of threads of a worker, not on which worker did it or
what else this one did: torch adds in another order with another number of threads, so all workers of an executor have
one number, which belongs to the identity of a step. Results come as they are ready; who asked puts them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Piece = TypeVar("Piece")
Piece_contra = TypeVar("Piece_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Work(Protocol[Piece_contra, Result_co]):
    """What is done to every piece. It is pickled and goes to each node once, so it holds the weights and the scenes."""

    def opened(self) -> AbstractContextManager[Callable[[Piece_contra], Result_co]]:
        """Make ready once in a worker; what is kept between pieces (a recorded pass, say) is let go at the end."""


@dataclass(frozen=True)
class Done(Generic[Result]):
    """A piece that is done.

    Attributes:
        number: of the piece, as it was given.
        value: its result.
        worker: who did it; for progress alone.
    """

    number: int
    value: Result
    worker: str


@dataclass(frozen=True)
class Demand:
    """What one worker takes.

    Attributes:
        memory_bytes: at its peak, its own copy of the weights included; 0 where nobody knows.
        gpus: 1 where the work computes on a GPU, else 0.
    """

    memory_bytes: int = 0
    gpus: int = 0


Results = Generator[Done[Result], None, None]
"""Pieces as they are done; to be closed by who stops early (``contextlib.closing``), which ends the workers."""


class Executor(Protocol):
    """Runs pieces somewhere.

    Attributes:
        title: what progress calls it, as ``2 processes``.
        workers: how many pieces are at work at a time.
        threads: of each worker.
    """

    title: str
    workers: int
    threads: int

    def run(
        self, work: Work[Piece, Result], pieces: Sequence[Piece], places: Sequence[Hashable] | None = None
    ) -> Results[Result]:
        """Do all pieces; each comes once, as it is ready. Pieces of a worker that is lost are done again.

        Args:
            work: what is done.
            pieces: to what.
            places: of each piece, what it shares with others (a scene, say): an executor that can gives pieces of one
                place to one worker, which has made ready for it.

        Raises:
            InputError: a piece that ends its worker time after time, or workers that cannot be started.
            Exception: what a piece raised.
        """


def in_order(
    executor: Executor,
    work: Work[Piece, Result],
    pieces: Sequence[Piece],
    tell: Callable[[Done[Result]], None] = lambda _: None,
    places: Sequence[Hashable] | None = None,
) -> list[Result]:
    """All results, in the order of the pieces.

    Args:
        executor: that runs them.
        work: what is done.
        pieces: to what.
        tell: called for each as it is ready.
        places: as `Executor.run` takes them.
    """
    results: dict[int, Result] = {}
    with closing(executor.run(work, pieces, places)) as finished:
        for done in finished:
            results[done.number] = done.value
            tell(done)
    return [results[number] for number in range(len(pieces))]
