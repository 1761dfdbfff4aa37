"""The metrics of an output against its reference, in one registry; a further one is registered, say by a plugin.

The eight metrics and the normalised errors are computed together by `vggtkit.metrics.outputs`. A further metric brings
its own function; it is then computed for every output and stands in every table of outputs and in the results' JSON:

    METRICS.register("p99", Metric("p99", "99th percentile", compute=ninety_ninth_percentile))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.core.registry import Registry
from vggtkit.metrics.ratings import THRESHOLDS

Compute = Callable[[Tensor, Tensor], float | None]


@dataclass(frozen=True)
class Metric:
    """A number for how far an output is from its reference.

    Attributes:
        key: in files.
        title: in tables.
        compute: from the reference and the candidate, two tensors of one shape on the CPU; None where the metric does
            not apply. None in its place for those that `OutputMetrics` has as fields.
        higher_is_better: as of similarities.
    """

    key: str
    title: str
    compute: Compute | None = None
    higher_is_better: bool = False


METRICS: Registry[Metric] = Registry("metric")
"""All metrics by key: the eight, the normalised errors, and those that were added."""

for _key, _limits in THRESHOLDS.items():
    METRICS.register(_key, Metric(_key, _limits.label, higher_is_better=_limits.higher_is_better))
for _metric in (Metric("ce", "CE"), Metric("nmse", "NMSE"), Metric("sqnr_db", "SQNR dB", higher_is_better=True)):
    METRICS.register(_metric.key, _metric)


def further_values(output: str, reference: Tensor, candidate: Tensor) -> dict[str, float]:
    """The metrics that were added, of one output, by key; those that do not apply are left out.

    Args:
        output: its name, for messages.
        reference: of FP32, of any shape, in the unit of the output.
        candidate: of the same shape and unit.

    Raises:
        InputError: a metric fails or gives no number.
    """
    values = {}
    for key, metric in METRICS.items():
        if metric.compute is None:
            continue
        try:
            value = metric.compute(reference, candidate)
            if value is not None:
                values[key] = float(value)
        except Exception as error:  # a user's own code may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(f"metric {key!r} fails on the output {output} ({reason})") from error
    return values
