"""Where the time of a pass goes: seconds by stage."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import nn

from vggtkit.core.accelerator import wait_for
from vggtkit.model.layers import Attention, CrossAttention
from vggtkit.subject import Subject, VGGTSubject

REST = "rest"
ATTENTION = "attention itself"
"""Scores and what is mixed by them, without projections and norms, wherever it stands: the stages hold it too."""
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

    Of a VGGT `ATTENTION` stands behind them, whose seconds the stages hold as well: `whole` is the sum without it.

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
    attention = 0.0
    started: dict[object, float] = {}

    def now() -> float:
        wait_for(device)
        return time.perf_counter()

    def start(stage: object, *_: object) -> None:
        started[stage] = now()

    def stop(stage: str, *_: object) -> None:
        seconds[stage] += now() - started[stage]

    def stop_attention(sign: int, module: object, *_: object) -> None:
        nonlocal attention
        attention += sign * (now() - started[module])

    for stage, modules in parts.items():
        for module in modules:
            handles += [
                module.register_forward_pre_hook(partial(start, stage)),
                module.register_forward_hook(partial(stop, stage)),
            ]
    for part in subject.model.modules():
        if not isinstance(part, Attention | CrossAttention):
            continue
        inside = [child for child in part.children() if not isinstance(child, nn.Identity)]
        for module, sign in ((part, 1), *((child, -1) for child in inside)):
            # In front of the hook that puts a packed weight back, which is no part of attention itself.
            handles += [
                module.register_forward_pre_hook(partial(start, module), prepend=True),
                module.register_forward_hook(partial(stop_attention, sign)),
            ]
    begin = now()
    try:
        yield seconds
    finally:
        total = now() - begin
        for handle in handles:
            handle.remove()
        seconds[REST] = max(0.0, total - sum(seconds.values()))
        if attention:
            seconds[ATTENTION] = attention


def whole(seconds: Mapping[str, float]) -> float:
    """Seconds of a pass from those of its stages.

    >>> whole({"blocks": 2.0, REST: 1.0, ATTENTION: 0.5})
    3.0
    """
    return sum(taken for stage, taken in seconds.items() if stage != ATTENTION)
