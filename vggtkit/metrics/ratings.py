"""The four levels at which a metric is rated: excellent, good, acceptable, poor."""

import math
from dataclasses import dataclass

LEVELS = ("excellent", "good", "acceptable", "poor")
NOT_APPLICABLE = "n/a"


@dataclass(frozen=True)
class Thresholds:
    """Limits of the first three levels; a value on a limit belongs to the level below it."""

    label: str
    excellent: float
    good: float
    acceptable: float
    higher_is_better: bool = False

    def level(self, value: float) -> str:
        """The best level whose limit the value keeps strictly; NaN keeps none."""
        limits = (self.excellent, self.good, self.acceptable)
        for level, limit in zip(LEVELS, limits, strict=False):
            if value > limit if self.higher_is_better else value < limit:
                return level
        return LEVELS[-1]


# Keyed like the fields of `vggtkit.metrics.outputs.OutputMetrics`; relative_error is a fraction, ce_excess in nats.
THRESHOLDS: dict[str, Thresholds] = {
    "mae": Thresholds("MAE", 0.001, 0.01, 0.1),
    "mse": Thresholds("MSE", 0.0001, 0.001, 0.01),
    "rmse": Thresholds("RMSE", 0.01, 0.03, 0.1),
    "psnr_db": Thresholds("PSNR dB", 40.0, 30.0, 20.0, higher_is_better=True),
    "ce_excess": Thresholds("CE excess", 0.1, 0.5, 1.0),
    "cosine": Thresholds("CosSim", 0.99, 0.95, 0.90, higher_is_better=True),
    "relative_error": Thresholds("RE", 0.05, 0.10, 0.20),
    "ssim": Thresholds("SSIM", 0.95, 0.90, 0.80, higher_is_better=True),
}


def rate(metric: str, value: float | None) -> str:
    """The level of a metric's value.

    Args:
        metric: a key of `THRESHOLDS`. The cross-entropy itself has no level (its floor is the entropy of the
            reference), nor have the normalised errors.
        value: ``None`` where the metric does not apply, NaN where the candidate is not finite.

    Returns:
        One of `LEVELS`; ``"n/a"`` for ``None``, ``"poor"`` for NaN.

    Raises:
        ValueError: the metric has no thresholds.

    >>> rate("psnr_db", 40.1), rate("mae", 0.1), rate("ssim", None), rate("mse", float("nan"))
    ('excellent', 'poor', 'n/a', 'poor')
    """
    if metric not in THRESHOLDS:
        msg = f"{metric!r} is not rated; rated are {', '.join(THRESHOLDS)}"
        raise ValueError(msg)
    if value is None:
        return NOT_APPLICABLE
    return LEVELS[-1] if math.isnan(value) else THRESHOLDS[metric].level(value)
