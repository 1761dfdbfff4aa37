"""An audit in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from analysis.audit.attribution import along_depth, by_task, group_damage
from analysis.audit.plans import BUDGETS
from analysis.audit.ranks import Correlation
from analysis.audit.results import ALL, DEFAULTS, JOINT, LOCAL, TRACKS, Audit, ScoreResult
from analysis.audit.stability import Stability
from analysis.evaluation.results import format_fixed, format_number
from sensitivity.tables import COARSE, MOST_BLOCKS, role_title
from vggtkit.metrics.geometry import GEOMETRY
from vggtkit.model.outputs import outputs_by_task
from vggtkit.quant import get_format

Array = NDArray[np.float64]

BARS = "▁▂▃▄▅▆▇█"
SHADES = ("grey23", "navy_blue", "dark_cyan", "green4", "gold3", "dark_orange3", "red3")
"""From the least to the most damage."""


def audit_tables(audit: Audit) -> list[Table]:
    """All tables, the answer first."""
    first = (score_table, regret_table, additivity_table, attribution_table, heat_table)
    tables = [make(audit) for make in first]
    if audit.trunk:
        tables.append(class_table(audit))
    if audit.worse:
        tables.append(geometry_table(audit))
    if audit.stability:
        tables.append(stability_table(audit.stability))
    return tables


def audit_sentences(audit: Audit) -> list[str]:
    """The answer in words."""
    best, default = audit.favoured, audit.score(JOINT)
    lines = [
        "Cheapest of the scores with the least measured regret (within its interval): "
        f"{best.title}, {_regret(audit, best)}x the best plan, mean of {len(BUDGETS)} budgets."
    ]
    if best is not default:
        lines.append(f"What `plan` does by default, {default.title}: {_regret(audit, default)}x.")
    ceilings = ", ".join(f"{group} {value:.3f}" for group, value in audit.ceiling.items() if math.isfinite(value))
    if ceilings:
        lines.append(f"True damage is itself noisy: a perfect score would reach a Spearman of about {ceilings}.")
    curves = along_depth(audit.layers, audit.local, audit.schemes.index(COARSE))
    if curves:
        shown = "   ".join(f"{stack} {sparkline(values)}" for stack, values in curves.items())
        lines.append(f"Damage of camera, depth and points at INT4 along the depth (log): {shown}")
    return lines


def score_table(audit: Audit) -> Table:
    """Every score: cost and rank correlation with true damage."""
    table = _table(f"Scores against true damage, {len(audit.layers)} layers x {len(audit.schemes)} formats")
    table.add_column("score", no_wrap=True)
    for name in ("passes", "Spearman, all outputs", "camera/depth/pts", "tracks", "Kendall", "one format"):
        table.add_column(name, justify="right")
    for score in audit.scores:
        if score.agreement:
            groups = [score.agreement.get(group) for group in (ALL, LOCAL, TRACKS)]
            overall = next(agreement for agreement in groups if agreement is not None)
            cells = [_interval(overall.spearman)]
            cells += [format_fixed(agreement.spearman.value, 3) if agreement else "n/a" for agreement in groups[1:]]
            cells += [format_fixed(overall.kendall.value, 3), format_fixed(overall.within, 3)]
            table.add_row(Text(score.title), f"{score.passes:,.0f}", *cells, style=_style(audit, score))
    truth = audit.score("truth").passes
    table.caption = (
        f"passes: forward passes over one scene, a backward pass counts as two; all pairs measured take {truth:,.0f}; "
        "in brackets: bootstrap over layers, 95 %; one format: Spearman among layers at one format, averaged"
    )
    return table


def regret_table(audit: Audit) -> Table:
    """What plans made from every score cost."""
    table = _table("Plans made from every score: damage over the best plan's, by budget")
    table.add_column("score", no_wrap=True)
    for budget, factor in BUDGETS.items():
        table.add_column(f"{budget} {factor:g}x", justify="right")
    for name in ("mean [95 %]", "summed", "no tracks"):
        table.add_column(name, justify="right", no_wrap=True)
    for score in sorted(audit.scores, key=lambda one: one.regret):
        cells = [format_fixed(regret.measured, 2) for regret in score.regrets]
        means = [np.mean([getattr(regret, name) for regret in score.regrets]) for name in ("summed", "local")]
        table.add_row(
            Text(score.title), *cells, _regret(audit, score), *(format_fixed(mean, 2) for mean in means),
            style=_style(audit, score),
        )  # fmt: skip
    table.caption = (
        f"budgets: bytes of the layers over those at INT4 g128; measured: the whole plan is run on {_judges(audit)}, "
        "against the best plan here; summed: true damages of its layers alone, added up, against the plan made from "
        "other scenes' truth"
    )
    return table


def _regret(audit: Audit, score: ScoreResult) -> str:
    low, high = audit.intervals[score.key]
    return f"{score.regret:.2f} [{low:.2f}, {high:.2f}]"


def _judges(audit: Audit) -> str:
    others = len(audit.judges) if list(audit.judges) != list(audit.scenes) else 0
    return f"{others} scenes that no score has seen" if others else "the scenes of true damage, as there are no others"


def additivity_table(audit: Audit) -> Table:
    """Predicted against measured damage of whole plans."""
    table = _table(f"Damage of whole plans ({len(audit.plans)} of them), predicted and measured")
    for name in ("outputs", "prediction"):
        table.add_column(name, no_wrap=True)
    for name in ("Spearman", "slope", "measured / predicted"):
        table.add_column(name, justify="right")
    for group, ways in audit.additivity().items():
        for number, (way, fit) in enumerate(ways.items()):
            cells = (format_fixed(fit.spearman, 3), format_fixed(fit.slope, 2), format_number(fit.ratio))
            table.add_row(group if number == 0 else "", way, *cells)
    table.caption = "slope of log measured over log predicted; where it is not 1, damages of layers do not add up"
    return table


def attribution_table(audit: Audit) -> Table:
    """Mean true damage of a layer by role and task, at INT4."""
    column = audit.schemes.index(COARSE)
    tasks = by_task(audit.damage)
    table = _table(f"Who pays: true damage of one layer alone at {get_format(COARSE).short_title}, mean by role")
    table.add_column("role", no_wrap=True)
    for name in ("layers", "weights", *tasks):
        table.add_column(name, justify="right")
    for group in group_damage(audit.layers, tasks, column, lambda layer: layer.role):
        cells = [format_number(group.damage[task]) for task in tasks]
        table.add_row(role_title(group.name), str(group.layers), f"{group.weights:,}", *cells)
    table.caption = "; ".join(f"{task}: {', '.join(names)}" for task, names in outputs_by_task(audit.damage).items())
    return table


def heat_table(audit: Audit) -> Table:
    """Summed true damage by block (role, if there are too many blocks) and format, shaded by its logarithm."""
    blocks = {layer.block for layer in audit.layers}
    by = "block" if len(blocks) <= MOST_BLOCKS else "role"
    rows: dict[str, list[int]] = {}
    for row, layer in enumerate(audit.layers):
        rows.setdefault(getattr(layer, by), []).append(row)
    totals = {name: audit.local[members].sum(0) for name, members in rows.items()}
    table = _table(f"True damage of camera, depth and points by {by} and format, log10 of the sum over its layers")
    table.add_column(by, no_wrap=True)
    for scheme in audit.schemes:
        table.add_column(get_format(scheme).short_title, justify="center")
    known = [math.log10(value) for values in totals.values() for value in values if value > 0]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    for name, values in totals.items():
        table.add_row(name, *(_shaded(float(value), low, high) for value in values))
    return table


def class_table(audit: Audit) -> Table:
    """Damage of the trunk's layers by token class, to first order."""
    table = _table("Which tokens carry it: first-order damage of the trunk's layers, share by token class")
    table.add_column("stack", no_wrap=True)
    table.add_column("format", no_wrap=True)
    classes = [name for name in audit.classes if name != "all"]
    for name in (*classes, "whole / sum"):
        table.add_column(name, justify="right")
    for stack in dict.fromkeys(layer.block.partition(".")[0] for layer in audit.trunk):
        rows = [row for row, layer in enumerate(audit.trunk) if layer.block.startswith(f"{stack}.")]
        for column, scheme in enumerate(audit.class_schemes):
            parts = [float(audit.classes[name][rows, column].sum()) for name in classes]
            total, whole = sum(parts), float(audit.classes["all"][rows, column].sum())
            shares = [f"{part / total:.1%}" if total else "n/a" for part in parts]
            table.add_row(stack, get_format(scheme).short_title, *shares, f"{whole / total:.2f}" if total else "n/a")
    table.caption = (
        "share: the error made in the tokens of this class alone, of the sum of the classes; whole / sum below 1: "
        "errors of classes cancel; vit: the class token stands where the camera token stands later"
    )
    return table


