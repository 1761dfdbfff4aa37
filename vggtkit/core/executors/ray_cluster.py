"""Ray, on this machine or on a cluster (the optional extra ``cluster``).

A worker is an actor that holds its resources (threads as CPUs, the memory that was foreseen, a GPU) as long as the work
lasts, so that Ray overfills no node. The packed work lies in the object store: each node gets it once, its workers read
the same memory. When a worker or a node is lost, Ray starts the actor anew and sends it its piece again.

Source: Moritz et al., "Ray: A Distributed Framework for Emerging AI Applications", OSDI 2018.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections import deque
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vggtkit.core.errors import InputError
from vggtkit.core.executors.base import Demand, Done, Piece, Result, Results, Work
from vggtkit.core.executors.worker import Bench, packed_work, work_key
from vggtkit.core.interrupts import keeping_handlers
from vggtkit.core.program import setting

ATTEMPTS = 3
"""Times that a piece may end its worker."""
CONNECTIONS = 3
"""Times that a connection is tried which the server gives up."""
PAUSE_SECONDS = 1.0
"""Between these."""
CLIENT = "ray://"
"""How addresses of Ray's client server begin."""
START_SECONDS = 300.0
"""Until one worker at least has its resources."""
STORE_BYTES = 10**9
"""Of the object store of a Ray that is started here; larger work needs a cluster that is started with more."""


