"""Where pieces of work run: here, in processes of this machine, or on a cluster; the numbers are the same bits.

| module | holds |
|---|---|
| `base` | work, its pieces, and what an executor promises |
| `local` | one piece after the other, in this process |
| `processes` | processes of this machine |
| `ray_cluster` | Ray, on this machine or on a cluster |
| `worker` | what a process or node does with the work that it was sent |
| `choosing` | from ``--workers`` to an executor; the registry of all |
"""

from vggtkit.core.executors.base import Demand, Done, Executor, Work, in_order
from vggtkit.core.executors.choosing import EXECUTORS, Workers, demand_of, parse_workers, workers_for

__all__ = [
    "EXECUTORS",
    "Demand",
    "Done",
    "Executor",
    "Work",
    "Workers",
    "demand_of",
    "in_order",
    "parse_workers",
    "workers_for",
]
