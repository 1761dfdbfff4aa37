"""From ``--workers`` to an executor."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from vggtkit.core.errors import InputError, check_number
from vggtkit.core.executors.base import Demand, Executor
from vggtkit.core.executors.local import Local
from vggtkit.core.executors.processes import Processes
from vggtkit.core.executors.ray_cluster import RayCluster
from vggtkit.core.memory import LARGE, free_bytes, resident_bytes
from vggtkit.core.program import setting
from vggtkit.core.registry import Registry

AT_MOST = 8
"""Processes, where nobody asked for a number."""
MOST_WORKERS, MOST_THREADS = 10**4, 2**10
"""That can be asked for; what is more is a slip, at which the system would run out of processes."""
LOCAL, PROCESSES, RAY = "local", "processes", "ray"


@dataclass(frozen=True)
class Workers:
    """Who is to do the work.

    Attributes:
        kind: key of `EXECUTORS`.
        count: workers; 0 for as many as there is room for.
        threads: of each; 0 for as many as this process has, which only `Local` takes.
        address: of a cluster.
    """

    kind: str = LOCAL
    count: int = 0
    threads: int = 0
    address: str = ""

    def executor(self, demand: Demand) -> Executor:
        """The executor, started.

        Raises:
            InputError: it cannot be started, or there is no room for as many workers.
        """
        return EXECUTORS.pick(self.kind)(self, demand)


def parse_workers(text: str, threads: int = 0) -> Workers:
    """Read ``--workers``: a number, ``processes``, ``ray``, the address of a cluster, or another key of `EXECUTORS`.

    Args:
        text: what the user gave.
        threads: of each worker; 0 for one. One number of threads for all, so that any number of workers gives the same
            bits, of one as well.

    Raises:
        InputError: it is none of these, or a number is out of range.

    >>> parse_workers("4"), parse_workers("ray://head:10001", threads=8)  # doctest: +NORMALIZE_WHITESPACE
    (Workers(kind='processes', count=4, threads=1, address=''),
     Workers(kind='ray', count=0, threads=8, address='ray://head:10001'))
    """
    check_number("threads", threads, 0, MOST_THREADS)
    threads = threads or 1
    if text.removeprefix("-").isdigit():
        check_number("workers", count := int(text), 1, MOST_WORKERS)
        return Workers(PROCESSES if count > 1 else LOCAL, count, threads)
    if text.startswith("ray://"):
        return Workers(RAY, 0, threads, text)
    if text not in EXECUTORS:
        raise InputError(
            f"{setting('workers', text)}: give a number of processes, {', '.join(EXECUTORS)}, or ray://HOST:PORT"
        )
    return Workers(text, 0, threads)


def workers_for(model: nn.Module, demand: Demand) -> Workers:
    """Where nobody asked: processes of one thread for a small network on a CPU, one a core, as many as memory holds.

    A large network, or one on a GPU, stays in this process with all of its threads.

    >>> workers_for(nn.Linear(2, 2), Demand(10**15))
    Workers(kind='local', count=0, threads=0, address='')
    """
    parameters = list(model.parameters())
    if parameters[0].device.type != "cpu" or sum(weight.numel() for weight in parameters) > LARGE:
        return Workers()
    count = min(torch.get_num_threads(), AT_MOST, _room(demand))
    return Workers(PROCESSES, count, 1) if count > 1 else Workers()


def demand_of(model: nn.Module, needed: int) -> Demand:
    """What a worker takes that measures a model: what this process has now, and ``needed`` bytes at its peak."""
    return Demand((resident_bytes() or 0) + needed, gpus=int(next(model.parameters()).device.type == "cuda"))


def _room(demand: Demand) -> int:
    """Workers that this machine's memory and GPUs hold."""
    if demand.gpus:
        return torch.cuda.device_count()
    free = free_bytes(torch.device("cpu"))
    return AT_MOST if free is None or not demand.memory_bytes else free // demand.memory_bytes


def _local(workers: Workers, _demand: Demand) -> Executor:
    return Local(workers.threads or None)


def _processes(workers: Workers, demand: Demand) -> Executor:
    room, threads = _room(demand), workers.threads or 1
    if workers.count > room:
        what = "a GPU" if demand.gpus else f"{demand.memory_bytes / 1e9:.1f} GB of memory"
        raise InputError(
            f"{setting('workers', workers.count)}: each takes {what}, there is room for {room}: give {max(1, room)}"
        )
    cores = max(1, (os.cpu_count() or 1) // threads)
    return Processes(workers.count or max(1, min(cores, room)), threads, gpus=bool(demand.gpus))


def _ray(workers: Workers, demand: Demand) -> Executor:
    return RayCluster(workers.address, workers.count, workers.threads or 1, demand)


EXECUTORS: Registry[Callable[[Workers, Demand], Executor]] = Registry("executor")
EXECUTORS.register(LOCAL, _local)
EXECUTORS.register(PROCESSES, _processes)
EXECUTORS.register(RAY, _ray)
