"""Codes and scales tuned under the outputs of FP32, without labels and at the same bytes.

| module | holds |
|---|---|
| `recipe` | how: steps, learning rates, which way steps go |
| `student` | weights while they are tuned |
| `reconstruction` | block by block, in one pass over all scenes |
| `importance` | what of a block's outputs reaches the model's |
| `distillation` | the whole model's outputs; the best weights are kept |
| `loss` | what is made small |
| `stored` | weights in a journal |
| `forecast` | memory that it takes |
"""

from mixedprec.tuning.distillation import Tuned, distil
from mixedprec.tuning.forecast import TuningForecast, forecast_tuning
from mixedprec.tuning.recipe import OPTIMIZERS, Recipe
from mixedprec.tuning.reconstruction import tune_blocks
from mixedprec.tuning.stored import QuantizedByLayer

__all__ = [
    "OPTIMIZERS",
    "QuantizedByLayer",
    "Recipe",
    "Tuned",
    "TuningForecast",
    "distil",
    "forecast_tuning",
    "tune_blocks",
]
