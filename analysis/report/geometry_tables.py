"""Cameras, depth, points and tracks as tables: FP32's figures with their noise, and what every scheme changes."""

from __future__ import annotations

import math
from collections.abc import Iterable

from analysis.evaluation.cost import SCENES_TO_JUDGE, beyond_noise, change_interval, describe_cost, select_known
from analysis.evaluation.results import Evaluation, SchemeResult, format_fixed, format_number, short_title
from analysis.report.document import Table
from vggtkit.core.program import setting
from vggtkit.metrics.geometry import GEOMETRY
from vggtkit.metrics.ratings import NOT_APPLICABLE

LEVEL = "95 %"
TERMINAL = ("auc30", "auc5", "abs_rel", "delta125", "accuracy", "completeness", "f_score", "track_px", "agreement")
_OF_CAMERAS = tuple(key for key in GEOMETRY if key.startswith(("auc", "rra", "rta")))
GEOMETRY_COLUMNS = {
    "Cameras": _OF_CAMERAS,
    "Depth, points and tracks": tuple(key for key in GEOMETRY if key not in _OF_CAMERAS),
}
CHANGES = {
    "cameras and depth": ("auc30", "abs_rel", "delta125"),
    "points": ("accuracy", "chamfer", "f_score"),
    "tracks and agreement": ("track_px", "agreement"),
}
_SHORT = {
    "delta125": "d<1.25",
    "accuracy": "accur.",
    "completeness": "compl.",
    "track_px": "track px",
    "agreement": "agree",
}

GEOMETRY_LEGEND = (
    "Geometry is against the ground truth of the scenes that have one: means over them. AUC, RRA, RTA, delta<1.25 and "
    "F-score are fractions, the higher the better; the others are errors. 'points vs depth', the agreement of point "
    "map and depth map, needs no truth.",
    "'from' and 'to' under FP32 are the ends of its 95 % bootstrap interval: how much its figures would vary with "
    "other scenes like these. It is no yardstick for a scheme, because all schemes see the same scenes.",
    "What a scheme costs is its figure minus FP32's within each scene, averaged; in brackets the 95 % bootstrap "
    "interval of these differences. One that excludes 0 is 'beyond noise'. Fractions change in percentage points. "
    "Intervals from fewer than about ten scenes are too narrow: of fewer than six, all scenes agree by chance in more "
    "than one case of twenty. A single scene has none.",
)


def cost_table(evaluation: Evaluation) -> Table:
    """For the terminal: FP32's headline figures, and in words what every scheme changes."""
    fp32, *others = evaluation.results
    columns, rows = ("scheme", "change", "beyond noise"), [(fp32.title, _headline(fp32), "")]
    for result in others:
        words = describe_cost(result.changes, intervals=True) or NOT_APPLICABLE
        rows.append((result.title, words, beyond_noise(result.changes)))
    title = f"Cost: change from FP32, scene by scene, over {_scenes(evaluation)} [{LEVEL} interval]"
    shown = 2 if too_few_scenes(evaluation) else 3
    return Table(title, columns[:shown], [row[:shown] for row in rows], wraps="change")


def too_few_scenes(evaluation: Evaluation) -> str:
    """Why no change is called more than noise; "" where that can be told."""
    if not evaluation.results[0].geometry or len(evaluation.scenes) >= SCENES_TO_JUDGE:
        return ""
    return (
        f"{_scenes(evaluation)} cannot tell a change of cameras and depth from noise: evaluate with "
        f"{setting('num_scenes', SCENES_TO_JUDGE)} or more."
    )


def figure_table(evaluation: Evaluation) -> Table:
    """For the terminal: the means of the figures that matter most."""
    shown = _known(evaluation, TERMINAL)
    rows = [(r.title, *(figure(key, r.geometry[key].mean) for key in shown)) for r in evaluation.results]
    title = f"Cameras, depth and points: means over {_scenes(evaluation)}"
    return Table(title, ("scheme", *(_SHORT.get(key, GEOMETRY[key].title) for key in shown)), rows)


def text_tables(evaluation: Evaluation) -> list[Table]:
    """For the text report: all figures with FP32's noise, then the changes with theirs; none without figures."""
    tables = []
    for title, keys in GEOMETRY_COLUMNS.items():
        if shown := _known(evaluation, keys):
            columns = ("scheme", *(_SHORT.get(key, GEOMETRY[key].title) for key in shown))
            rows = [row for result in evaluation.results for row in _figure_rows(result, shown)]
            tables.append(Table(f"{title}: means over {_scenes(evaluation)}", columns, rows))
    for what, keys in CHANGES.items():
        if shown := [key for key in keys if all(key in r.changes for r in evaluation.quantized)]:
            columns = ("scheme", *(GEOMETRY[key].title + GEOMETRY[key].change_unit for key in shown))
            rows = [(short_title(r), *(_change(key, r) for key in shown)) for r in evaluation.quantized]
            tables.append(Table(f"Cost in {what}: change from FP32, scene by scene [{LEVEL} interval]", columns, rows))
    return tables


def figure(key: str, value: float) -> str:
    """A figure as tables show it.

    >>> figure("auc30", 0.5), figure("abs_rel", 0.00123)
    ('0.500', '0.00123')
    """
    return format_fixed(value, 3) if GEOMETRY[key].higher_is_better else format_number(value)


def _figure_rows(result: SchemeResult, keys: list[str]) -> list[tuple[str, ...]]:
    """The means of a result; below those of FP32 the ends of their intervals."""
    estimates = [result.geometry[key] for key in keys]
    parts = {short_title(result): [each.mean for each in estimates]}
    if result.key == "fp32" and any(each.has_interval for each in estimates):
        parts |= {
            f"  {LEVEL} from": [each.low for each in estimates],
            f"  {LEVEL} to": [each.high for each in estimates],
        }
    return [(name, *map(figure, keys, values)) for name, values in parts.items()]


def _headline(fp32: SchemeResult) -> str:
    parts = []
    for key in select_known(fp32.geometry):
        estimate = fp32.geometry[key]
        ends = f" [{figure(key, estimate.low)}, {figure(key, estimate.high)}]" if estimate.has_interval else ""
        parts.append(f"{GEOMETRY[key].title} {figure(key, estimate.mean)}{ends}")
    return ", ".join(parts)


def _change(key: str, result: SchemeResult) -> str:
    change = result.changes[key]
    if not math.isfinite(change.mean):
        return NOT_APPLICABLE
    return GEOMETRY[key].change_number(change.mean) + change_interval(key, change)


def _scenes(evaluation: Evaluation) -> str:
    count = len(evaluation.scenes)
    return f"{count} scene{'s' * (count > 1)}"


def _known(evaluation: Evaluation, keys: Iterable[str]) -> list[str]:
    """Those of the figures that every result has."""
    return [key for key in keys if all(key in result.geometry for result in evaluation.results)]
