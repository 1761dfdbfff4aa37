"""An audit as tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from analysis.audit.attribution import CLASS_CAPTION, along_depth, by_task, class_shares, group_damage
from analysis.audit.plans import BUDGETS
from analysis.audit.ranks import Correlation
from analysis.audit.results import ALL, DEFAULTS, JOINT, LOCAL, TRACKS, Audit, ScoreResult
from analysis.audit.rounding_or_bits import rounding_or_bits_table
from analysis.audit.stability import Stability
from analysis.evaluation.results import format_fixed, format_number
from analysis.report.document import Cell, Row, Table, Tone
from analysis.report.profile_tables import COARSE, MOST_BLOCKS, role_title
from vggtkit.metrics.geometry import GEOMETRY
from vggtkit.model.outputs import outputs_by_task
from vggtkit.quant import get_format

BARS = "▁▂▃▄▅▆▇█"


def audit_tables(audit: Audit) -> list[Table]:
    """All tables, the answer first."""
    first = (score_table, regret_table, additivity_table, attribution_table, heat_table)
    tables = [make(audit) for make in first]
    if audit.noise:
        tables.append(rounding_or_bits_table(audit.noise, COARSE))
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
        lines.append(
            f"What `plan` does by default where it rounds to the nearest, {default.title}: {_regret(audit, default)}x."
        )
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
    names = ("passes", "Spearman, all outputs", "camera/depth/pts", "tracks", "Kendall", "one format")
    rows, tones = list[Row](), dict[int, Tone]()
    for score in audit.scores:
        if score.agreement:
            groups = [score.agreement.get(group) for group in (ALL, LOCAL, TRACKS)]
            overall = next(agreement for agreement in groups if agreement is not None)
            cells = [_interval(overall.spearman)]
            cells += [format_fixed(agreement.spearman.value, 3) if agreement else "n/a" for agreement in groups[1:]]
            cells += [format_fixed(overall.kendall.value, 3), format_fixed(overall.within, 3)]
            tones[len(rows)] = _tone(audit, score)
            rows.append((score.title, f"{score.passes:,.0f}", *cells))
    truth = audit.score("truth").passes
    caption = (
        f"passes: forward passes over one scene, a backward pass counts as two; all pairs measured take {truth:,.0f}; "
        "in brackets: bootstrap over layers, 95 %; one format: Spearman among layers at one format, averaged"
    )
    title = f"Scores against true damage, {len(audit.layers)} layers x {len(audit.schemes)} formats"
    return Table(title, ("score", *names), rows, caption, tones=tones)


def regret_table(audit: Audit) -> Table:
    """What plans made from every score cost."""
    names = (*(f"{budget} {factor:g}x" for budget, factor in BUDGETS.items()), "mean [95 %]", "summed", "no tracks")
    rows, tones = list[Row](), dict[int, Tone]()
    for score in sorted(audit.scores, key=lambda one: one.regret):
        cells = [format_fixed(regret.measured, 2) for regret in score.regrets]
        means = [np.mean([getattr(regret, name) for regret in score.regrets]) for name in ("summed", "local")]
        tones[len(rows)] = _tone(audit, score)
        rows.append((score.title, *cells, _regret(audit, score), *(format_fixed(float(mean), 2) for mean in means)))
    caption = (
        f"budgets: bytes of the layers over those at INT4 g128; measured: the whole plan is run on {_judges(audit)}, "
        "against the best plan here; summed: true damages of its layers alone, added up, against the plan made from "
        "other scenes' truth"
    )
    title = "Plans made from every score: damage over the best plan's, by budget"
    return Table(title, ("score", *names), rows, caption, tones=tones)


def _regret(audit: Audit, score: ScoreResult) -> str:
    low, high = audit.intervals[score.key]
    return f"{score.regret:.2f} [{low:.2f}, {high:.2f}]"


def _judges(audit: Audit) -> str:
    others = len(audit.judges) if list(audit.judges) != list(audit.scenes) else 0
    return f"{others} scenes that no score has seen" if others else "the scenes of true damage, as there are no others"


def additivity_table(audit: Audit) -> Table:
    """Predicted against measured damage of whole plans."""
    rows: list[Row] = []
    for group, ways in audit.additivity().items():
        for number, (way, fit) in enumerate(ways.items()):
            cells = (format_fixed(fit.spearman, 3), format_fixed(fit.slope, 2), format_number(fit.ratio))
            rows.append((group if number == 0 else "", way, *cells))
    columns = ("outputs", "prediction", "Spearman", "slope", "measured / predicted")
    title = f"Damage of whole plans ({len(audit.plans)} of them), predicted and measured"
    caption = "slope of log measured over log predicted; where it is not 1, damages of layers do not add up"
    return Table(title, columns, rows, caption, words=("prediction",))


def attribution_table(audit: Audit) -> Table:
    """Mean true damage of a layer by role and task, at INT4."""
    column = audit.schemes.index(COARSE)
    tasks = by_task(audit.damage)
    rows: list[Row] = []
    for group in group_damage(audit.layers, tasks, column, lambda layer: layer.role):
        cells = [format_number(group.damage[task]) for task in tasks]
        rows.append((role_title(group.name), str(group.layers), f"{group.weights:,}", *cells))
    caption = "; ".join(f"{task}: {', '.join(names)}" for task, names in outputs_by_task(audit.damage).items())
    title = f"Who pays: true damage of one layer alone at {get_format(COARSE).short_title}, mean by role"
    return Table(title, ("role", "layers", "weights", *tasks), rows, caption)


def heat_table(audit: Audit) -> Table:
    """Summed true damage by block (role, if there are too many blocks) and format, shaded by its logarithm."""
    blocks = {layer.block for layer in audit.layers}
    by = "block" if len(blocks) <= MOST_BLOCKS else "role"
    members: dict[str, list[int]] = {}
    for row, layer in enumerate(audit.layers):
        members.setdefault(getattr(layer, by), []).append(row)
    totals = {name: audit.local[inside].sum(0) for name, inside in members.items()}
    known = [math.log10(value) for values in totals.values() for value in values if value > 0]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    rows: list[Row] = [
        (name, *(_shaded(float(value), low, high) for value in values)) for name, values in totals.items()
    ]
    title = f"True damage of camera, depth and points by {by} and format, log10 of the sum over its layers"
    return Table(title, (by, *(get_format(scheme).short_title for scheme in audit.schemes)), rows)


def class_table(audit: Audit) -> Table:
    """Damage of the trunk's layers by token class, to first order."""
    of_stacks = class_shares([layer.block for layer in audit.trunk], audit.classes, audit.class_schemes)
    classes = list(of_stacks[0].shares)
    shown: list[Row] = []
    for each in of_stacks:
        shares = ("n/a" if math.isnan(share) else f"{share:.1%}" for share in each.shares.values())
        shown.append((each.stack, get_format(each.scheme).short_title, *shares, format_fixed(each.whole, 2)))
    title = "Which tokens carry it: first-order damage of the trunk's layers, share by token class"
    return Table(title, ("stack", "format", *classes, "whole / sum"), shown, CLASS_CAPTION, words=("format",))


