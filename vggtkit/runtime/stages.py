"""Where the time of a pass goes: seconds by stage."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import nn

from vggtkit.core.accelerator import wait_for
from vggtkit.subject import Subject

REST = "rest"
_TITLES = {
    "aggregator.patch_embed.blocks": "patch embedding",
    "aggregator.frame_blocks": "frame blocks",
    "aggregator.global_blocks": "global blocks",
}


def stages(subject: Subject) -> dict[str, list[nn.Module]]:
    """The parts of a model by stage, in the order in which they stand: of VGGT the trunk's three, and the heads.

    >>> from vggtkit.subject import open_subject
    >>> list(stages(open_subject("tiny", weights="random")))[:4]
    ['patch embedding', 'frame blocks', 'global blocks', 'camera head']
    """
    parts: dict[str, list[nn.Module]] = {}
    for name, module in subject.segments().items():
        group = re.sub(r"\.\d+$", "", name)
        if subject.vggt is not None:
            group = _TITLES.get(group) or group.partition(".")[0].replace("_", " ")
        parts.setdefault(group, []).append(module)
    return parts


@contextmanager
def timed(
    parts: Mapping[str, Sequence[nn.Module]], now: Callable[[], float], took: Callable[[str, float], None]
) -> Iterator[None]:
    """Within the block, what each call of some modules takes is told, by the name that they go by.

    Args:
        parts: modules by name; a name's modules do not run within each other.
        now: seconds since some moment.
        took: told a name and the seconds of one call.
    """
    started: dict[str, float] = {}

    def start(name: str, *_: object) -> None:
        started[name] = now()

    def stop(name: str, *_: object) -> None:
        took(name, now() - started[name])

    with ExitStack() as undo:
        for name, modules in parts.items():
            for module in modules:
                # In front of the hook that puts a packed weight back: that is part of what the module takes.
                undo.callback(module.register_forward_pre_hook(partial(start, name), prepend=True).remove)
                undo.callback(module.register_forward_hook(partial(stop, name)).remove)
        yield


@contextmanager
def clocked(subject: Subject) -> Iterator[Mapping[str, float]]:
    """Seconds by stage of what runs within the block; ``"rest"`` is there once it ends.

    >>> import torch
    >>> from vggtkit.subject import ModuleSubject
    >>> subject = ModuleSubject(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval())
    >>> with torch.no_grad(), clocked(subject) as seconds:
    ...     _ = subject.model(torch.ones(1, 2))
    >>> seconds["rest"] >= 0
    True
    """
    device, parts = subject.device, stages(subject)
    seconds = dict.fromkeys(parts, 0.0)

    def now() -> float:
        wait_for(device)
        return time.perf_counter()

    def took(stage: str, some: float) -> None:
        seconds[stage] += some

    begin = now()
    try:
        with timed(parts, now, took):
            yield seconds
    finally:
        seconds[REST] = max(0.0, now() - begin - sum(seconds.values()))
