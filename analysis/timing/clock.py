"""Seconds of every layer, and of what is no layer, within a pass.

With one thread they are the processor's seconds, which are those on the wall of a machine that does nothing else, and
other programs lengthen them little. Several threads wait for one another, so then it is the wall's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from vggtkit.runtime.stages import REST, stages, timed
from vggtkit.subject import Subject


@dataclass
class Clock:
    """What a pass took.

    Attributes:
        layers: seconds of each layer in all its calls.
        calls: of each layer.
        rest: seconds of what is no layer, by stage; complete once the block ends.
    """

    layers: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    rest: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Seconds of the whole pass."""
        return sum(self.layers.values()) + sum(self.rest.values())


def now() -> float:
    """Seconds since some moment, on the clock that times are taken with."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def stage_of_layers(subject: Subject) -> dict[str, str]:
    """The stage of every layer; ``"rest"`` for those in none."""
    within = {
        id(module): stage for stage, parts in stages(subject).items() for part in parts for module in part.modules()
    }
    return {layer.name: within.get(id(subject.model.get_submodule(layer.name)), REST) for layer in subject.layers}


@contextmanager
def clocked_layers(subject: Subject) -> Iterator[Clock]:
    """Seconds by layer and stage of what runs on the processor within the block.

    >>> from torch import nn
    >>> from vggtkit.subject import ModuleSubject
    >>> subject = ModuleSubject(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval())
    >>> with torch.no_grad(), clocked_layers(subject) as clock:
    ...     _ = subject.model(torch.ones(1, 2))
    >>> clock.calls
    {'0': 1, '1': 1}
    """
    parts, homes = stages(subject), stage_of_layers(subject)
    clock = Clock(dict.fromkeys(homes, 0.0), dict.fromkeys(homes, 0))
    of_stage = dict.fromkeys(parts, 0.0)

    def layer_took(name: str, seconds: float) -> None:
        clock.layers[name] += seconds
        clock.calls[name] += 1

    def stage_took(stage: str, seconds: float) -> None:
        of_stage[stage] += seconds

    layers = {name: [subject.model.get_submodule(name)] for name in homes}
    begun = whole = now()
    try:
        with timed(layers, now, layer_took), timed(parts, now, stage_took):
            yield clock
            whole = now()
    finally:
        for stage, seconds in of_stage.items():
            clock.rest[stage] = seconds - sum(clock.layers[name] for name, home in homes.items() if home == stage)
        outside = sum(clock.layers[name] for name, home in homes.items() if home == REST)
        clock.rest[REST] = whole - begun - sum(of_stage.values()) - outside
