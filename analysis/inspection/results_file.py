"""One layer from close by, as JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.evaluation.results import null_if_not_finite
from analysis.inspection.layer import Distribution, FormatRow, Inspection
from analysis.inspection.report import inspection_values
from vggtkit.core.seal import sealed
from vggtkit.quant import Layer

SCHEMA_VERSION = 1


def inspection_to_values(inspection: Inspection, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, sealed, with where it comes from."""
    plain: Any = null_if_not_finite(inspection_values(inspection))
    return sealed({"schema_version": SCHEMA_VERSION, "provenance": dict(facts), **plain})


def inspection_from_values(values: Mapping[str, Any]) -> Inspection:
    """What `inspection_to_values` has made, read by ``json``; a number that this cannot hold is NaN.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    layer = dict(values["layer"])
    layer |= {"shape": tuple(map(int, layer["shape"])), "aliases": tuple(map(str, layer["aliases"]))}
    return Inspection(
        layer=Layer(**layer),
        rank=int(values["rank"]),
        layers=int(values["layers"]),
        weight=_distribution(values["weight"]),
        channel_ratio=_number(values["channel_ratio"]),
        activation=_distribution(values["activation"]) if values["activation"] else None,
        outlier_channels=tuple(map(int, values["outlier_channels"])),
        formats=tuple(_format(row) for row in values["formats"]),
        inputs={str(key): _numbers(damage) for key, damage in values["inputs"].items()},
    )


def _distribution(values: Mapping[str, Any]) -> Distribution:
    edges, histogram = np.array(values["edges"], np.float64), np.array(values["histogram"], np.int64)
    if edges.ndim != 1 or edges.shape != (histogram.size + 1,):
        raise ValueError("a histogram has one more edge than counts")
    mean, deviation, largest, kurtosis = (
        _number(values[name]) for name in ("mean", "deviation", "largest", "kurtosis")
    )
    count, outliers = int(values["count"]), int(values["outliers"])
    return Distribution(count, mean, deviation, largest, outliers, kurtosis, edges, histogram)


def _format(row: Mapping[str, Any]) -> FormatRow:
    return FormatRow(
        key=str(row["key"]),
        size_bytes=int(row["size_bytes"]),
        weight_error=_number(row["weight_error"]),
        largest_error=_number(row["largest_error"]),
        local=_numbers(row["local"]),
        damage=_numbers(row["damage"]),
        total=_number(row["total"]),
        noise=None if row["noise"] is None else float(row["noise"]),
        left=None if row["left"] is None else float(row["left"]),
    )


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): _number(value) for name, value in values.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
