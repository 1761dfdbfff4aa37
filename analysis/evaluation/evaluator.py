"""What an assignment does on scenes: the one place where assignments are measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor

from mixedprec import packed_with, quantized
from mixedprec.evidence import weighted_mean
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.metrics.depth import Alignment
from vggtkit.metrics.geometry import Estimate, over_scenes
from vggtkit.metrics.tensors import nmse_or_inf
from vggtkit.quant import QuantizedTensor
from vggtkit.runtime.fewer_operations import fewer_operations
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

POINT_QUERIES = 5000
"""Points that look for their neighbours, per scene and assignment; 40 ms for all figures of 4 views of 64x64."""
SEED = 0
"""One for all assignments: the same points are sampled and the same scenes drawn."""

Outputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class MeasuredDamage:
    """What an assignment does on some scenes.

    Attributes:
        damage: weighted mean NMSE of the outputs against FP32, over the scenes.
        per_scene: the same scene by scene.
        errors: NMSE of every output, scene by scene; infinite for an output that is broken.
        geometry: figures against the truth, where there is one, over the scenes.
        figures: the same scene by scene.
    """

    damage: float
    per_scene: tuple[float, ...]
    errors: tuple[dict[str, float], ...]
    geometry: dict[str, Estimate]
    figures: tuple[dict[str, float], ...]

    @property
    def by_output(self) -> dict[str, float]:
        """NMSE of every output, over the scenes."""
        return {name: math.fsum(row[name] for row in self.errors) / len(self.errors) for name in self.errors[0]}


class Evaluator:
    """A subject with its FP32 outputs on some scenes, on which assignments are measured.

    Args:
        subject: unchanged by every measurement.
        scenes: any.
        weights: what each output counts for, relative to the others; 1 for those not named.
        keep: precision of everything that is not quantised.
        alignment: of depth to the truth, before its errors are taken.
        cheaper: compute in the cheaper order of operations where the subject has one; reference and candidates alike.

    Attributes:
        references: outputs of FP32, one set per scene, on the CPU.

    Raises:
        InputError: no scenes, or FP32 gives no finite outputs.
    """

    def __init__(
        self,
        subject: Subject,
        scenes: Sequence[Scene],
        weights: Mapping[str, float] | None = None,
        *,
        keep: str = "fp16",
        alignment: Alignment = "median",
        cheaper: bool = False,
    ) -> None:
        if not scenes:
            raise InputError(
                f"no scenes to measure on: give more photographs with {setting('images')}, or "
                f"{setting('scenes', 'synthetic')}"
            )
        self.subject, self.scenes, self.weights, self.keep = subject, scenes, dict(weights or {}), keep
        self.alignment, self.cheaper = alignment, cheaper and subject.recorded_whole is not None
        with self._computing():
            self.references = [subject.predict(scene, check=True) for scene in scenes]

    def fp32(self) -> MeasuredDamage:
        """The reference itself."""
        return self.compare(self.references)

    def measure(self, formats: Mapping[str, str], scenes: Sequence[int] | None = None) -> MeasuredDamage:
        """Run an assignment as its checkpoint would compute, on all scenes or on those of these numbers."""
        numbers = range(len(self.scenes)) if scenes is None else scenes
        return self.compare(self.predict(formats, numbers), numbers)

    def measure_weights(self, weights: Mapping[str, QuantizedTensor]) -> MeasuredDamage:
        """The same of weights that are quantised already, on all scenes."""
        with packed_with(self.subject, weights, self.keep), self._computing():
            return self.compare([self.subject.predict(scene) for scene in self.scenes])

    def predict(self, formats: Mapping[str, str], scenes: Sequence[int] | None = None) -> list[dict[str, Tensor]]:
        """The outputs under an assignment, one set per scene."""
        numbers = range(len(self.scenes)) if scenes is None else scenes
        with quantized(self.subject.model, formats, self.keep), self._computing():
            return [self.subject.predict(self.scenes[number]) for number in numbers]

    def compare(self, candidates: Sequence[Outputs], scenes: Sequence[int] | None = None) -> MeasuredDamage:
        """Outputs that were made elsewhere, one set per scene, against FP32's."""
        numbers = range(len(self.scenes)) if scenes is None else scenes
        errors, figures = [], []
        for number, outputs in zip(numbers, candidates, strict=True):
            errors.append({name: nmse_or_inf(value, outputs[name]) for name, value in self.references[number].items()})
            figures.append(self.figures(number, outputs))
        per_scene = tuple(self.damage(row) for row in errors)
        damage = math.fsum(per_scene) / len(per_scene)
        return MeasuredDamage(damage, per_scene, tuple(errors), over_scenes(figures, SEED), tuple(figures))

    def damage(self, by_output: Mapping[str, float]) -> float:
        """The weighted mean of the outputs' errors: what plans are made to keep small."""
        return weighted_mean(by_output, self.weights)

    def figures(self, scene: int, outputs: Outputs) -> dict[str, float]:
        """Cameras, depth, points and tracks of a scene, where the subject predicts them."""
        return self.subject.figures(
            outputs, self.scenes[scene], alignment=self.alignment, query_limit=POINT_QUERIES, seed=SEED
        )

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with ExitStack() as contexts:
            if self.cheaper:
                contexts.enter_context(fewer_operations(self.subject.model))
            yield
