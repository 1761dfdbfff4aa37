"""Memory and disk: what a process has, what is free, and the refusal of work that does not fit."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting

LARGE = 10**8
"""Parameters of a network from which on cost matters more than a last digit."""


def bytes_of(value: object) -> int:
    """Of all tensors in a value, however nested."""
    return sum(v.numel() * v.element_size() for v in tree_leaves(value) if isinstance(v, Tensor))


def resident_bytes() -> int | None:
    """Memory that the process has at the moment; None where the system does not tell.

    >>> (resident_bytes() or 1) > 0
    True
    """
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def peak_resident_bytes() -> int:
    """The most memory that the process has had."""
    with suppress(OSError, StopIteration, ValueError):  # what the resource module says may be a parent's
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_disk(needed: int, folder: Path) -> None:
    """Refuse work whose files would not fit, before it starts.

    Raises:
        InputError: with both numbers and the way out.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"the profile needs {needed / 1e6:.0f} MB of disk while it is made, {free / 1e6:.0f} MB are free in "
            f"{folder}: make room, name another {setting('run')}, or give a lower {setting('disk_budget')}"
        )


def free_bytes(device: torch.device) -> int | None:
    """Memory that a device has left; None where it does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = None
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError):  # what a container may take
        group = Path("/sys/fs/cgroup")
        left = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        free = left if free is None else min(free, left)
    return free


def check_memory(needed: int, device: torch.device) -> None:
    """Refuse work that does not fit, before it starts.

    Raises:
        InputError: with both numbers and the ways out.

    >>> check_memory(10**15, torch.device("cpu"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vggtkit.core.errors.InputError: profiling needs about 1000000.0 GB of memory beside the weights, ...
    """
    free = free_bytes(device)
    if free is not None and needed > free:
        raise InputError(
            f"profiling needs about {needed / 1e9:.1f} GB of memory beside the weights, {free / 1e9:.1f} GB are free: "
            f"give fewer pictures ({setting('max_images')}, {setting('views')}), smaller ones "
            f"({setting('resolution')}) or {setting('probes', 1)}"
        )
