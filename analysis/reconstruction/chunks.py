"""How many pictures fit into memory at once, and which of them go together."""

from __future__ import annotations

import itertools
from collections.abc import Callable

SHARED = 1
"""Pictures that neighbouring chunks have in common, so that they can be brought into one frame."""


def most_at_once(peak: Callable[[int], int], allowed: int | None, count: int) -> int:
    """The largest number of pictures whose pass stays within so many bytes.

    Args:
        peak: bytes that a pass on so many pictures takes; grows with their number.
        allowed: bytes; None for no limit.
        count: pictures there are.

    Returns:
        ``count`` where all fit, 0 where not even two do.

    >>> most_at_once(lambda pictures: 10 * pictures, 75, 20)
    7
    """
    if allowed is None or peak(count) <= allowed:
        return count
    if count <= 2 or peak(2) > allowed:
        return 0
    fits, does_not = 2, count
    while does_not - fits > 1:
        middle = (fits + does_not) // 2
        fits, does_not = (middle, does_not) if peak(middle) <= allowed else (fits, middle)
    return fits


def cut(count: int, most: int) -> list[range]:
    """So many pictures in as few chunks as can be, each beginning with the last picture of the one before.

    Args:
        count: pictures, at least 1.
        most: in a chunk; at least 2 where there are more pictures than that.

    Returns:
        Numbers of pictures, chunk by chunk; sizes differ by one at most.

    >>> cut(3, 8), cut(7, 4)
    ([range(0, 3)], [range(0, 4), range(3, 7)])
    >>> [len(chunk) for chunk in cut(10, 4)]
    [4, 4, 4]
    """
    if count <= most:
        return [range(count)]
    steps = count - SHARED
    chunks = -(-steps // (most - SHARED))
    ends = [steps * number // chunks for number in range(chunks + 1)]
    return [range(begin, end + SHARED) for begin, end in itertools.pairwise(ends)]
