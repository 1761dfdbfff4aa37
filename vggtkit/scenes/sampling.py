"""Which frames make a scene, and which scenes belong to which split; no two splits share a frame."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

import torch

Split = Literal["calibration", "evaluation"]
Sampling = Literal["runs", "random"]
FrameGroup = tuple[int, tuple[int, ...]]  # recording, frames in ascending order

_T = TypeVar("_T")


def split_pictures(
    lengths: Sequence[int],
    *,
    views: int,
    count: int,
    stride: int = 1,
    max_images: int | None = None,
    sampling: Sampling = "runs",
    seed: int = 0,
) -> dict[Split, list[FrameGroup]]:
    """Cut recordings into groups of views and split the groups into calibration and evaluation, in turn.

    Every ``stride``-th frame is used, of these an even spread of ``max_images``. A group is a run of ``views``
    neighbours among them, or (``"random"``) ``views`` of one recording by lot. Where no recording is so long,
    groups are as long as the longest, and where that makes one group only, half as long; what is left over is
    dropped. Of more than ``count`` groups in a split, an even spread is used.

    Args:
        lengths: frames of each recording.
        views: frames in a group, at most; all groups have the same number.
        count: groups in a split, at most.
        stride: 1 uses every frame.
        max_images: frames used of all recordings together; None for all.
        sampling: ``"runs"`` or ``"random"``.
        seed: of the lot; the same arguments give the same groups.

    Returns:
        Groups of each split; evaluation has none where there is a single frame, both none where there is none.

    >>> split_pictures([10], views=2, count=4, stride=2)
    {'calibration': [(0, (0, 2))], 'evaluation': [(0, (4, 6))]}
    """
    frames = [(recording, index) for recording, length in enumerate(lengths) for index in range(0, length, stride)]
    used: list[list[int]] = [[] for _ in lengths]
    for recording, index in spread(frames, len(frames) if max_images is None else max_images):
        used[recording].append(index)
    lot = torch.Generator().manual_seed(seed) if sampling == "random" else None
    longest = max(map(len, used), default=0)
    groups = _cut(used, max(1, min(views, longest)), lot)
    if len(groups) < 2:
        groups = _cut(used, max(1, longest // 2), lot)
    return {split: spread(groups[turn :: len(get_args(Split))], count) for turn, split in enumerate(get_args(Split))}


def spread(items: Sequence[_T], most: int) -> list[_T]:
    """At most ``most`` of the items, evenly over the whole sequence, in order, the first included.

    >>> spread("abcdef", 3)
    ['a', 'c', 'e']
    """
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def label(indices: Sequence[int]) -> str:
    """Frames of a group in brackets: a slice where they are equally far apart.

    >>> label([4, 5, 6]), label([0, 5, 10]), label([3, 4, 9])
    ('[4:7]', '[0:11:5]', '[3,4,9]')
    """
    steps = {after - before for before, after in itertools.pairwise(indices)}
    if len(steps) > 1:
        return f"[{','.join(map(str, indices))}]"
    step = steps.pop() if steps else 1
    return f"[{indices[0]}:{indices[-1] + 1}{'' if step == 1 else f':{step}'}]"


def _cut(used: Sequence[Sequence[int]], length: int, lot: torch.Generator | None) -> list[FrameGroup]:
    """Disjoint groups of ``length`` frames each; by lot, the order of the groups is too."""
    groups = []
    for recording, frames in enumerate(used):
        order = _shuffled(frames, lot) if lot else frames
        starts = range(0, len(frames) - length + 1, length)
        groups += [(recording, tuple(sorted(order[start : start + length]))) for start in starts]
    return _shuffled(groups, lot) if lot else groups


def _shuffled(items: Sequence[_T], lot: torch.Generator) -> list[_T]:
    return [items[index] for index in torch.randperm(len(items), generator=lot).tolist()]
