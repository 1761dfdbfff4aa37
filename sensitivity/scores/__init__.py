"""Cheap scores: a number for every layer and format that is to order them as their damage at the outputs does.

One registry, `SCORES`; a module here adds its scores to it. `analysis.audit` compares all of them with true damage.

| module | holds |
|---|---|
| `registry` | what a score is made from and what it is |
| `weight_error` | error of the weight |
| `layer_output` | error of the layer's own output, isolated and accumulated: MAE, cosine, SSIM, NMSE |
| `fisher` | weight errors weighted by squared gradients |
| `sketch` | first-order damage at the outputs |
| `response` | the same through response curves fitted to a few measured pairs |
"""

from sensitivity.scores.fisher import FISHER
from sensitivity.scores.layer_output import LAYER_OUTPUT
from sensitivity.scores.registry import SCORES, Score, ScoringContext, register, usable_score
from sensitivity.scores.response import RESPONSE
from sensitivity.scores.sketch import SKETCH_SCORE
from sensitivity.scores.weight_error import WEIGHT_ERROR

__all__ = [
    "FISHER",
    "LAYER_OUTPUT",
    "RESPONSE",
    "SCORES",
    "SKETCH_SCORE",
    "WEIGHT_ERROR",
    "Score",
    "ScoringContext",
    "register",
    "usable_score",
]
