"""Small networks as people write them, each with one habit that gradients, hooks or caches trip over.

Every function of `MODELS` makes one, seeded; `inputs_of` yields what it is called with. The modules here enter them, a
kind each. All work on ``[2, 10, 24]`` tokens unless they say otherwise.
"""

from benchmarks.trust.foreign import (
    calls,
    gradients,
    hidden,
    in_place,
    outputs,
    past,
    shared,
    state,
    torch_layers,
    weights,
)
from benchmarks.trust.foreign.base import MODELS, REFUSED, Net, Part, inputs_of

__all__ = [
    "MODELS",
    "REFUSED",
    "Net",
    "Part",
    "calls",
    "gradients",
    "hidden",
    "in_place",
    "inputs_of",
    "outputs",
    "past",
    "shared",
    "state",
    "torch_layers",
    "weights",
]  # fmt: skip