def geometry_table(audit: Audit) -> Table:
    """Change of figures with one layer quantised."""
    rows: list[Row] = []
    for figure, values in audit.worse.items():
        correlation = audit.worse_correlation(figure)
        cells = (audit.fp32[figure], float(np.median(np.abs(values))), float(values.max()))
        shown = f"{correlation:.2f}" if math.isfinite(correlation) else "n/a"
        rows.append((GEOMETRY[figure].title, *map(format_number, cells), shown))
    columns = ("figure", "FP32", "median change", "largest", "Spearman with damage")
    caption = "change: median of the absolute change, and the largest for the worse, over all layers and formats"
    return Table("One layer alone against ground truth", columns, rows, caption)


def stability_table(stability: Stability) -> Table:
    """Repetitions of the sketch."""
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
    enough = f"{stability.enough} are enough" if stability.enough else "more scenes than these are needed"
    caption = f"scenes against the others: from 0.99 on more change nothing that matters; {enough}"
    return Table("Is the sketch stable?", ("what", "found"), rows, caption)


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


def _tone(audit: Audit, score: ScoreResult) -> Tone:
    if score.key == audit.favoured.key:
        return "best"
    return "strong" if score.key in DEFAULTS else ""


def _interval(correlation: Correlation) -> str:
    return (
        f"{correlation.value:.3f} [{correlation.low:.2f}, {correlation.high:.2f}]"
        if math.isfinite(correlation.value)
        else "n/a"
    )


def _shaded(value: float, low: float, high: float) -> Cell:
    if value <= 0:
        return Cell("-")
    place = (math.log10(value) - low) / (high - low) if high > low else 0.0
    return Cell(f" {math.log10(value):5.1f} ", value, shade=place)
