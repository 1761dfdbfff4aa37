"""Errors against a reference or the truth, and how they are rated.

| module | holds |
|---|---|
| `tensors` | errors of a tensor against its reference, streamed or at once |
| `ssim` | structural similarity of maps |
| `outputs` | two sets of outputs -> the eight metrics of each output |
| `pose`, `depth`, `points` | against ground truth |
| `geometry` | all of these as the figures of a scene, and over scenes |
| `registry` | all metrics by key; a further one is registered |
| `ratings` | excellent, good, acceptable, poor |
"""

from vggtkit.metrics.registry import METRICS, Metric

__all__ = ["METRICS", "Metric"]
