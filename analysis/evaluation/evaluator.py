"""What an assignment does on scenes: damage of every output, and the geometry figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from analysis.evaluation.run import POINT_QUERIES, SEED, predictions
from mixedprec import Evidence, quantized
from vggtkit.core.errors import InputError
from vggtkit.metrics.geometry import Estimate, geometry_metrics, over_scenes
from vggtkit.metrics.tensors import nmse
from vggtkit.model import VGGT
from vggtkit.scenes import Scene


@dataclass(frozen=True)
class Measured:
    """What was found on some scenes.

    Attributes:
        damage: weighted mean NMSE of the outputs against FP32, over the scenes.
        per_scene: the same scene by scene.
        by_output: NMSE of every output, over the scenes.
        geometry: figures against the truth, where there is one, over the scenes.
        figures: the same scene by scene.
    """

    damage: float
    per_scene: tuple[float, ...]
    by_output: dict[str, float]
    geometry: dict[str, Estimate]
    figures: tuple[dict[str, float], ...]


class Bench:
    """A model with its FP32 outputs on some scenes, on which assignments are measured.

    Args:
        model: in eval mode; unchanged by every measurement.
        scenes: any.
        evidence: for what the outputs count for.
        keep: precision of everything that is not quantised.

    Raises:
        InputError: no scenes, or FP32 gives no finite outputs.
    """

    def __init__(self, model: VGGT, scenes: Sequence[Scene], evidence: Evidence, keep: str = "fp16") -> None:
        if not scenes:
            raise InputError("no scenes to measure on: give more photographs with --images, or --scenes synthetic")
        self.model, self.scenes, self.evidence, self.keep = model, scenes, evidence, keep
        self.references = [predictions(model, scene) for scene in scenes]
        for scene, reference in zip(scenes, self.references, strict=True):
            if not all(bool(value.isfinite().all()) for value in reference.values()):
                raise InputError(f"scene {scene.name}: the FP32 model gives NaN or Inf; the checkpoint is damaged")

    def fp32(self) -> Measured:
        """The reference itself."""
        return self.compared(self.references)

    def measure(self, formats: Mapping[str, str], scenes: Sequence[int] | None = None) -> Measured:
        """Run an assignment as its checkpoint would compute, on all scenes or on those of these numbers."""
        numbers = range(len(self.scenes)) if scenes is None else scenes
        with quantized(self.model, formats, self.keep):
            found = [predictions(self.model, self.scenes[number]) for number in numbers]
        return self.compared(found, numbers)

    def compared(self, found: Sequence[Mapping[str, Tensor]], numbers: Sequence[int] | None = None) -> Measured:
        """Outputs that were made elsewhere, one set per scene, against FP32's."""
        numbers = range(len(self.scenes)) if numbers is None else numbers
        errors, figures = [], []
        for number, outputs in zip(numbers, found, strict=True):
            reference, scene = self.references[number], self.scenes[number]
            errors.append({name: _nmse(value, outputs[name]) for name, value in reference.items()})
            size = (scene.images.shape[-2], scene.images.shape[-1])
            figures.append(geometry_metrics(outputs, scene.truth, size, query_limit=POINT_QUERIES, seed=SEED))
        by_output = {name: math.fsum(row[name] for row in errors) / len(errors) for name in errors[0]}
        per_scene = tuple(self.evidence.total(_outputs_of(self.evidence, row)) for row in errors)
        return Measured(
            math.fsum(per_scene) / len(per_scene), per_scene, by_output, over_scenes(figures, SEED), tuple(figures)
        )


def _nmse(reference: Tensor, found: Tensor) -> float:
    value = nmse(reference, found)
    return value if math.isfinite(value) else math.inf


def _outputs_of(evidence: Evidence, row: Mapping[str, float]) -> dict[str, float]:
    """The outputs that the evidence knows; one that this model does not have counts as undamaged."""
    return {name: row.get(name, 0.0) for name in evidence.damage}