def geometry_table(audit: Audit) -> Table:
    """Change of figures with one layer quantised."""
    table = _table("One layer alone against ground truth")
    table.add_column("figure", no_wrap=True)
    for name in ("FP32", "median change", "largest", "Spearman with damage"):
        table.add_column(name, justify="right")
    for figure, values in audit.worse.items():
        correlation = audit.worse_correlation(figure)
        cells = (audit.fp32[figure], float(np.median(np.abs(values))), float(values.max()))
        shown = f"{correlation:.2f}" if math.isfinite(correlation) else "n/a"
        table.add_row(GEOMETRY[figure].title, *map(format_number, cells), shown)
    table.caption = "change: median of the absolute change, and the largest for the worse, over all layers and formats"
    return table


def stability_table(stability: Stability) -> Table:
    """Repetitions of the sketch."""
    table = _table("Is the sketch stable?")
    table.add_column("what", no_wrap=True)
    table.add_column("found", justify="right")
    rows = [
        ("relative deviation of one probe, one scene", format_fixed(stability.probe_deviation, 2)),
        (
            f"... of {stability.probes} probes, as used",
            format_fixed(stability.probe_deviation / stability.probes**0.5, 2),
        ),
        ("... between scenes, without the probes' part", format_fixed(stability.scene_deviation, 2)),
        ("layers are told apart if their sketches differ by", f"{stability.resolution:.2f}x"),
        ("Spearman of two scenes", format_fixed(stability.scenes, 3)),
        *(
            (f"Spearman, {n} scenes against the others", format_fixed(value, 3))
            for n, value in stability.by_count.items()
        ),
        *((f"Spearman, {n} views", format_fixed(value, 3)) for n, value in stability.views.items()),
        *((f"Spearman, {n} pixels", format_fixed(value, 3)) for n, value in stability.sizes.items()),
        *((f"rounding alone: damage of {name}", format_number(value)) for name, value in stability.floors.items()),
    ]
    for row in rows:
        table.add_row(*row)
    enough = f"{stability.enough} are enough" if stability.enough else "more scenes than these are needed"
    table.caption = f"scenes against the others: from 0.99 on more change nothing that matters; {enough}"
    return table


