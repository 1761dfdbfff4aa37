"""The result, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.report.document import Row, Table, Tone
from analysis.reproduction.measuring import CAMERA_FIGURES, FiguresByVariant, TestSet, by_group
from analysis.reproduction.published import CO3D, FRAMES, PUBLISHED_FIGURES, Gate
from analysis.reproduction.variants import BASELINE, Variant
from vggtkit.metrics.geometry import over_scenes

PUBLISHED_SET = f"{CO3D}-{FRAMES}"


def points(test_set: TestSet, figures: Sequence[dict[str, float]], key: str = "auc30") -> float:
    """A figure as it is published, in points: the mean over groups of the mean over their scenes."""
    return float(np.mean(list(by_group(test_set.scenes, figures, key).values())))


def gate_of(sets: Sequence[TestSet], results: FiguresByVariant) -> Gate:
    """The baseline's figure on the published test set."""
    there = next((each for each in sets if each.key == PUBLISHED_SET), None)
    return Gate(None if there is None else points(there, results[BASELINE, there.key]))


def tables(variants: Sequence[Variant], sets: Sequence[TestSet], results: FiguresByVariant) -> list[Table]:
    """Variants on all test sets, with what others publish below."""
    rows, tones = list[Row](), dict[int, Tone]()
    for variant in variants:
        if variant.name.startswith("plan"):
            tones[len(rows)] = "strong"
        cells = (f"{points(each, results[variant.name, each.key]):.1f}" for each in sets)
        rows.append((variant.title, f"{variant.size_bytes / 1e6:.0f}", *cells))
    column = [each.key for each in sets].index(PUBLISHED_SET) if PUBLISHED_SET in {s.key for s in sets} else None
    for row in PUBLISHED_FIGURES if column is not None else ():
        blank = ["" for _ in sets]
        blank[column or 0] = f"{row.auc30:.1f}"
        rows.append((f"published: {row.name} {row.bits}", "", *blank))
    columns = ("model", "MB", *(each.key for each in sets))
    caption = "columns: " + "; ".join(f"{each.key}: {each.title}" for each in sets)
    return [Table("Cameras, AUC@30 in points", columns, rows, caption, tones=tones)]


def table_values(
    variants: Sequence[Variant], sets: Sequence[TestSet], results: FiguresByVariant, infeasible: dict[str, str]
) -> dict[str, Any]:
    """Everything, for machines."""
    gate = gate_of(sets, results)
    rows = [
        {
            "variant": variant.name,
            "title": variant.title,
            "size_bytes": variant.size_bytes,
            "set": each.key,
            "scenes": len(each.scenes),
            **{key: points(each, results[variant.name, each.key], key) for key in CAMERA_FIGURES},
            "auc30_interval": _interval(results[variant.name, each.key]),
            "auc30_by_group": by_group(each.scenes, results[variant.name, each.key], "auc30"),
        }
        for variant in variants
        for each in sets
    ]
    return {
        "gate": {"auc30": gate.auc30, "passed": gate.passed, "said": gate.said()},
        "rows": rows,
        "infeasible": infeasible,
        "published": [vars(row) for row in PUBLISHED_FIGURES],
        "published_for": f"CO3Dv2, {FRAMES} frames, AUC@30",
    }


def _interval(figures: Sequence[dict[str, float]]) -> list[float]:
    """95 % over scenes, in points."""
    estimate = over_scenes([{"auc30": row["auc30"]} for row in figures], 0)["auc30"]
    return [100 * estimate.low, 100 * estimate.high]
