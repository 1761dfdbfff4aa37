"""What an evaluation found: the typed result, the verdict on the plan, and the JSON file."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from analysis.evaluation.cost import describe_cost
from vggtkit.core.errors import InputError
from vggtkit.core.seal import SEAL, is_sealed, sealed
from vggtkit.metrics.geometry import Estimate
from vggtkit.metrics.outputs import OutputMetrics
from vggtkit.metrics.ratings import NOT_APPLICABLE, THRESHOLDS, rate
from vggtkit.quant import FORMATS

Stages = Mapping[str, tuple[float, float]]
"""Seconds of one pass by stage: in FP32, and as executed."""

OTHER_PLAN = "plan:"
"""How the key of a further plan begins; its file follows."""
_DECIBELS = ("psnr_db", "sqnr_db")


@dataclass(frozen=True)
class SchemeResult:
    """What one scheme costs and what it gives; metrics are against the outputs of FP32, geometry against the truth.

    Attributes:
        key: ``"fp32"``, a uniform scheme's key, ``"plan"``, or ``"plan:"`` and the file of a further plan.
        title: the name in tables.
        size_bytes: bytes of the packed file.
        seconds: inference time, the median of the timed repeats; ``None`` if not timed.
        seconds_spread: the fastest and the slowest repeat.
        speed_ratio: median over the repeats of FP32's time / this scheme's; above 1 is faster than FP32.
        outputs: the metrics of every output, averaged over the evaluation scenes; empty for FP32.
        damage: mean over the outputs of NMSE on the evaluation scenes; 0 for FP32, NaN or inf if broken.
        per_scene: the damage of each evaluation scene.
        geometry: cameras, depth, points and tracks over the scenes, by the keys of `vggtkit.metrics.geometry.GEOMETRY`.
        changes: of these from FP32's, scene by scene, by the same keys; empty for FP32.
        execution: how it was executed, as `vggtkit.runtime.backend.Execution`; empty for ``reference``.
        bfloat16_ratio: as ``speed_ratio``, against FP32's weights with the trunk in bfloat16.
        stages: seconds by stage; empty for ``reference``.
        memory_bytes: of its weights in memory and of what a pass holds at its fullest moment; None if not measured.
    """

    key: str
    title: str
    size_bytes: int
    seconds: float | None
    seconds_spread: tuple[float, float] | None
    speed_ratio: float | None
    outputs: dict[str, OutputMetrics]
    damage: float
    per_scene: tuple[float, ...]
    geometry: dict[str, Estimate] = field(default_factory=dict)
    changes: dict[str, Estimate] = field(default_factory=dict)
    execution: Mapping[str, Any] = field(default_factory=dict)
    bfloat16_ratio: float | None = None
    stages: Stages = field(default_factory=dict)
    memory_bytes: int | None = None

    @property
    def is_uniform(self) -> bool:
        """Whether every layer has the same format; FP32 is none of them."""
        return self.key != "fp32" and not self.key.startswith("plan")

    @property
    def cost(self) -> str:
        """Say ``"AUC@30 -0.4 points, AbsRel +0.002"``; "" for FP32."""
        return describe_cost(self.changes)


@dataclass(frozen=True)
class Evaluation:
    """FP32, the uniform schemes and the plan on the same scenes.

    Attributes:
        provenance: schema, versions, fingerprints, seed, command line: anything that JSON can hold.
        model: what was evaluated.
        weights_note: where the weights come from, and a warning if they are random.
        scenes: names of the evaluation scenes.
        calibration_scenes: names of the scenes that the plan was made from.
        executed: what was timed, with its kernels.
        results: FP32 first, the uniform schemes in order, the plan last.
        plan_formats: layers per format key.
        predicted_damage: what the planner expected; ``None`` if it predicts nothing in the unit of damage.
    """

    provenance: dict[str, object]
    model: str
    weights_note: str
    scenes: tuple[str, ...]
    calibration_scenes: tuple[str, ...]
    executed: str
    results: tuple[SchemeResult, ...]
    plan_formats: dict[str, int]
    predicted_damage: float | None

    def __post_init__(self) -> None:
        """Refuse results without the reference that ratios refer to."""
        if not self.results or self.results[0].key != "fp32":
            raise ValueError("the first result of an evaluation must be fp32")

    @property
    def quantized(self) -> tuple[SchemeResult, ...]:
        """All results but FP32's."""
        return self.results[1:]

    @property
    def plan(self) -> SchemeResult | None:
        """The plan's result."""
        return next((result for result in self.results if result.key == "plan"), None)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the compared outputs, in the order of the results."""
        return tuple(dict.fromkeys(name for result in self.results for name in result.outputs))


@dataclass(frozen=True)
class VerdictRow:
    """One uniform scheme against the plan; ``damage_ratio`` is the scheme's damage / the plan's."""

    key: str
    title: str
    size_bytes: int
    damage: float
    damage_ratio: float
    plan_is_smaller: bool  # or of the same size: only then is the comparison asked for
    plan_is_better: bool
    scenes_won: int


@dataclass(frozen=True)
class Verdict:
    """Is the plan better than every uniform scheme of its size or larger?

    ``holds`` is ``None`` where no scheme is that large.
    """

    holds: bool | None
    sentence: str
    rows: tuple[VerdictRow, ...]


def compression_ratio(result: SchemeResult, fp32: SchemeResult) -> float:
    """How many times smaller than FP32 a scheme's file is.

    >>> fp32 = SchemeResult("fp32", "FP32", 40_000_000, None, None, None, {}, 0.0, (0.0,))
    >>> compression_ratio(SchemeResult("plan", "plan", 5_000_000, None, None, None, {}, 0.1, (0.1,)), fp32)
    8.0
    """
    return fp32.size_bytes / result.size_bytes


def short_title(result: SchemeResult) -> str:
    """A name of at most 20 characters, for narrow tables and charts.

    >>> key, title = "int8_per_channel_asym", "INT8 per-channel asymmetric"
    >>> short_title(SchemeResult(key, title, 1, None, None, None, {}, 0.0, ()))
    'INT8 channel asym'
    """
    title = FORMATS[result.key].short_title if result.key in FORMATS else result.title
    return title if len(title) <= 20 else result.key[:20]


def verdict(evaluation: Evaluation) -> Verdict:
    """Compare the plan's damage with that of every uniform scheme.

    Schemes smaller than the plan are listed and not counted. A damage that is not finite is worse than any
    that is; equal damage is not better.

    >>> size_and_damage = {"fp32": (40, 0.0), "int8_per_tensor_sym": (10, 1e-6), "plan": (5, 1e-4)}
    >>> results = tuple(
    ...     SchemeResult(key, key, mb * 10**6, None, None, None, {}, damage, (damage,))
    ...     for key, (mb, damage) in size_and_damage.items()
    ... )
    >>> print(verdict(Evaluation({}, "tiny", "", ("room",), (), "", results, {}, None)).sentence)
    No: the plan (5.00 MB, damage 1.00e-4) is better than 0 of the 1 uniform schemes of its size or larger. \
