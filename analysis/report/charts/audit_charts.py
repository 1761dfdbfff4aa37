"""An audit as two PNG files: the scores against true damage, and the attribution of damage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.audit.attribution import along_depth, by_task
from analysis.audit.plans import BUDGETS
from analysis.audit.results import ALL, DEFAULTS, LOCAL, TRACKS, Audit, ScoreResult
from analysis.report.charts.fonts import letters_of
from analysis.report.profile_tables import COARSE, role_title, task_title
from analysis.report.theme import DPI, EMPTY, FIELD_COLOURS, GREY, GRID
from analysis.report.theme import SERIES as COLOURS
from analysis.report.wording import ENGLISH, Wording
from vggtkit.core.arrays import Array
from vggtkit.core.atomic import replacing
from vggtkit.core.escaping import plain_for_charts
from vggtkit.quant import get_format

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_scores(audit: Audit, path: Path, say: Wording = ENGLISH) -> None:
    """Rank correlations, regret, sketch against truth, and whole plans; 1870 x 1375 pixels.

    Args:
        audit: what to draw.
        path: of the PNG.
        say: words, as `wording_of_charts` gives them.

    Raises:
        InputError: the file cannot be written.
    """
    with letters_of(say):
        _save(_scores(audit, say), path)


def _scores(audit: Audit, say: Wording) -> Figure:
    figure = _figure(17.0, 12.5)
    axes = figure.subplots(2, 3, width_ratios=(1.15, 1.15, 1.0))
    _draw_correlations(axes[0, 0], audit, say)
    _draw_regrets(axes[0, 1], audit, say)
    _draw_costs(axes[0, 2], audit, say)
    local, tracks = audit.groups.get(LOCAL), audit.groups.get(TRACKS)
    outputs = say.translated(LOCAL if local else ALL)
    _draw_pairs(axes[1, 0], audit, local or audit.groups[ALL], f"4  {say('Sketch')}: {outputs}", say)
    if tracks:
        _draw_pairs(axes[1, 1], audit, tracks, f"5  {say('Sketch: tracks, with their response curves')}", say)
    else:
        axes[1, 1].set_visible(False)
    _draw_plans(axes[1, 2], audit, say)
    return figure


def draw_attribution(audit: Audit, path: Path, say: Wording = ENGLISH) -> None:
    """Heat map of layers and formats, curves along the depth, tasks and token classes; 1870 x 1650 pixels.

    Args:
        audit: what to draw.
        path: of the PNG.
        say: words, as `wording_of_charts` gives them.

    Raises:
        InputError: the file cannot be written.
    """
    with letters_of(say):
        _save(_attribution(audit, say), path)


def _attribution(audit: Audit, say: Wording) -> Figure:
    figure = _figure(17.0, 15.0)
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1.0), squeeze=False)[0]
    maps = [(audit.total, f"1  {say('True damage, all outputs (log)')}")]
    if LOCAL in audit.groups:
        maps.append((audit.local, f"... {say.translated(LOCAL)}"))
    for axes, (damage, title) in zip(np.ravel(left.subplots(1, len(maps))), maps, strict=True):
        _draw_heat_map(axes, audit, damage, title, say)
    # What the model does not show, blocks along a depth or classes of tokens, has no panel.
    panels = [_draw_tasks]
    if along_depth(audit.layers, audit.total, audit.schemes.index(COARSE)):
        panels.insert(0, _draw_depth)
    if audit.trunk:
        panels.append(_draw_classes)
    for number, (axes, draw) in enumerate(zip(np.ravel(right.subplots(len(panels), 1)), panels, strict=True), start=2):
        draw(axes, audit, number, say)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=12, fontweight="bold", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_correlations(axes: Axes, audit: Audit, say: Wording) -> None:
    _title(axes, f"1  {say('Spearman with true damage (95 % bootstrap)')}")
    scores = [score for score in audit.scores if score.agreement]
    for number, group in enumerate(audit.groups):
        rows = [(row, score.agreement[group].spearman) for row, score in enumerate(scores) if group in score.agreement]
        places = [row + 0.25 * (number - 1) for row, _ in rows]
        values = [correlation.value for _, correlation in rows]
        # A bootstrap interval may leave its own estimate outside by a hair.
        errors = [[max(0.0, f.value - f.low) for _, f in rows], [max(0.0, f.high - f.value) for _, f in rows]]
        axes.errorbar(
            values, places, xerr=errors, fmt="o", markersize=5, capsize=2, color=COLOURS[number],
            label=say.translated(group),
        )  # fmt: skip
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xticks((-1, -0.5, 0, 0.5, 1))
    axes.set_yticks(range(len(scores)), [say.translated(score.title) for score in scores])
    axes.invert_yaxis()
    axes.grid(axis="y", color=GRID)
    _legend_below(axes)
    _embolden(axes, [score.key for score in scores])


def _draw_regrets(axes: Axes, audit: Audit, say: Wording) -> None:
    _title(axes, "2  " + say("Damage of its plan over the best plan's"))
    scores = sorted(audit.scores, key=lambda score: score.regret)
    for number, (budget, factor) in enumerate(BUDGETS.items()):
        values = [score.regrets[number].measured for score in scores]
        places = np.arange(len(scores)) + 0.25 * (number - 1)
        label = f"{say.translated(budget)}: {factor:g}x INT4 g128"
        axes.barh(places, values, height=0.22, color=COLOURS[number], label=label)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks(*_times(scores))
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(scores)), [say.translated(score.title) for score in scores])
    axes.invert_yaxis()
    _legend_below(axes)
    _embolden(axes, [score.key for score in scores])


def _times(scores: Sequence[ScoreResult]) -> tuple[list[int], list[str]]:
    """Ticks of regrets, and what stands at them."""
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 1000) if tick <= 2 * max(score.regret for score in scores)]
    return ticks, [f"{tick}x" for tick in ticks]


def _legend_below(axes: Axes) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.05), ncols=3, fontsize=8, frameon=False)


def _embolden(axes: Axes, keys: Sequence[str]) -> None:
    for label, key in zip(axes.get_yticklabels(), keys, strict=True):
        label.set_fontweight("bold" if key in DEFAULTS else "normal")


def _draw_costs(axes: Axes, audit: Audit, say: Wording) -> None:
    _title(axes, f"3  {say('What it costs and what it gives')}")
    axes.set_xlabel(say("forward passes (a backward pass is two)"))
    axes.set_ylabel(say("regret, mean over budgets"))
    axes.set_xscale("symlog", linthresh=10)
    axes.set_yscale("log")
    scores = [score for score in audit.scores if score.key not in ("random", "inverted")]
    axes.set_yticks(*_times(scores))
    axes.set_yticks([], minor=True)
    labelled: list[ScoreResult] = []
    for score in sorted(scores, key=lambda one: (one.passes, one.regret)):
        default = score.key in DEFAULTS  # their labels stand on the left
        axes.plot(score.passes, score.regret, "o", color=COLOURS[default])
        # Scores of about one cost lie above each other: a label close to one before is left to the list of chart 2.
        same_side = [one for one in labelled if (one.key in DEFAULTS) == default]
        if any(score.passes <= 1.5 * one.passes and _alike(score, one, 0.12) for one in same_side):
            continue
        labelled.append(score)
        in_the_way = any(score.passes < one.passes <= 30 * score.passes and _alike(score, one, 0.05) for one in scores)
        shift = (-6 if default else 6, -9 if in_the_way and not default else 0)
        axes.annotate(
            say.translated(score.title), (score.passes, score.regret), shift,
            textcoords="offset points", ha="right" if default else "left", va="center", fontsize=8,
        )  # fmt: skip
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xlim(-1, 400 * max(score.passes for score in scores))


def _alike(one: ScoreResult, other: ScoreResult, within: float) -> bool:
    return abs(math.log(one.regret / other.regret)) < within


def _draw_pairs(axes: Axes, audit: Audit, outputs: Sequence[str], title: str, say: Wording) -> None:
    """Sketched against true damage of every pair, by format; for several outputs one response curve each."""
    _title(axes, title)
    there = [name for name in outputs if name in audit.damage]
    axes.set_xlabel(say("sketched damage (first order)"))
    axes.set_ylabel(say("true damage of this layer alone, held-out scenes"))
    if not there:
        axes.text(0.5, 0.5, say("no such outputs"), transform=axes.transAxes, ha="center")
        return
    sketched = np.mean([audit.sketched[name] for name in there], axis=0)
    true = np.mean([audit.damage[name] for name in there], axis=0)
    for column, scheme in enumerate(audit.schemes):
        shown = (sketched[:, column] > 0) & (true[:, column] > 0)
        colour = COLOURS[column % len(COLOURS)]
        label = get_format(scheme).short_title
        axes.plot(sketched[shown, column], true[shown, column], "o", label=label, markersize=3, alpha=0.6, color=colour)
    _scale_by_decades(axes)
    positive = sketched[sketched > 0]
    if positive.size:
        line = np.geomspace(positive.min(), positive.max(), 50)
        axes.plot(line, line, color="black", linewidth=0.8, label=say("sketch = truth"))
        _draw_response(axes, audit, there, sketched, say)
    axes.legend(loc="lower right", fontsize=8)


def _draw_response(axes: Axes, audit: Audit, outputs: Sequence[str], sketched: Array, say: Wording) -> None:
    """Where the response curves put every pair: their mean, smoothed by order of the sketch."""
    answered = np.mean([audit.responses[name](audit.sketched[name]) for name in outputs], axis=0)
    order = np.argsort(sketched, axis=None)
    order = order[sketched.ravel()[order] > 0]
    parts = [part for part in np.array_split(order, 25) if len(part)]
    x = [float(np.median(sketched.ravel()[part])) for part in parts]
    y = [float(np.median(answered.ravel()[part])) for part in parts]
    axes.plot(x, y, color=COLOURS[1], linewidth=2, label=say("response (fitted elsewhere)"))


def _scale_by_decades(axes: Axes, which: str = "xy") -> None:
    """Logarithmic axes for what is drawn, where any of it is above zero."""
    if "x" in which and math.isfinite(axes.dataLim.minposx):
        axes.set_xscale("log")
    if "y" in which and math.isfinite(axes.dataLim.minposy):
        axes.set_yscale("log")


def _draw_plans(axes: Axes, audit: Audit, say: Wording) -> None:
    _title(axes, f"6  {say('Whole plans, all outputs')}")
    axes.set_xlabel(say("predicted damage"))
    axes.set_ylabel(say("measured damage"))
    there = list(audit.damage)
    if not audit.plans:
        return
    measured = np.array([np.mean([plan.measured[name] for name in there]) for plan in audit.plans])
    rows = [audit.predictions(plan, there) for plan in audit.plans]
    fits = audit.additivity()["all outputs"]
    for number, way in enumerate(rows[0]):
        predicted = np.array([row[way] for row in rows])
        label = say(
            "{way}: {spearman}, slope {slope}",
            way=say.translated(way), spearman=f"{fits[way].spearman:.2f}", slope=f"{fits[way].slope:.2f}",
        )  # fmt: skip
        axes.plot(predicted, measured, "osD^"[number], color=COLOURS[number], label=label, alpha=0.8)
    _scale_by_decades(axes)
    positive = measured[(measured > 0) & np.isfinite(measured)]
    if positive.size:
        line = np.geomspace(positive.min(), positive.max(), 10)
        axes.plot(line, line, color="black", linewidth=0.8)
        axes.set_ylim(positive.min() / 1.5, positive.max() * 5)
    axes.legend(loc="upper left", fontsize=8, title=say("prediction: Spearman, slope"), title_fontsize=8)


def _draw_heat_map(axes: Axes, audit: Audit, damage: Array, title: str, say: Wording) -> None:
    from matplotlib.colors import LogNorm

    _title(axes, title)
    norm = LogNorm() if (damage > 0).any() else None
    image = axes.imshow(
        np.ma.masked_less_equal(damage, 0), norm=norm, cmap=FIELD_COLOURS, aspect="auto", interpolation="nearest"
    )
    axes.set_facecolor(EMPTY)
    axes.set_xticks(
        range(len(audit.schemes)), [get_format(key).short_title for key in audit.schemes], rotation=20, ha="right"
    )
    blocks = [plain_for_charts(layer.block) for layer in audit.layers]
    starts = [row for row, block in enumerate(blocks) if row == 0 or block != blocks[row - 1]]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, [*starts[1:], len(blocks)], strict=True)]
    every = max(1, len(starts) // 40)
    axes.set_yticks(middles[::every], [blocks[start] for start in starts][::every], fontsize=8)
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="white", linewidth=0.5)
    if not (damage > 0).any():
        axes.text(0.5, 0.5, say("no damage"), transform=axes.transAxes, ha="center")
        return
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(image, ax=axes, orientation="horizontal", pad=0.01, label=say("NMSE; grey: no damage"))


def _draw_depth(axes: Axes, audit: Audit, number: int, say: Wording) -> None:
    title = say("Along the depth, {scheme}: summed over a block's layers", scheme=get_format(COARSE).short_title)
    _title(axes, f"{number}  {title}")
    column = audit.schemes.index(COARSE)
    tasks = {"mean of all outputs": audit.total} | by_task(audit.damage)
    offset, ticks, names = 0, list[int](), list[str]()
    for stack, values in along_depth(audit.layers, audit.total, column).items():
        for place, (task, damage) in enumerate(tasks.items()):
            curve = np.array(along_depth(audit.layers, damage, column)[stack])
            places = offset + np.arange(len(curve))
            colour = "black" if place == 0 else COLOURS[(place - 1) % len(COLOURS)]
            label = plain_for_charts(say.translated(task_title(task))) if offset == 0 else None
            axes.plot(places, np.where(curve > 0, curve, np.nan), ".-", color=colour, label=label)
        every = max(1, len(values) // 6)
        ticks += list(range(offset, offset + len(values), every))
        names += [plain_for_charts(f"{stack} {block}") for block in range(0, len(values), every)]
        offset += len(values) + 1
    axes.set_xticks(ticks, names, rotation=60, fontsize=8)
    _scale_by_decades(axes, "y")
    axes.set_ylabel("NMSE")
    axes.legend(fontsize=8, ncols=3)


def _draw_tasks(axes: Axes, audit: Audit, number: int, say: Wording) -> None:
    title = say("By role and task, {scheme}: summed over layers", scheme=get_format(COARSE).short_title)
    _title(axes, f"{number}  {title}")
    column = audit.schemes.index(COARSE)
    roles = list(dict.fromkeys(layer.role for layer in audit.layers))
    tasks = by_task(audit.damage)
    width = min(0.2, 0.8 / len(tasks))
    for place, (task, damage) in enumerate(tasks.items()):
        sums = [
            sum(float(damage[row, column]) for row, layer in enumerate(audit.layers) if layer.role == role)
            for role in roles
        ]
        places = np.arange(len(roles)) + width * (place - (len(tasks) - 1) / 2)
        colour = COLOURS[place % len(COLOURS)]
        heights = [value if value > 0 else math.nan for value in sums]
        axes.bar(places, heights, 0.9 * width, color=colour, label=plain_for_charts(say.translated(task_title(task))))
    _scale_by_decades(axes, "y")
    names = [plain_for_charts(say.translated(role_title(role))) for role in roles]
    axes.set_xticks(range(len(roles)), names, rotation=20, ha="right", fontsize=9)
    axes.set_ylabel("NMSE")
    axes.legend(fontsize=8, ncols=4)


def _draw_classes(axes: Axes, audit: Audit, number: int, say: Wording) -> None:
    _title(axes, f"{number}  {say('Share of damage by token class')}")
    blocks = list(dict.fromkeys(layer.block for layer in audit.trunk))
    bottom = np.zeros(len(blocks))
    sums = {
        name: np.array(
            [sum(values[row, 0] for row, layer in enumerate(audit.trunk) if layer.block == block) for block in blocks]
        )
        for name, values in audit.classes.items()
        if name != "all"
    }
    whole = np.maximum(np.sum(list(sums.values()), axis=0), 1e-300)
    for number, (name, values) in enumerate(sums.items()):
        label = plain_for_charts(say.translated(name))
        axes.bar(range(len(blocks)), values / whole, 0.85, bottom, color=COLOURS[number], label=label)
        bottom = bottom + values / whole
    every = max(1, len(blocks) // 24)
    axes.set_xticks(
        range(0, len(blocks), every), [plain_for_charts(block) for block in blocks[::every]], rotation=60, fontsize=8
    )
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
