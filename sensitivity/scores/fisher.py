"""Weight errors weighted by squared gradients: the diagonal of the Fisher information.

For outputs with Gaussian noise the Fisher information of a weight is ``E[g^2]`` with g = J^T v, and the score
``sum_i E[g_i^2] dW_i^2`` is the sketch without the terms between different weights. Those terms vanish on average for
an error of the same size with random signs s, ``E_s[(sum_i g_i s_i dW_i)^2] = sum_i g_i^2 dW_i^2``: so it is computed
as the sketch of such errors, several draws of signs a pass.

Source: Dong et al., "HAWQ-V2", NeurIPS 2020, and Li et al., "BRECQ", ICLR 2021, weight errors by such diagonals.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from sensitivity.jacobian_sketch import sketch_damage
from sensitivity.scores.registry import Score, ScoringContext, register
from sensitivity.weight_errors import WeightErrors
from vggtkit.core.arrays import Array
from vggtkit.quant import Layer

DRAWS = 4


class SignedErrors(WeightErrors):
    """Weight errors with random signs, ``DRAWS`` times over; new ones each time that a layer is asked for.

    Signs follow from the seed, the layer, and how often it was asked for, not from the order in which layers are met.

    Args:
        errors: the errors themselves.
        seed: of the signs.
    """

    def __init__(self, errors: WeightErrors, seed: int) -> None:
        super().__init__(errors.model, errors.layers, tuple(errors.schemes) * DRAWS, cache_bytes=sys.maxsize)
        self.errors, self.seed = errors, seed
        self.numbers = {layer.name: number for number, layer in enumerate(errors.layers)}
        self.asked: Counter[str] = Counter()

    def __call__(self, layer: Layer) -> Tensor:
        """``[DRAWS * schemes, weights]``."""
        plain = self.errors(layer)
        seed = (self.seed << 40) + (self.asked[layer.name] << 20) + self.numbers[layer.name]
        self.asked[layer.name] += 1
        generator = torch.Generator().manual_seed(seed)
        draws = [torch.randint(0, 2, plain.shape[1:], generator=generator).to(plain) * 2 - 1 for _ in range(DRAWS)]
        return torch.cat([plain * signs for signs in draws])


def fisher(context: ScoringContext) -> Mapping[str, Array]:
    """``sum_i E[g_i^2] dW_i^2`` per output, mean over scenes, ``[layers, schemes]``."""
    errors = SignedErrors(context.errors, context.seed)
    by_scene = [
        sketch_damage(context.subject, context.layers, errors, scene, probes=context.probes, seed=context.seed + number)
        for number, scene in enumerate(context.scenes)
    ]
    means = {name: torch.stack([one[name] for one in by_scene]).mean(0) for name in by_scene[0]}
    return {name: value.unflatten(1, (DRAWS, -1)).mean(1).numpy() for name, value in means.items()}


FISHER = register(
    Score("fisher", "Fisher diagonal", fisher, lambda known: float(len(known.scenes) + 2 * known.backward_passes))
)
