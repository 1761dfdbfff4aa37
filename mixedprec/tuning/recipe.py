"""How weights are tuned: steps, rates, and which way steps go."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vggtkit.core.errors import InputError, check_number
from vggtkit.core.program import setting

OPTIMIZERS = ("adam", "sign")
"""Adam, or the sign of the gradient alone (Cheng et al., "Optimize Weight Rounding via Signed Gradient Descent for the
Quantization of LLMs", EMNLP Findings 2024: AutoRound)."""
MOST_STEPS = 10**7
WHOLE_CODES, WHOLE_SCALES = 0.02, 0.1
"""Shares of the learning rates for the whole model, where small changes of all layers add up, and scales learn rather
than codes (Chen et al., "EfficientQAT", ACL 2025). From rounded weights of 2.5 bits, 30 steps of one scene with shares
of 0.4 and 0.3, as of 0 and 0.3, made the damage on other scenes larger by 8 and by 1 %."""
WARM = 0.1
"""Share of the steps in which the learning rates rise."""


@dataclass(frozen=True)
class Recipe:
    """How weights are tuned.

    Attributes:
        block_steps: steps for every block; 0 leaves out the reconstruction.
        steps: steps for the whole model; 0 leaves out the distillation.
        batch: scenes in a step.
        rate: the largest learning rate of latent weights, in steps of their codes; for the whole model
            `WHOLE_CODES` of it.
        scale_rate: the same of scales, in their logarithm; for the whole model `WHOLE_SCALES` of it.
        optimizer: of `OPTIMIZERS`.
        seed: of the order of scenes.

    Raises:
        InputError: a value out of range.
    """

    block_steps: int = 250
    steps: int = 100
    batch: int = 1
    rate: float = 0.005
    scale_rate: float = 0.001
    optimizer: str = "adam"
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("block_steps", self.block_steps, 0, MOST_STEPS)
        check_number("steps", self.steps, 0, MOST_STEPS)
        check_number("batch", self.batch, 1, 10**4)
        for name in ("rate", "scale_rate"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise InputError(f"{setting(name, value)}: must be a number, 0 or more")
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"{setting('optimizer', self.optimizer)}: choose {' or '.join(OPTIMIZERS)}")

    def share(self, step: int, steps: int) -> float:
        """The share of the learning rates at a step: up within the first tenth, then half a cosine down to nearly 0.

        First steps of Adam are of full size whatever the gradient, and rounded weights near the edge of their code
        would all change it together.

        Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.

        >>> [round(Recipe().share(step, 20), 3) for step in (0, 1, 2, 10, 19)]
        [0.499, 0.986, 0.962, 0.461, 0.002]
        """
        warm = min(1.0, (step + 1) / max(1, WARM * steps))
        return warm * 0.5 * (1 + math.cos(math.pi * (step + 0.5) / steps))
