"""An evaluation as JSON, and back."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from analysis.evaluation.results import Evaluation, SchemeResult, compression_ratio, null_if_not_finite
from analysis.evaluation.verdict import Verdict, verdict
from vggtkit.core.errors import InputError
from vggtkit.core.seal import SEAL, is_sealed, sealed
from vggtkit.metrics.geometry import Estimate
from vggtkit.metrics.outputs import OutputMetrics
from vggtkit.metrics.ratings import THRESHOLDS, rate

_DECIBELS = ("psnr_db", "sqnr_db")


def evaluation_to_json(evaluation: Evaluation, answer: Verdict | None = None) -> str:
    """The whole evaluation as strict JSON (RFC 8259), with ratings, ratios and the verdict written out.

    The verdict is made where nobody has it yet. JSON has no NaN and no infinity: a number that is not finite is
    ``null``. A metric that does not apply (SSIM of cameras) is left out. `from_json` reads everything back, except that
    a damage of infinity comes back as NaN, which counts as equally bad everywhere.

    >>> fp32 = SchemeResult("fp32", "FP32", 40_000_000, None, None, None, {}, 0.0, (0.0,))
    >>> evaluation = Evaluation({"seed": 0}, "tiny", "trained", ("room",), (), "nothing", (fp32,), {}, None)
    >>> from_json(evaluation_to_json(evaluation)) == evaluation
    True
    """
    data: dict[str, Any] = asdict(evaluation)
    for row, result in zip(data["results"], evaluation.results, strict=True):
        row["compression_ratio"] = compression_ratio(result, evaluation.results[0])
        row["cost"] = result.cost
        for name in ("geometry", "changes"):
            row[name] = {key: estimate._asdict() for key, estimate in getattr(result, name).items()}
        for name, metrics in row["outputs"].items():
            ratings = {metric: rate(metric, getattr(result.outputs[name], metric)) for metric in THRESHOLDS}
            # What does not apply is left out, and so is what nobody has added.
            row["outputs"][name] = {k: v for k, v in metrics.items() if v not in (None, {})} | {"ratings": ratings}
    answer = answer or verdict(evaluation)
    data["verdict"] = asdict(answer) | {"sentence": answer.sentence}
    finite: Any = null_if_not_finite(data)
    return json.dumps(sealed(finite), indent=2, allow_nan=False) + "\n"


def from_json(text: str) -> Evaluation:
    """Read what `evaluation_to_json` wrote.

    Raises:
        InputError: the text is not JSON, not an evaluation, or has changed since it was written.

    >>> from_json("[]")
    Traceback (most recent call last):
    ...
    vggtkit.core.errors.InputError: not the JSON of an evaluation: list indices must be integers or slices, not str
    """
    try:
        data = json.loads(text)
        named = {each.name: data[each.name] for each in fields(Evaluation)}
        named["results"] = tuple(_read_result(result) for result in named["results"])
        for name in ("scenes", "calibration_scenes"):
            named[name] = tuple(named[name])
        if not is_sealed(data):
            raise ValueError(f"its {SEAL} is not that of its content")
        return Evaluation(**named)
    except KeyError as error:
        raise InputError(f"not the JSON of an evaluation: {error} is missing") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"not the JSON of an evaluation: {error}") from error


def _read_result(data: Mapping[str, Any]) -> SchemeResult:
    absent: dict[str, Any] = {name: {} for name in ("geometry", "changes", "execution", "stages")}
    absent |= {"bfloat16_ratio": None, "memory_bytes": None}
    data = absent | dict(data)  # results of earlier versions lack them
    named = {each.name: data[each.name] for each in fields(SchemeResult)}
    named["outputs"] = {name: _read_metrics(metrics) for name, metrics in named["outputs"].items()}
    named["damage"] = _nan_if_null(named["damage"])
    named["per_scene"] = tuple(_nan_if_null(damage) for damage in named["per_scene"])
    for name in ("geometry", "changes"):
        named[name] = {key: _read_estimate(estimate) for key, estimate in named[name].items()}
    named["stages"] = {stage: tuple(seconds) for stage, seconds in named["stages"].items()}
    named["seconds_spread"] = named["seconds_spread"] and tuple(named["seconds_spread"])
    return SchemeResult(**named)


def _read_estimate(data: Mapping[str, Any]) -> Estimate:
    mean, low, high = (_nan_if_null(data[name]) for name in ("mean", "low", "high"))
    return Estimate(mean, low, high, data["scenes"])


def _nan_if_null(value: float | None) -> float:
    return math.nan if value is None else value


def _read_metrics(data: Mapping[str, Any]) -> OutputMetrics:
    names = [each.name for each in fields(OutputMetrics) if each.name not in ("ssim", "extra")]
    named: dict[str, Any] = {name: _nan_if_null(data[name]) for name in names}
    # Where MSE is a number, these are not finite only at their limits: no error, or a reference of zeros.
    if data["mse"] is not None:
        limit = -math.inf if data["nmse"] is None else math.inf
        named |= {name: limit for name in _DECIBELS if data[name] is None}
        named["nmse"] = math.inf if data["nmse"] is None else data["nmse"]
    named["ssim"] = _nan_if_null(data["ssim"]) if "ssim" in data else None
    extra = {key: _nan_if_null(value) for key, value in data.get("extra", {}).items()}
    return OutputMetrics(**named, extra=extra)
