"""What did quantisation do to the outputs? Evaluation, reports and plots.

| module | holds |
|---|---|
| `compare` | two sets of outputs -> the eight metrics of each output |
| `ratings` | excellent, good, acceptable, poor |
| `pose_errors`, `depth_errors`, `point_errors` | against ground truth |
| `geometry` | all of these as the figures of a scene, and over scenes |
| `cost` | what a scheme changes in them |
| `evaluate` | FP32, the uniform schemes and a plan on evaluation scenes |
| `results` | what that found: types, the verdict on the plan, JSON |
| `report`, `geometry_tables`, `grid` | text and terminal tables |
| `plots` | the six charts |
| `audit` | every score of a layer against true damage; who pays |
| `inspect_layer`, `inspect_report` | one layer from close by |
| `steps` | the steps of a run, from file to file |
"""

from analysis.evaluation.results import Evaluation, SchemeResult, verdict
from analysis.evaluation.run import evaluate
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
