"""What an evaluation has measured so far, on disk, one file per scheme and scene, so that it can be killed any time.

The whole is put together from these in one order, whether it was interrupted or not. Numbers are kept as JSON, in which
a float comes back as it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from vggtkit.core.arrays import Arrays
from vggtkit.core.journal import Parts
from vggtkit.metrics.outputs import OutputMetrics

_VALUES = "values"


class SceneRow(NamedTuple):
    """What a scheme did on a scene.

    Attributes:
        metrics: of every output against FP32.
        figures: of cameras, depth, points and tracks.
        watched: arrays that are kept to be looked at.
    """

    metrics: dict[str, OutputMetrics]
    figures: dict[str, float]
    watched: Arrays


class Cost(NamedTuple):
    """What a scheme takes.

    Attributes:
        size_bytes: of the packed file.
        fp32_seconds: of FP32 next to the scheme, repeat by repeat,
        own_seconds: of the scheme,
        bfloat16_seconds: and of FP32's weights with the trunk in bfloat16.
        execution: how it was executed; empty for ``reference``.
        stages: seconds by stage; empty for ``reference``.
        memory_bytes: weights and what a pass holds at its fullest moment; None if not measured.
    """

    size_bytes: int
    fp32_seconds: list[float]
    own_seconds: list[float]
    bfloat16_seconds: list[float]
    execution: dict[str, Any]
    stages: dict[str, tuple[float, float]]
    memory_bytes: int | None


class Kept:
    """What is done, by the number of a scheme and of a scene; without a folder nothing is kept.

    Args:
        parts: where; they are for this evaluation and no other.
    """

    def __init__(self, parts: Parts | None = None) -> None:
        self.parts = parts

    @property
    def count(self) -> int:
        """Steps that are done."""
        return len(self.parts.done()) if self.parts else 0

    def scene(self, scheme: int, scene: int) -> SceneRow | None:
        """What a scheme did on a scene, if it is done."""
        arrays = self._load(_step(scheme, scene))
        if arrays is None:
            return None
        values = json.loads(str(arrays.pop(_VALUES)))
        metrics = {name: OutputMetrics(**numbers) for name, numbers in values["metrics"].items()}
        return SceneRow(metrics, values["figures"], arrays)

    def save_scene(self, scheme: int, scene: int, row: SceneRow) -> None:
        """It counts from here on."""
        metrics = {name: asdict(numbers) for name, numbers in row.metrics.items()}
        self._save(_step(scheme, scene), {"metrics": metrics, "figures": row.figures}, row.watched)

    def cost(self, scheme: int) -> Cost | None:
        """What a scheme takes, if it is done."""
        arrays = self._load(_step(scheme))
        if arrays is None:
            return None
        cost = Cost(**json.loads(str(arrays[_VALUES])))
        return cost._replace(stages={stage: (fp32, own) for stage, (fp32, own) in cost.stages.items()})

    def save_cost(self, scheme: int, cost: Cost) -> None:
        """It counts from here on."""
        self._save(_step(scheme), cost._asdict(), {})

    def _load(self, step: str) -> Arrays | None:
        return self.parts.load(step) if self.parts and step in self.parts.done() else None

    def _save(self, step: str, values: Mapping[str, object], arrays: Arrays) -> None:
        if self.parts:
            self.parts.save(step, {**arrays, _VALUES: np.array(json.dumps(values, default=_plain))})


def _step(scheme: int, scene: int | None = None) -> str:
    return f"{scheme:02d}-cost" if scene is None else f"{scheme:02d}-scene-{scene:04d}"


def _plain(value: object) -> object:
    """What JSON has no word for: numbers of numpy's, tuples and mappings of others."""
    if isinstance(value, np.generic):
        return value.item()
    return dict(value) if isinstance(value, Mapping) else list(value)  # type: ignore[call-overload]