def sparkline(values: Sequence[float]) -> str:
    """Bars of log-scaled heights; a space for what is not positive.

    >>> sparkline([1e-6, 0.0, 1e-3])
    '▁ █'
    """
    logs = [math.log10(value) if value > 0 and math.isfinite(value) else None for value in values]
    return bars(logs)


def bars(heights: Iterable[float | None]) -> str:
    """Bars from the smallest to the largest height; a space for None.

    >>> bars([0.0, None, 1.0, 2.0])
    '▁ ▄█'
    """
    listed = list(heights)
    known = [height for height in listed if height is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if height is None else BARS[int((height - low) * scale)] for height in listed)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.caption_justify = "left"
    return table


def _style(audit: Audit, score: ScoreResult) -> str:
    if score.key == audit.favoured.key:
        return "bold green"
    return "bold" if score.key in DEFAULTS else ""


def _interval(correlation: Correlation) -> str:
    return (
        f"{correlation.value:.3f} [{correlation.low:.2f}, {correlation.high:.2f}]"
        if math.isfinite(correlation.value)
        else "n/a"
    )


def _shaded(value: float, low: float, high: float) -> Text:
    if value <= 0:
        return Text("-")
    place = (math.log10(value) - low) / (high - low) if high > low else 0.0
    return Text(f" {math.log10(value):5.1f} ", style=f"white on {SHADES[round(place * (len(SHADES) - 1))]}")
