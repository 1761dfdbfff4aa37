"""Memory and time of a reconstruction, before anything runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from analysis.reconstruction.chunks import cut, most_at_once
from analysis.reconstruction.pictures import Pictures
from analysis.reconstruction.views import see
from analysis.timing.activations import ShapeCosts, shape_costs
from analysis.timing.forecast import Forecast
from mixedprec import format_bytes
from vggtkit.core.errors import InputError
from vggtkit.core.memory import free_bytes
from vggtkit.core.program import setting
from vggtkit.scenes import Scene
from vggtkit.scenes.depth_files import Size
from vggtkit.subject import Subject

SHARE_OF_FREE = 0.8
"""Of the memory that is free, what passes are planned for: allocators keep some, and others take some meanwhile."""

LONG = 1.0
"""Seconds for one picture from which on no further passes are spent on a forecast."""

QUICK_PASS = 0.4
"""Seconds that a further pass for a forecast may be expected to take."""


@dataclass(frozen=True)
class ReconstructionNeeds:
    """What a reconstruction will take.

    Attributes:
        chunks: numbers of pictures, pass by pass.
        forecast: of the longest pass, with the seconds of all of them.
        kept_bytes: depth and confidence of all pictures.
        free_bytes: of the device, before; None where it does not tell.
    """

    chunks: tuple[range, ...]
    forecast: Forecast
    kept_bytes: int
    free_bytes: int | None

    def sentences(self) -> list[str]:
        """For people, before it begins."""
        pictures = self.chunks[-1].stop
        free = "" if self.free_bytes is None else f" ({format_bytes(self.free_bytes)} are free)"
        took = "" if self.forecast.seconds is None else f", about {self.forecast.seconds:.1f} s"
        many = "1 picture" if pictures == 1 else f"{pictures} pictures"
        passes = "1 pass" if len(self.chunks) == 1 else f"{len(self.chunks)} passes"
        needed, weights = self.forecast.activation_bytes + self.kept_bytes, self.forecast.weight_bytes
        said = [
            f"{many} in {passes}: about {format_bytes(needed)} of memory{free} beside {format_bytes(weights)} of"
            f" weights{took}"
        ]
        if len(self.chunks) > 1:
            said.append(
                f"CHUNKS OF {max(map(len, self.chunks))} PICTURES: each begins with the last picture of the one before,"
                " by which it is brought into the first one's frame; errors add up from chunk to chunk"
            )
        return said


def needs_of(
    subject: Subject,
    bare: Subject,
    pictures: Pictures,
    *,
    weights: tuple[int, int],
    at_once: int | None = None,
    timed: bool = True,
    free: Callable[[torch.device], int | None] = free_bytes,
) -> ReconstructionNeeds:
    """What a reconstruction will take; may run a few small passes to learn how fast the network is here.

    Memory of a pass follows from shapes alone. Time is that of the small passes, for as many more operations as the
    others have, which are counted on shapes as well.

    Args:
        subject: ready to run.
        bare: the same architecture, for shapes alone.
        pictures: to be seen.
        weights: bytes of the weights in memory, and of what the largest layer takes besides while it runs.
        at_once: pictures in a pass, at most; by default as many as fit.
        timed: whether small passes tell of the time.
        free: bytes that a device has left.

    Raises:
        InputError: not even two pictures fit, or the first cannot be read.
    """
    count, (width, height) = len(pictures), pictures.canvas
    left = free(subject.device)
    kept = 8 * count * height * width

    costs = cache(lambda views: shape_costs(bare, _blank(views, pictures.canvas)) or ShapeCosts(0, 0))

    def peak(views: int) -> int:
        return weights[1] + costs(views).peak_bytes

    allowed = None if left is None else int(SHARE_OF_FREE * left) - kept
    most = min(count, at_once or count)
    fitting = most if at_once else most_at_once(peak, allowed, most)
    largest = peak(fitting or min(2, count))
    if not fitting or (allowed is not None and largest > allowed):
        raise InputError(
            f"{fitting or min(2, count)} pictures of {height}x{width} need {format_bytes(largest + kept)} of memory,"
            f" {format_bytes(left or 0)} are free: give a lower {setting('resolution')}, {setting('max_images')} or"
            f" {setting('chunk')}"
        )
    chunks = tuple(cut(count, fitting))
    seconds = _seconds(subject, pictures, chunks, lambda views: costs(views).operations) if timed else None
    return ReconstructionNeeds(chunks, Forecast("", len(chunks[0]), weights[0], largest, seconds), kept, left)


def _blank(views: int, canvas: Size) -> Scene:
    return Scene("", torch.zeros(1, 3, canvas[1], canvas[0]).expand(views, -1, -1, -1), torch.zeros(0, 2))


def _seconds(
    subject: Subject, pictures: Pictures, chunks: tuple[range, ...], operations_of: Callable[[int], int]
) -> float | None:
    """Of all passes, from small ones; ``operations_of`` counts those of a pass over so many pictures.

    A pass takes as long whatever it sees (unpacking weights, say) and a time for every operation, which gets less the
    larger the products are. So passes are made on one picture, on two, on twice as many, as long as the next is quick;
    what lies between them is interpolated by operations, what lies beyond is as steep as the last two. Where one
    picture takes long it is shown once, and all of its time is taken to be of operations.
    """
    sizes = [len(chunk) for chunk in chunks]
    operations = {size: operations_of(size) for size in {1, 2, *sizes}}
    if not all(operations.values()):
        return None
    one = _timed(subject, pictures, 1)
    if one > LONG or len(pictures) < 2:
        return one * sum(operations[size] for size in sizes) / operations[1]
    points = [(operations[views], _quickest(subject, pictures, views)) for views in (1, 2)]
    views = 4
    while views <= max(sizes):
        counted = operations_of(views)
        if along(points, counted) > QUICK_PASS:
            break
        points.append((counted, _quickest(subject, pictures, views)))
        views *= 2
    return sum(along(points, operations[size]) for size in sizes)


def along(points: Sequence[tuple[float, float]], at: float) -> float:
    """The height of the line through points, from the left; beyond the last it goes on, but never down.

    >>> points = [(1.0, 1.0), (2.0, 3.0), (4.0, 4.0)]
    >>> [along(points, at) for at in (0.0, 1.5, 8.0)]
    [1.0, 2.0, 6.0]
    """
    (before, low), (last, high) = points[-2:]
    if at > last:
        return high + max(0.0, high - low) * (at - last) / (last - before)
    return float(np.interp(at, [place for place, _ in points], [height for _, height in points]))


def _quickest(subject: Subject, pictures: Pictures, views: int) -> float:
    return min(_timed(subject, pictures, views) for _ in range(2))


def _timed(subject: Subject, pictures: Pictures, views: int) -> float:
    begun = time.perf_counter()
    see(subject, pictures, range(views))
    return time.perf_counter() - begun
