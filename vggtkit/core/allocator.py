"""Freed memory stays with the process, for work that makes and drops large activations thousands of times.

By default glibc gives large blocks back to the system as they are freed, and the system zeroes every page of the next
one: a tenth of the time of true damage on the bundled network on one thread, about a quarter on two, which wait for one
another there (docs/log.md). Nothing that is computed changes.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Names and numbers of malloc.h, see `man mallopt`.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
_ALL, _NONE = -1, 0
_USUAL = {M_TRIM_THRESHOLD: 64 * 2**20, M_MMAP_THRESHOLD: 32 * 2**20, M_MMAP_MAX: 65536}
"""What glibc's own adjustment reaches once blocks of 32 MiB have been freed."""


@contextmanager
def retain_memory() -> Iterator[bool]:
    """Keep freed memory until the block ends, where the C library is glibc; there is nothing to do elsewhere.

    Yields:
        Whether anything is different inside the block.

    >>> with retain_memory() as different:
    ...     isinstance(different, bool)
    True
    """
    if platform.libc_ver()[0] != "glibc":
        yield False
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_TRIM_THRESHOLD, _ALL)
    libc.mallopt(M_MMAP_MAX, _NONE)
    try:
        yield True
    finally:
        for name, value in _USUAL.items():
            libc.mallopt(name, value)
        libc.malloc_trim(0)