Not better than int8_per_tensor_sym (10.00 MB, 1.00e-6).
    """
    plan = evaluation.plan
    if plan is None:
        return Verdict(None, "No plan was evaluated.", ())
    rows = tuple(_versus(plan, scheme) for scheme in evaluation.quantized if scheme.is_uniform)
    if not rows:
        return Verdict(None, "No uniform scheme was evaluated.", ())
    asked = [row for row in rows if row.plan_is_smaller]
    holds = all(row.plan_is_better for row in asked) if asked else None
    return Verdict(holds, _sentence(plan, rows, holds), rows)


def _versus(plan: SchemeResult, scheme: SchemeResult) -> VerdictRow:
    scenes = zip(plan.per_scene, scheme.per_scene, strict=True)
    return VerdictRow(
        scheme.key,
        scheme.title,
        scheme.size_bytes,
        scheme.damage,
        scheme.damage / plan.damage if plan.damage else math.nan if not scheme.damage else math.inf,
        plan_is_smaller=scheme.size_bytes >= plan.size_bytes,
        plan_is_better=_worst_if_nan(plan.damage) < _worst_if_nan(scheme.damage),
        scenes_won=sum(_worst_if_nan(ours) < _worst_if_nan(theirs) for ours, theirs in scenes),
    )


def _worst_if_nan(damage: float) -> float:
    return math.inf if math.isnan(damage) else damage


def _sentence(plan: SchemeResult, rows: tuple[VerdictRow, ...], holds: bool | None) -> str:
    asked = [row for row in rows if row.plan_is_smaller]
    smaller = len(rows) - len(asked)
    who = f"the plan ({format_mb(plan.size_bytes)} MB, damage {format_number(plan.damage)})"
    if holds is None:
        return f"Not answered: no uniform scheme is as large as {who}; the {smaller} here are smaller."
    won = sum(row.plan_is_better for row in asked)
    parts = [f"{'Yes' if holds else 'No'}: {who} is better than"]
    parts.append(f"{won} of the {len(asked)} uniform schemes of its size or larger.")
    if lost := [row for row in asked if not row.plan_is_better]:
        listed = ", ".join(f"{row.title} ({format_mb(row.size_bytes)} MB, {format_number(row.damage)})" for row in lost)
        parts.append(f"Not better than {listed}.")
    if smaller:
        parts.append(f"Not counted, being smaller than the plan: {smaller}.")
    return " ".join(parts)


def to_json(evaluation: Evaluation) -> str:
    """The whole evaluation as strict JSON (RFC 8259), with ratings, ratios and the verdict written out.

    JSON has no NaN and no infinity: a number that is not finite is ``null``. A metric that does not apply
    (SSIM of cameras) is left out. `from_json` reads everything back, except that a damage of infinity comes
    back as NaN, which counts as equally bad everywhere.

    >>> fp32 = SchemeResult("fp32", "FP32", 40_000_000, None, None, None, {}, 0.0, (0.0,))
    >>> evaluation = Evaluation({"seed": 0}, "tiny", "trained", ("room",), (), "nothing", (fp32,), {}, None)
    >>> from_json(to_json(evaluation)) == evaluation
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
    data["verdict"] = asdict(verdict(evaluation))
    finite: Any = null_if_not_finite(data)
    return json.dumps(sealed(finite), indent=2, allow_nan=False) + "\n"


