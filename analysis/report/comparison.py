"""Several runs side by side: what differs, and every scheme's damage, scene by scene where the scenes are the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.evaluation.cost import SCENES_TO_JUDGE, describe_cost
from analysis.evaluation.results import Evaluation, SchemeResult, compression_ratio, format_mb, format_number
from analysis.report.document import Cell, Document, Element, Row, Section, Table, Text
from analysis.report.wording import Wording
from vggtkit.metrics.geometry import Estimate, bootstrap_interval

BOOTSTRAP_SEED = 0


def excludes_one(ratio: Estimate) -> bool:
    """Whether the interval of a ratio says that there is a difference."""
    return ratio.low > 1 or ratio.high < 1


def paired_ratio(one: Sequence[float], other: Sequence[float]) -> Estimate:
    """Damage of one over that of another, scene by scene.

    Scenes differ far more than runs do; a ratio within a scene leaves that out. Scenes where a damage is 0 or not
    finite have no ratio and are left out.

    Args:
        one: damage by scene.
        other: damage of the same scenes in the same order.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 8: paired data.

    >>> paired_ratio([2e-4, 4e-4], [1e-4, 2e-4])
    Estimate(mean=2.0, low=2.0, high=2.0, scenes=2)
    """
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if _usable(a) and _usable(b)]
    logs = [math.log(a / b) for a, b in pairs]
    if not logs:
        return Estimate(math.nan, math.nan, math.nan, 0)
    low, high = bootstrap_interval(logs, BOOTSTRAP_SEED)
    mean, low, high = (round(math.exp(value), 12) for value in (float(np.mean(logs)), low, high))
    return Estimate(mean, low, high, len(logs))


def compare(runs: Sequence[tuple[Path, Evaluation]], say: Wording) -> Document:
    """Runs side by side, the first the one that the others are compared with.

    Args:
        runs: folder and evaluation of each, at least two.
        say: in which words.
    """
    names = [str(run) for run, _ in runs]
    (_, first), *others = runs
    sections = [
        Section(say("What differs"), (_facts(runs, say), *_remarks(runs, say)), "facts"),
        Section(say("The plans"), (_plans(runs, say),), "plans"),
        Section(say("Damage of every scheme"), (_damage(runs, say),), "damage"),
    ]
    paired = [_paired(names[0], first, name, other, say) for name, (_, other) in zip(names[1:], others, strict=True)]
    sections.append(Section(say("Differences from the first"), tuple(paired), "differences"))
    return Document(say("Comparison of {count} runs", count=len(runs)), tuple(sections), say.language)


def comparison_values(runs: Sequence[tuple[Path, Evaluation]]) -> list[dict[str, object]]:
    """The differences as plain values, for ``--json``."""
    (first_run, first), *others = runs
    differences: list[dict[str, object]] = []
    for run, other in others:
        for key in _shared_keys(first, other):
            ratio = _ratio(first, other, key)
            differences.append(
                {"run": str(run), "against": str(first_run), "key": key, "ratio": ratio.mean, "low": ratio.low,
                 "high": ratio.high, "paired_scenes": ratio.scenes if _are_paired(first, other) else 0}
            )  # fmt: skip
    return differences


def _usable(damage: float) -> bool:
    return math.isfinite(damage) and damage > 0


def _are_paired(one: Evaluation, other: Evaluation) -> bool:
    """Whether both were measured on the same scenes, by what the model saw of them."""
    prints = [each.provenance.get("scene_fingerprint") for each in (one, other)]
    return prints[0] is not None and prints[0] == prints[1]


def _shared_keys(one: Evaluation, other: Evaluation) -> list[str]:
    there = {result.key for result in other.quantized}
    return [result.key for result in one.quantized if result.key in there]


def _of(evaluation: Evaluation, key: str) -> SchemeResult:
    return next(result for result in evaluation.results if result.key == key)


def _ratio(first: Evaluation, other: Evaluation, key: str) -> Estimate:
    """The other's damage over the first's; without an interval where the scenes are not the same."""
    mine, theirs = _of(other, key), _of(first, key)
    if _are_paired(first, other) and len(mine.per_scene) == len(theirs.per_scene):
        return paired_ratio(mine.per_scene, theirs.per_scene)
    both = _usable(mine.damage) and _usable(theirs.damage)
    return Estimate(mine.damage / theirs.damage if both else math.nan, math.nan, math.nan, 0)


def _facts(runs: Sequence[tuple[Path, Evaluation]], say: Wording) -> Table:
    """Facts of every run; those that all share are quiet."""
    facts = {
        say("model"): [each.model for _, each in runs],
        say("weights"): [say.translated(each.weights_note) for _, each in runs],
        say("fingerprint of the weights"): [str(each.provenance.get("model_fingerprint", "?")) for _, each in runs],
        say("evaluation scenes"): [f"{len(each.scenes)}: {', '.join(each.scenes[:3])} ..." for _, each in runs],
        say("their fingerprint"): [str(each.provenance.get("scene_fingerprint", "?")) for _, each in runs],
        say("calibration scenes"): [str(len(each.calibration_scenes)) for _, each in runs],
        say("seed"): [str(each.provenance.get("seed", "?")) for _, each in runs],
        "torch": [str(each.provenance.get("torch", "?")) for _, each in runs],
        say("command"): [str(each.provenance.get("command", "?")) for _, each in runs],
    }
    rows: list[Row] = []
    for name, row in facts.items():
        tone: Cell = Cell(name, tone="strong" if len(set(row)) > 1 else "")
        rows.append((tone, *row))
    columns = (say("fact"), *(str(run) for run, _ in runs))
    return Table(say("Facts"), columns, rows, say("Bold: what is not the same in all runs."), words=columns[1:])


def _remarks(runs: Sequence[tuple[Path, Evaluation]], say: Wording) -> list[Element]:
    (_, first), *others = runs
    print_of = "model_fingerprint"
    foreign = [str(run) for run, each in others if each.provenance.get(print_of) != first.provenance.get(print_of)]
    apart = [str(run) for run, each in others if not _are_paired(first, each)]
    remarks = []
    if foreign:
        remarks.append(say("Of another network than the first: {names}.", names=", ".join(foreign)))
    if apart:
        sentence = say(
            "Measured on other scenes than the first: {names}. Their differences mix schemes and scenes and have no "
            "interval.",
            names=", ".join(apart),
        )
        remarks.append(sentence)
    return [Text(tuple(remarks), "warning")] if remarks else []


def _plans(runs: Sequence[tuple[Path, Evaluation]], say: Wording) -> Table:
    rows: list[Row] = []
    for run, each in runs:
        plan = each.plan
        if plan is None:
            rows.append((str(run), say("no plan"), "", "", "", "", ""))
            continue
        ratio = compression_ratio(plan, each.results[0])
        speed = "n/a" if plan.speed_ratio is None else f"{plan.speed_ratio:.2f}x"
        size = Cell(format_mb(plan.size_bytes), plan.size_bytes)
        damage = Cell(format_number(plan.damage), plan.damage)
        rows.append(
            (
                str(run),
                plan.title,
                size,
                f"{ratio:.2f}x",
                damage,
                speed,
                say.translated(describe_cost(plan.changes, intervals=True) or "n/a"),
            )
        )
    columns = tuple(map(say, ("run", "its plan", "size MB", "smaller by", "damage", "speed", "change from FP32")))
    return Table(say("Plans"), columns, rows, words=(columns[1], columns[6]))


def _damage(runs: Sequence[tuple[Path, Evaluation]], say: Wording) -> Table:
    keys = dict.fromkeys(result.key for _, each in runs for result in each.quantized)
    rows: list[Row] = []
    for key in keys:
        cells: list[str | Cell] = []
        titles: dict[str, None] = {}
        for _, each in runs:
            result = next((one for one in each.quantized if one.key == key), None)
            cells.append("n/a" if result is None else Cell(format_number(result.damage), result.damage))
            titles |= {} if result is None else {result.title: None}
        rows.append((next(iter(titles)) if len(titles) == 1 else key, *cells))
    return Table(say("Damage"), (say("scheme"), *(str(run) for run, _ in runs)), rows)


def _paired(first_name: str, first: Evaluation, name: str, other: Evaluation, say: Wording) -> Table:
    rows: list[Row] = []
    for key in _shared_keys(first, other):
        ratio, mine, theirs = _ratio(first, other, key), _of(other, key), _of(first, key)
        size = mine.size_bytes / theirs.size_bytes
        interval = f"[{format_number(ratio.low)}, {format_number(ratio.high)}]" if math.isfinite(ratio.low) else "n/a"
        differs = "n/a" if ratio.scenes < SCENES_TO_JUDGE else say("yes") if excludes_one(ratio) else say("no")
        title = mine.title if mine.title == theirs.title else key
        rows.append(
            (title, Cell(f"{size:.3f}", size), Cell(format_number(ratio.mean), ratio.mean), interval, differs)
        )  # fmt: skip
    columns = ("scheme", "bytes / first", "damage / first", "95 % interval", "beyond noise")
    caption = say(
        "Geometric mean over scenes of the ratio within each scene; the interval is a bootstrap over scenes. Intervals "
        "of fewer than about ten scenes are too narrow; of fewer than {count} nothing is called more than noise.",
        count=SCENES_TO_JUDGE,
    )
    if not _are_paired(first, other):
        caption = say("Ratio of the means; as the scenes are not the same, there is no interval.")
    heading = say("{run} against {first}", run=name, first=first_name)
    return Table(heading, tuple(map(say, columns)), rows, caption)
