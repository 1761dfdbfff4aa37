"""Figures that others report of VGGT-1B on CO3Dv2, 10 frames, AUC@30, and the gate of the baseline."""

from __future__ import annotations

from dataclasses import dataclass

CO3D, FRAMES = "co3d-test", 10
"""The test set of the published figures: kind of scenes, and frames of a scene."""
BASELINE_AUC, TOLERANCE = 89.5, 1.5
"""What the model in 16 bits must reach, and within how many points, before anything else is believed."""
LEAST_FRAMES = 50
"""Frames that a test sequence must have."""


@dataclass(frozen=True)
class Published:
    """A figure of others.

    Attributes:
        name: of the method.
        bits: of weights, and of activations where they are quantised.
        auc30: in points.
    """

    name: str
    bits: str
    auc30: float


PUBLISHED_FIGURES = (
    Published("FP16", "W16", BASELINE_AUC),
    Published("QuantVGGT", "W8A8", 89.4),
    Published("QuantVGGT", "W4A4", 86.9),
    Published("QVGGT", "W4", 89.4),
    Published("GPTQ", "W4", 76.9),
    Published("AWQ", "W4", 54.6),
)


@dataclass(frozen=True)
class Gate:
    """Whether the baseline is the published one.

    Attributes:
        auc30: of the baseline in points; None where the published test set was not given.
    """

    auc30: float | None

    @property
    def passed(self) -> bool:
        """Measured, and near enough."""
        return self.auc30 is not None and abs(self.auc30 - BASELINE_AUC) <= TOLERANCE

    def said(self) -> str:
        """In words.

        >>> Gate(89.1).said()
        'Gate passed: the baseline has AUC@30 89.1 on CO3Dv2 with 10 frames, published 89.5 (within 1.5 points).'
        """
        if self.auc30 is None:
            return f"GATE NOT CHECKED: the published {BASELINE_AUC} is of CO3Dv2 with {FRAMES} frames, not given here."
        has = f"the baseline has AUC@30 {self.auc30:.1f} on CO3Dv2 with {FRAMES} frames, published {BASELINE_AUC}"
        if self.passed:
            return f"Gate passed: {has} (within {TOLERANCE} points)."
        return f"GATE FAILED: {has}, over {TOLERANCE} points apart: weights, pictures or protocol are not as published."
