"""Every variant on every scene, piece by piece: any executor, any number of interruptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from analysis.reproduction.variants import Variant
from vggtkit.core.arrays import Arrays
from vggtkit.core.executors import Done, Executor, in_order
from vggtkit.core.journal import Parts
from vggtkit.core.provenance import Progress, silent
from vggtkit.scenes import DrawnScene
from vggtkit.subject import Subject

CAMERA_FIGURES = ("auc30", "auc15", "auc5", "auc3")
CAMERA_HEADS = ("camera",)
"""What is run: the figures are those of cameras, and other heads do not change these."""


@dataclass(frozen=True)
class TestSet:
    """Scenes of one source and one number of frames.

    Attributes:
        key: as ``co3d-test-10``.
        title: for people, what it holds.
        scenes: drawn, not read.
    """

    key: str
    title: str
    scenes: tuple[DrawnScene, ...]

    __test__ = False  # no class of tests


PieceNumbers = tuple[int, int, int]
"""Numbers of variant, test set and scene."""


@dataclass(frozen=True)
class MeasuringWork:
    """Figures of variants on scenes.

    Attributes:
        subject: the model.
        variants: what is done to it.
        sets: on what.
        dtype: that the trunk computes in.
    """

    subject: Subject
    variants: Sequence[Variant]
    sets: Sequence[TestSet]
    dtype: torch.dtype

    def pieces(self) -> list[PieceNumbers]:
        """Variant by variant, so that weights are quantised once in a worker."""
        return [
            (variant, place, scene)
            for variant in range(len(self.variants))
            for place, each in enumerate(self.sets)
            for scene in range(len(each.scenes))
        ]

    def step(self, piece: PieceNumbers) -> str:
        """A piece's name in the journal."""
        variant, place, scene = piece
        return f"{self.variants[variant].key}-{self.sets[place].key}-{scene}"

    @contextmanager
    def opened(self) -> Iterator[Callable[[PieceNumbers], Arrays]]:
        """As `vggtkit.core.executors.Work.opened`."""
        with ExitStack() as running:
            current: dict[int, Subject] = {}
            cameras = self.subject.with_heads([head for head in CAMERA_HEADS if head in self.subject.heads])

            def measure(piece: PieceNumbers) -> Arrays:
                variant, place, number = piece
                if variant not in current:
                    running.close()
                    current.clear()
                    current[variant] = running.enter_context(self.variants[variant].running(self.subject, cameras))
                subject = current[variant]
                img_size, patch_size = subject.picture_sizes
                scene = self.sets[place].scenes[number].read(img_size, patch_size)
                with subject.computing_in(self.dtype):
                    figures = subject.figures(subject.predict(scene), scene)
                return {key: np.array(figures.get(key, np.nan)) for key in CAMERA_FIGURES}

            yield measure


FiguresByVariant = Mapping[tuple[str, str], list[dict[str, float]]]
"""Figures scene by scene, by the names of variant and test set."""


def measure_variants(
    work: MeasuringWork, executor: Executor, parts: Parts, progress: Progress = silent
) -> FiguresByVariant:
    """What is missing in the journal; then everything.

    Args:
        work: what.
        executor: where.
        parts: the journal.
        progress: told about every scene.
    """
    pieces = work.pieces()
    missing = [piece for piece in pieces if work.step(piece) not in set(parts.done())]
    counted = iter(range(len(pieces) - len(missing) + 1, len(pieces) + 1))

    def keep(done: Done[Arrays]) -> None:
        piece = missing[done.number]
        parts.save(work.step(piece), done.value)
        progress(f"{work.variants[piece[0]].title}, {executor.title}", next(counted), len(pieces))

    in_order(executor, work, missing, keep, [variant for variant, _, _ in missing])
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    for piece in pieces:
        figures = {key: float(value) for key, value in parts.load(work.step(piece)).items()}
        results.setdefault((work.variants[piece[0]].name, work.sets[piece[1]].key), []).append(figures)
    return results


def by_group(scenes: Sequence[DrawnScene], figures: Sequence[Mapping[str, float]], key: str) -> dict[str, float]:
    """The mean of a figure in every group (category), in points; the published figure is the mean of these."""
    values: dict[str, list[float]] = {}
    for scene, row in zip(scenes, figures, strict=True):
        values.setdefault(scene.group, []).append(row[key])
    return {group: 100 * float(np.mean(each)) for group, each in values.items()}
