"""Where the time of a pass goes: seconds by stage."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import nn

from vggtkit.core.accelerator import wait_for
from vggtkit.model.layers import Attention, CrossAttention
from vggtkit.subject import Subject

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

    Of a VGGT `ATTENTION` stands behind them, whose seconds the stages hold as well: `whole` is the sum without it.

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
    attention = 0.0

    def now() -> float:
        wait_for(device)
        return time.perf_counter()

    def took(stage: str, some: float) -> None:
        seconds[stage] += some

    def took_attention(part: str, some: float) -> None:
        nonlocal attention
        attention += some if part == ATTENTION else -some

    begin = now()
    try:
        with timed(parts, now, took), timed(_of_attention(subject.model), now, took_attention):
            yield seconds
    finally:
        total = now() - begin
        seconds[REST] = max(0.0, total - sum(seconds.values()))
        if attention:
            seconds[ATTENTION] = attention


def _of_attention(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Modules that attend, and what stands within them without being attention itself."""
    attending: list[nn.Module] = [part for part in model.modules() if isinstance(part, Attention | CrossAttention)]
    inside = [child for part in attending for child in part.children() if not isinstance(child, nn.Identity)]
    return {ATTENTION: attending, "projections and norms": inside}


def whole(seconds: Mapping[str, float]) -> float:
    """Seconds of a pass from those of its stages.

    >>> whole({"blocks": 2.0, REST: 1.0, ATTENTION: 0.5})
    3.0
    """
    return sum(taken for stage, taken in seconds.items() if stage != ATTENTION)
