"""Where the time of a pass goes: seconds by stage."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import nn

from vggtkit.core.accelerator import wait_for
from vggtkit.subject import Subject, VGGTSubject

REST = "rest"
_TITLES = {
    "aggregator.patch_embed.blocks": "patch embedding",
    "aggregator.frame_blocks": "frame blocks",
    "aggregator.global_blocks": "global blocks",
}


def stages(subject: Subject) -> dict[str, list[nn.Module]]:
    """The parts of a model by stage, in the order in which they stand: of VGGT the trunk's three, and the heads.

    >>> from vggtkit.model import load_vggt
    >>> list(stages(VGGTSubject(load_vggt("tiny", weights="random"))))[:4]
    ['patch embedding', 'frame blocks', 'global blocks', 'camera head']
    """
    parts: dict[str, list[nn.Module]] = {}
    for name, module in subject.segments().items():
        group = re.sub(r"\.\d+$", "", name)
        if isinstance(subject, VGGTSubject):
            group = _TITLES.get(group) or group.partition(".")[0].replace("_", " ")
        parts.setdefault(group, []).append(module)
    return parts


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
    device, handles = subject.device, []
    parts = stages(subject)
    seconds = dict.fromkeys(parts, 0.0)
    started: dict[str, float] = {}

    def now() -> float:
        wait_for(device)
        return time.perf_counter()

    def start(stage: str, *_: object) -> None:
        started[stage] = now()

    def stop(stage: str, *_: object) -> None:
        seconds[stage] += now() - started[stage]

    for stage, modules in parts.items():
        for module in modules:
            handles += [
                module.register_forward_pre_hook(partial(start, stage)),
                module.register_forward_hook(partial(stop, stage)),
            ]
    begin = now()
    try:
        yield seconds
    finally:
        total = now() - begin
        for handle in handles:
            handle.remove()
        seconds[REST] = max(0.0, total - sum(seconds.values()))
