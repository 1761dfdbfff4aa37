"""What VGGT predicts: the one table of its outputs, by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["cameras", "depth", "map", "points", "tracks", "track_scores", "values"]
"""How an output is read; ``"values"`` are numbers of which nothing more is known."""

TASKS = {"camera": "pose", "depth": "depth", "point": "points", "track": "tracks"}
"""What the heads are there for, as tables call it."""


@dataclass(frozen=True)
class Output:
    """One published output.

    Attributes:
        name: its key in what ``forward`` returns.
        head: that predicts it.
        kind: how it is read.
        axes: its shape, in words.
    """

    name: str
    head: str
    kind: Kind
    axes: str

    @property
    def task(self) -> str:
        """What its head is there for."""
        return TASKS[self.head]


def _by_name(outputs: Iterable[Output]) -> dict[str, Output]:
    return {output.name: output for output in outputs}


PUBLISHED_OUTPUTS = _by_name(
    [
        Output("pose_enc", "camera", "cameras", "[B, S, 9]"),
        Output("depth", "depth", "depth", "[B, S, H, W, 1]"),
        Output("depth_conf", "depth", "map", "[B, S, H, W]"),
        Output("world_points", "point", "points", "[B, S, H, W, 3]"),
        Output("world_points_conf", "point", "map", "[B, S, H, W]"),
        Output("track", "track", "tracks", "[B, S, N, 2]"),
        Output("vis", "track", "track_scores", "[B, S, N]"),
        Output("conf", "track", "track_scores", "[B, S, N]"),
    ]
)
"""By name, in the order of tables. The other keys that ``forward`` returns are inputs or steps on the way."""

OUTPUTS: tuple[str, ...] = tuple(PUBLISHED_OUTPUTS)
"""Their names."""


def outputs_of_head(head: str) -> tuple[str, ...]:
    """Names of what a head predicts.

    >>> outputs_of_head("depth")
    ('depth', 'depth_conf')
    """
    return tuple(output.name for output in PUBLISHED_OUTPUTS.values() if output.head == head)


def task_of(name: str) -> str:
    """The task that an output belongs to; an output that VGGT does not have is a task of its own.

    >>> task_of("vis"), task_of("logits")
    ('tracks', 'logits')
    """
    return PUBLISHED_OUTPUTS[name].task if name in PUBLISHED_OUTPUTS else name


def outputs_by_task(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Names of outputs by task, both in the order of tables.

    >>> outputs_by_task(["conf", "depth", "logits"])
    {'depth': ('depth',), 'tracks': ('conf',), 'logits': ('logits',)}
    """
    names = list(names)
    ordered = [name for name in OUTPUTS if name in names] + [name for name in names if name not in PUBLISHED_OUTPUTS]
    tasks: dict[str, tuple[str, ...]] = {}
    for name in ordered:
        tasks[task_of(name)] = (*tasks.get(task_of(name), ()), name)
    return tasks
