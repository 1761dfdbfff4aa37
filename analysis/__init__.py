"""What did quantisation do to the outputs? Evaluation, reports and plots.

| module | holds |
|---|---|
| `evaluation` | what plans do end to end: every assignment is measured here |
| `audit` | every score of a layer against true damage; its attribution |
| `inspection` | one layer from close by |
| `reproduction` | VGGT-1B on published test sets, beside published figures |
| `search` | plans sought by measuring: quality targets, swaps, size against damage |
| `timing` | time and memory of inference: measured by layer, and predicted |
| `reconstruction` | depth, cameras and points from pictures, in files |
| `report` | results for people: text, tables, charts |
| `steps` | the steps of a run, from file to file |
| `commands` | what a user can type |
"""

from analysis.evaluation.results import Evaluation, SchemeResult
from analysis.evaluation.run import evaluate
from analysis.evaluation.verdict import verdict
from vggtkit.metrics.outputs import OutputMetrics, average, compare_outputs
from vggtkit.metrics.ratings import LEVELS, THRESHOLDS, rate
from vggtkit.model.outputs import OUTPUTS

__all__ = [
    "LEVELS",
    "OUTPUTS",
    "THRESHOLDS",
    "Evaluation",
    "OutputMetrics",
    "SchemeResult",
    "average",
    "compare_outputs",
    "evaluate",
    "rate",
    "verdict",
]
