"""True damage of every layer in every format on held-out scenes: outputs, and figures against ground truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from sensitivity.damage import Changed, DamageOnScene, damage_on
from vggtkit.core.arrays import Array, Arrays
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Done, Executor, in_order
from vggtkit.core.executors.local import Local
from vggtkit.core.journal import Parts
from vggtkit.metrics.geometry import GEOMETRY, HEADLINE, WITHOUT_TRUTH
from vggtkit.quant import Layer
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

TRUE_FIGURES = (*HEADLINE, "track_px", *WITHOUT_TRUTH)
GEOMETRY_SCENES = 2
"""Scenes on which the figures are taken of every pair; each takes half as long as running the model."""
LAYERS_AT_ONCE = 8
"""Of a piece: of the bundled network a second of work."""
DAMAGE, WORSE, FP32 = "damage-", "worse-", "fp32-"
"""How the arrays of a piece begin."""
TRUTH_POINT_QUERIES = 64
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


@dataclass(frozen=True)
class SomeLayers:
    """A piece: some layers on one scene.

    Attributes:
        scene: its number.
        start: number of the first layer; `LAYERS_AT_ONCE` from there on.
    """

    scene: int
    start: int

    @property
    def step(self) -> str:
        """Its name in a journal."""
        return f"{self.scene}-{self.start}"


@dataclass(frozen=True)
class TruthWork:
    """True damage of every layer, in pieces.

    Attributes:
        subject: to measure.
        layers: which.
        schemes: keys of formats.
        scenes: held-out ones.
    """

    subject: Subject
    layers: Sequence[Layer]
    schemes: Sequence[str]
    scenes: Sequence[Scene]

    def pieces(self) -> list[SomeLayers]:
        """Scene by scene, so that a worker records few passes."""
        starts = range(0, len(self.layers), LAYERS_AT_ONCE)
        return [SomeLayers(scene, start) for scene in range(len(self.scenes)) for start in starts]

    @contextmanager
    def opened(self) -> Iterator[Callable[[SomeLayers], Arrays]]:
        """As `Work.opened`; the recorded pass of one scene is kept."""
        with ExitStack() as recording:
            current: dict[int, tuple[DamageOnScene, _Geometry | None]] = {}

            def measure(piece: SomeLayers) -> Arrays:
                if piece.scene not in current:
                    recording.close()
                    current.clear()
                    current[piece.scene] = self._record(piece.scene, recording)
                measured, watch = current[piece.scene]
                layers = self.layers[piece.start : piece.start + LAYERS_AT_ONCE]
                if watch is not None:
                    watch.begin((len(layers), len(self.schemes)))
                damage = {
                    f"{DAMAGE}{name}": value.numpy() for name, value in measured.of(layers, watcher=watch).items()
                }
                return damage | (watch.arrays() if watch is not None else {})

            yield measure

    def _record(self, number: int, recording: ExitStack) -> tuple[DamageOnScene, _Geometry | None]:
        scene = self.scenes[number]
        measured = recording.enter_context(damage_on(self.subject, self.schemes, scene))
        if number >= GEOMETRY_SCENES:
            return measured, None
        watch = _Geometry(self.subject, scene)
        watch.start(measured.outputs)
        return measured, watch


def measure_truth(
    subject: Subject,
    layers: Sequence[Layer],
    schemes: Sequence[str],
    scenes: Sequence[Scene],
    *,
    executor: Executor | None = None,
    parts: Parts | None = None,
    step: Callable[[], None] = lambda: None,
) -> Truth:
    """Measure every pair on every scene.

    Args:
        subject: to measure.
        layers: which to measure.
        schemes: keys of formats.
        scenes: held-out ones.
        executor: where; any number of workers of as many threads gives the same bits. This process by default.
        parts: a journal for exactly this; what is in it is not measured again, and what is measured is added.
        step: called after every few layers of every scene, see `steps_of_truth`.

    Raises:
        InputError: the FP32 model gives NaN or Inf, workers are lost again and again, or no layer matters.
    """
    work = TruthWork(subject, layers, schemes, scenes)
    pieces = work.pieces()
    results = {piece: parts.load(piece.step) for piece in pieces if parts is not None and piece.step in parts.done()}
    for _ in results:
        step()
    missing = [piece for piece in pieces if piece not in results]

    def keep(done: Done[Arrays]) -> None:
        results[missing[done.number]] = done.value
        if parts is not None:
            parts.save(missing[done.number].step, done.value)
        step()

    in_order(executor or Local(), work, missing, keep, [piece.scene for piece in missing])
    by_scene = [_joined([results[piece] for piece in pieces if piece.scene == scene]) for scene in range(len(scenes))]
    truth = Truth(
        damage={name: np.stack([one[DAMAGE + name] for one in by_scene]) for name in _starting(DAMAGE, by_scene[0])},
        worse=_stacked(WORSE, by_scene),
        fp32={key: float(np.mean([value[0] for value in values])) for key, values in _stacked(FP32, by_scene).items()},
    )
    if not truth.total().any():
        raise InputError(
            "no layer in any format changes an output of the held-out scenes: there is nothing to rank; use others"
        )
    return truth


def steps_of_truth(layers: int, scenes: int) -> int:
    """How often `measure_truth` calls its ``step``.

    >>> steps_of_truth(17, 2)
    6
    """
    return scenes * -(-layers // LAYERS_AT_ONCE)


def _joined(parts: Sequence[Arrays]) -> Arrays:
    """The pieces of a scene, layer after layer; of FP32's figures, which all have, one row a piece."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _starting(prefix: str, arrays: Arrays) -> list[str]:
    return [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]


def _stacked(prefix: str, by_scene: Sequence[Arrays]) -> dict[str, Array]:
    """What some scenes have, over these."""
    names = dict.fromkeys(name for one in by_scene for name in _starting(prefix, one))
    return {
        name: np.stack([np.asarray(one[prefix + name], np.float64) for one in by_scene if prefix + name in one])
        for name in names
    }


class _Geometry:
    """Watches the outputs of every pair and keeps what they change for the worse."""

    def __init__(self, subject: Subject, scene: Scene) -> None:
        self.subject, self.scene = subject, scene
        self.fp32: dict[str, float] = {}
        self.worse: dict[str, Array] = {}

    def start(self, outputs: Mapping[str, Tensor]) -> None:
        self.fp32 = self._figures(outputs)

    def begin(self, shape: tuple[int, int]) -> None:
        """Pairs to be seen, layers times formats."""
        self.worse = {key: np.zeros(shape) for key in self.fp32}

    def arrays(self) -> Arrays:
        """What was seen since then."""
        worse: Arrays = {WORSE + key: values for key, values in self.worse.items()}
        return worse | {FP32 + key: np.array([value]) for key, value in self.fp32.items()}

    def see(self, pair: Changed) -> None:
        for key, value in self._figures(pair.outputs).items():
            sign = -1 if GEOMETRY[key].higher_is_better else 1
            self.worse[key][pair.layer, pair.scheme] = sign * (value - self.fp32[key])

    def _figures(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        figures = self.subject.figures(outputs, self.scene, query_limit=TRUTH_POINT_QUERIES)
        return {key: figures[key] for key in TRUE_FIGURES if key in figures}
