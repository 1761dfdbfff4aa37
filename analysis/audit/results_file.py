"""An audit read back from its file, with all that its charts show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.audit.plans import Regret, WholePlan
from analysis.audit.ranks import Agreement, Correlation
from analysis.audit.results import Audit, ScoreResult
from sensitivity.response import Response
from vggtkit.quant import Layer


def audit_from_values(values: Mapping[str, Any], layers: Mapping[str, Layer]) -> Audit:
    """What `to_json` has written, read by ``json``; without its repetitions and what stands beside noise.

    Args:
        values: of the file; a number that JSON cannot hold is NaN.
        layers: of the model, by name.

    Raises:
        KeyError, TypeError, ValueError: it is something else, or of other layers.
    """
    measured, geometry = values["measured"], values["geometry"]
    named = [layers[str(name)] for name in measured["layers"]]
    schemes = tuple(map(str, values["formats"]))
    trunk = [layers[str(name)] for name in measured["trunk"]]
    classes = tuple(map(str, measured["token_class_formats"]))
    size = (len(named), len(schemes))
    return Audit(
        facts=dict(values["provenance"]),
        layers=named,
        schemes=schemes,
        scenes=tuple(map(str, values["scenes"])),
        judges=tuple(map(str, values["judges"])),
        calibration_scenes=tuple(map(str, values["calibration_scenes"])),
        scores=[_score(str(key), score) for key, score in values["scores"].items()],
        ceiling=_numbers(values["ceiling"]),
        damage=_arrays(measured["damage"], size),
        sketched=_arrays(measured["sketched"], size),
        responses={str(name): Response(**_numbers(curve)) for name, curve in values["responses"].items()},
        worse=_arrays(measured["worse"], size),
        fp32={str(figure): _number(each["fp32"]) for figure, each in geometry.items()},
        plans=[_plan(plan) for plan in measured["plans"]],
        classes=_arrays(measured["token_classes"], (len(trunk), len(classes))),
        trunk=trunk,
        class_schemes=classes,
        stability=None,
    )


def _score(key: str, values: Mapping[str, Any]) -> ScoreResult:
    agreement = {
        str(group): Agreement(
            int(each["pairs"]), _correlation(each["spearman"]), _correlation(each["kendall"]), _number(each["within"])
        )
        for group, each in values["agreement"].items()
    }
    regrets = [
        Regret(
            str(each["budget"]), tuple(map(_number, each["damages"])),
            *(_number(each[name]) for name in ("measured", "summed", "local")),
        )
        for each in values["budgets"]
    ]  # fmt: skip
    return ScoreResult(key, str(values.get("title", key)), _number(values["passes"]), agreement, regrets)


def _correlation(values: Mapping[str, Any]) -> Correlation:
    return Correlation(*(_number(values[name]) for name in ("value", "low", "high")))


def _plan(values: Mapping[str, Any]) -> WholePlan:
    damages = (_numbers(values[name]) for name in ("measured", "sketched", "together", "summed"))
    return WholePlan(str(values["name"]), int(values["size_bytes"]), *damages)


def _arrays(values: Mapping[str, Any], size: tuple[int, int]) -> dict[str, NDArray[np.float64]]:
    return {str(name): np.array(rows, dtype=np.float64).reshape(size) for name, rows in values.items()}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): _number(value) for name, value in values.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
