"""What an evaluation found, and how its numbers are written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from analysis.evaluation.cost import describe_cost
from vggtkit.metrics.geometry import Estimate
from vggtkit.metrics.outputs import OutputMetrics
from vggtkit.metrics.ratings import NOT_APPLICABLE
from vggtkit.quant import FORMATS

Stages = Mapping[str, tuple[float, float]]
"""Seconds of one pass by stage: in FP32, and as executed."""

OTHER_PLAN = "plan:"
"""How the key of a further plan begins; its file follows."""
LONGEST_NAME = 20


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


def compression_ratio(result: SchemeResult, fp32: SchemeResult) -> float:
    """How many times smaller than FP32 a scheme's file is.

    >>> fp32 = SchemeResult("fp32", "FP32", 40_000_000, None, None, None, {}, 0.0, (0.0,))
    >>> compression_ratio(SchemeResult("plan", "plan", 5_000_000, None, None, None, {}, 0.1, (0.1,)), fp32)
    8.0
    """
    return fp32.size_bytes / result.size_bytes


def short_title(result: SchemeResult) -> str:
    """A name of at most `LONGEST_NAME` characters, for narrow tables and charts.

    >>> key, title = "int8_per_channel_asym", "INT8 per-channel asymmetric"
    >>> short_title(SchemeResult(key, title, 1, None, None, None, {}, 0.0, ()))
    'INT8 channel asym'
    >>> key, title = "plan:runs/rooms/plan.json", "rooms (optimal, descent)"
    >>> short_title(SchemeResult(key, title, 1, None, None, None, {}, 0.0, ()))
    'rooms'
    """
    title = FORMATS[result.key].short_title if result.key in FORMATS else result.title
    if len(title) <= LONGEST_NAME:
        return title
    name = title.partition(" (")[0] if result.key.startswith(OTHER_PLAN) else result.key
    return name[:LONGEST_NAME]


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
