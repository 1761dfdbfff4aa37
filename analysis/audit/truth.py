"""True damage of every layer in every format on held-out scenes: outputs, and figures against ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sensitivity.damage import Changed, true_damage
from vggtkit.core.errors import InputError
from vggtkit.core.processes import in_processes
from vggtkit.metrics.geometry import GEOMETRY, HEADLINE, WITHOUT_TRUTH
from vggtkit.quant import Layer
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

Array = NDArray[np.float64]

FIGURES = (*HEADLINE, "track_px", *WITHOUT_TRUTH)
GEOMETRY_SCENES = 2
"""Scenes on which the figures are taken of every pair; each takes half as long as running the model."""
POINT_QUERIES = 64
"""Nearest neighbours are not among the figures here, so as few points as may be look for theirs."""


@dataclass(frozen=True)
class Truth:
    """What was measured.

    Attributes:
        damage: NMSE per output, ``[scenes, layers, formats]``.
        worse: change of geometry figures for the worse, per figure ``[scenes with this figure, layers, formats]``.
        fp32: the same figures of FP32, means over scenes.
    """

    damage: Mapping[str, Array]
    worse: Mapping[str, Array] = field(default_factory=dict)
    fp32: Mapping[str, float] = field(default_factory=dict)

    @property
    def per_output(self) -> dict[str, Array]:
        """``[layers, formats]``, mean over scenes."""
        return {name: np.asarray(values.mean(0)) for name, values in self.damage.items()}

    def total(self, outputs: Sequence[str] | None = None, scenes: slice = slice(None)) -> Array:
        """``[layers, formats]``: mean over some outputs (all of them by default) and some scenes."""
        return np.asarray(np.mean([self.damage[name][scenes].mean(0) for name in outputs or self.damage], axis=0))


def measure_truth(
    subject: Subject,
    layers: Sequence[Layer],
    schemes: Sequence[str],
    scenes: Sequence[Scene],
    *,
    processes: int = 1,
    step: Callable[[], None] = lambda: None,
) -> Truth:
    """Measure every pair on every scene.

    Args:
        subject: to measure.
        layers: which to measure.
        schemes: keys of formats.
        scenes: held-out ones.
        processes: among which layers are shared out; any number of them gives the same up to rounding.
        step: called after every layer of every scene.

    Raises:
        InputError: the FP32 model gives NaN or Inf, a process died, or no layer matters.
    """
    processes = max(1, min(processes, len(layers)))
    parts = in_processes(partial(_measure, subject, layers, schemes, scenes), processes, step)
    if not any(part.total().any() for part in parts):
        raise InputError(
            "no layer in any format changes an output of the held-out scenes: there is nothing to rank; use others"
        )
    return Truth(
        damage={name: _in_turn([part.damage[name] for part in parts]) for name in parts[0].damage},
        worse={key: _in_turn([part.worse[key] for part in parts]) for key in parts[0].worse},
        fp32=parts[0].fp32,
    )


def _in_turn(parts: Sequence[Array]) -> Array:
    """``[scenes, layers, formats]`` from parts that hold every so many layers."""
    whole = np.zeros((len(parts[0]), sum(part.shape[1] for part in parts), *parts[0].shape[2:]))
    for number, part in enumerate(parts):
        whole[:, number :: len(parts)] = part
    return whole


def _measure(
    subject: Subject,
    layers: Sequence[Layer],
    schemes: Sequence[str],
    scenes: Sequence[Scene],
    share: slice,
    step: Callable[[], None],
) -> Truth:
    """The truth of some layers."""
    layers = layers[share]
    damages = []
    geometry: dict[str, list[Array]] = {}
    fp32: dict[str, list[float]] = {}
    for number, scene in enumerate(scenes):
        watch = _Geometry(subject, scene, (len(layers), len(schemes)))
        watcher = watch if number < GEOMETRY_SCENES else None
        damage = true_damage(subject, layers, schemes, scene, watcher=watcher, step=step)
        damages.append({name: value.numpy() for name, value in damage.items()})
        for key, worse in watch.worse.items():
            geometry.setdefault(key, []).append(worse)
            fp32.setdefault(key, []).append(watch.fp32[key])
    return Truth(
        damage={name: np.stack([one[name] for one in damages]) for name in damages[0]},
        worse={key: np.stack(values) for key, values in geometry.items()},
        fp32={key: float(np.mean(values)) for key, values in fp32.items()},
    )


class _Geometry:
    """Watches the outputs of every pair and keeps what they change for the worse."""

    def __init__(self, subject: Subject, scene: Scene, shape: tuple[int, int]) -> None:
        self.subject, self.scene, self.shape = subject, scene, shape
        self.fp32: dict[str, float] = {}
        self.worse: dict[str, Array] = {}

    def start(self, outputs: Mapping[str, Tensor]) -> None:
        self.fp32 = self._figures(outputs)
        self.worse = {key: np.zeros(self.shape) for key in self.fp32}

    def see(self, pair: Changed) -> None:
        for key, value in self._figures(pair.outputs).items():
            sign = -1 if GEOMETRY[key].higher_is_better else 1
            self.worse[key][pair.layer, pair.scheme] = sign * (value - self.fp32[key])

    def _figures(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        figures = self.subject.figures(outputs, self.scene, query_limit=POINT_QUERIES)
        return {key: figures[key] for key in FIGURES if key in figures}