class RayCluster:
    """Runs pieces on Ray.

    Args:
        address: of a cluster, as ``ray://host:10001`` or ``host:6379``; "" starts one on this machine.
        count: workers, at most; 0 for as many as the nodes hold.
        threads: of each.
        demand: what each takes.

    Raises:
        InputError: Ray is not installed, cannot be reached, or no node holds a worker.
    """

    def __init__(self, address: str = "", count: int = 0, threads: int = 1, demand: Demand | None = None) -> None:
        self.address, self.threads, self.demand = address, threads, demand or Demand()
        self._ray = _connected(address, count * threads)
        fit = sum(self._workers_of(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
        if not fit:
            raise InputError(
                f"{setting('workers', address or 'ray')}: no node holds a worker of {self._described()}; give fewer "
                "threads, fewer or smaller pictures, or larger nodes"
            )
        self.workers = min(count or fit, fit)
        self.title = f"{self.workers} Ray worker{'s' * (self.workers > 1)}"

    def run(
        self, work: Work[Piece, Result], pieces: Sequence[Piece], places: Sequence[Hashable] | None = None
    ) -> Results[Result]:
        """As `Executor.run`."""
        ray, data = self._ray, packed_work(work)
        key, stored = work_key(data), ray.put(np.frombuffer(data, np.uint8))
        del data
        actors = [self._start() for _ in range(min(self.workers, len(pieces)))]
        waiting = Waiting(places or list(range(len(pieces))))
        at_work: dict[Any, tuple[int, int | None]] = {
            actor.name.remote(): (at, None) for at, actor in enumerate(actors)
        }
        left, started = len(pieces), False
        try:
            while left:
                ready, _ = ray.wait(list(at_work), num_returns=1, timeout=None if started else START_SECONDS)
                if not ready:
                    raise InputError(f"no node had {self._described()} free within {START_SECONDS:.0f} s; try later")
                started = True
                at, number = at_work.pop(ready[0])
                name, value = self._received(ready[0])
                if (following := waiting.next(at)) is not None:
                    at_work[actors[at].do.remote(pieces[following], key, self.threads, [stored])] = (at, following)
                if number is not None:
                    left -= 1
                    yield Done(number, value, name)
        finally:
            for actor in actors:
                ray.kill(actor)

    def _start(self) -> Any:  # noqa: ANN401
        remote = self._ray.remote(_Worker).options(
            num_cpus=self.threads,
            num_gpus=self.demand.gpus,
            memory=self.demand.memory_bytes or None,
            max_restarts=-1,
            max_task_retries=ATTEMPTS - 1,
        )
        return remote.remote()

    def _received(self, ref: object) -> Any:  # noqa: ANN401
        """What a worker gave; what a piece raised is raised here."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except errors.RayTaskError as error:
            raise getattr(error, "cause", None) or error from None
        except errors.RayError as error:
            raise InputError(
                f"a worker of {self.title} died {ATTEMPTS} times at the same piece, perhaps for want of memory "
                f"({' '.join(str(error).split())[:200]}): give a lower {setting('workers')} or larger nodes"
            ) from None

    def _workers_of(self, resources: dict[str, float]) -> int:
        """How many a node holds."""
        fit = int(resources.get("CPU", 0)) // self.threads
        if self.demand.memory_bytes:
            fit = min(fit, int(resources.get("memory", 0)) // self.demand.memory_bytes)
        return min(fit, int(resources.get("GPU", 0))) if self.demand.gpus else fit

    def _described(self) -> str:
        gpu = ", a GPU" if self.demand.gpus else ""
        return f"{self.threads} CPU{'s' * (self.threads > 1)}, {self.demand.memory_bytes / 1e9:.1f} GB of memory{gpu}"


class Waiting:
    """Pieces that wait, and which a worker is to be given.

    Args:
        places: of every piece.

    >>> waiting = Waiting(["a", "a", "b", "b"])
    >>> [waiting.next(worker) for worker in (1, 2, 1, 1, 2)]
    [0, 2, 1, 3, None]
    """

    def __init__(self, places: Sequence[Hashable]) -> None:
        self._at: dict[Hashable, deque[int]] = {}
        for number, place in enumerate(places):
            self._at.setdefault(place, deque()).append(number)
        self._held: dict[Hashable, Hashable] = {}

    def next(self, worker: Hashable) -> int | None:
        """Of the worker's own place; else of the first that nobody works at; else of the first. None: there is none."""
        if not self._at:
            return None
        place = self._held.get(worker)
        if place not in self._at:
            held = set(self._held.values())
            place = next((free for free in self._at if free not in held), next(iter(self._at)))
        self._held[worker] = place
        number = self._at[place].popleft()
        if not self._at[place]:
            del self._at[place]
        return number


class _Worker:
    """An actor: the work, ready, in a process somewhere. One that is started anew is sent the work again."""

    def __init__(self) -> None:
        self._bench = Bench()

    def name(self) -> tuple[str, None]:
        return self._name(), None

    def do(self, piece: object, key: str, threads: int, stored: list[Any]) -> tuple[str, object]:
        import ray

        # In a list, it comes as a reference: only who is not ready yet reads the memory of the node's store.
        result = self._bench.do(key, threads, lambda: memoryview(ray.get(stored[0])), piece)
        return self._name(), result

    def _name(self) -> str:
        return f"{os.uname().nodename}:{os.getpid()}"


def _connected(address: str, cpus: int) -> Any:  # noqa: ANN401
    """The package, connected; one connection a process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError:
        raise InputError(
            f"{setting('workers', address or 'ray')} needs Ray: pip install 'vggt-mixedprec[cluster]'"
        ) from None
    if ray.is_initialized():
        return ray
    if address.startswith(CLIENT) and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as Ray itself does for every other kind of address
    own: dict[str, Any] = {"num_cpus": cpus or None, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    try:
        with keeping_handlers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _initialise(ray, address or None, **({} if address else own))
    except Exception as error:  # of gRPC, the system, or Ray's own kinds
        raise InputError(
            f"{setting('workers', address or 'ray')}: Ray cannot be started or reached "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}){_about_tokens(address)}"
        ) from error
    return ray


def _initialise(ray: Any, address: str | None, **options: Any) -> None:  # noqa: ANN401
    """Connect; Ray's server for ``ray://`` forks a process for every client, which by chance dies of its threads."""
    for left in reversed(range(CONNECTIONS)):
        try:
            # Ray ends the program on SIGTERM with a code of its own, and says twice what is said by the caller.
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
            return
        except ConnectionAbortedError:
            if not left:
                raise
            time.sleep(PAUSE_SECONDS)


def _has_token() -> bool:
    """Whether this user has a token for clusters, where Ray looks for one."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return "RAY_AUTH_TOKEN" in os.environ or Path(named or Path.home() / ".ray" / "auth_token").is_file()


def _about_tokens(address: str) -> str:
    """A cluster that wants a token does not answer at all where none is sent."""
    if not address.startswith(CLIENT) or os.environ.get("RAY_AUTH_MODE") == "token":
        return ""
    return "; a cluster that wants a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here"