def null_if_not_finite(value: object) -> object:
    """The value with None for every number in it that strict JSON cannot hold.

    >>> null_if_not_finite({"damage": [0.5, math.nan]})
    {'damage': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {key: null_if_not_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [null_if_not_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(text: str) -> Evaluation:
    """Read what `to_json` wrote.

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


def format_number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, in few characters.

    >>> [format_number(value) for value in (0.00012345, 0.5, 1234.5, 0.0, float("nan"), None)]
    ['1.23e-4', '0.500', '1.23e3', '0', 'n/a', 'n/a']
    """
    if value is None or math.isnan(value):
        return NOT_APPLICABLE
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    plain = 1e-3 <= abs(value) < 1e3
    mantissa, _, exponent = (f"{value:#.{digits}g}" if plain else f"{value:.{digits - 1}e}").partition("e")
    return mantissa.rstrip(".") + (f"e{int(exponent)}" if exponent else "")


def format_fixed(value: float, digits: int) -> str:
    """A number with so many decimals, or what there is instead of one.

    >>> format_fixed(0.5, 3), format_fixed(float("nan"), 3)
    ('0.500', 'n/a')
    """
    return NOT_APPLICABLE if math.isnan(value) else f"{value:.{digits}f}"


def format_mb(size_bytes: int) -> str:
    """Megabytes (10^6 bytes) with two decimals, without the unit.

    >>> format_mb(5_678_901)
    '5.68'
    """
    return f"{size_bytes / 1e6:.2f}"
