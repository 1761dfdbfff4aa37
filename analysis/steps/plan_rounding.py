"""How the codes of a plan will be chosen, which layers cannot be calibrated, and what is said of both."""

from __future__ import annotations

from pathlib import Path

from analysis.report.document import Row, Table
from analysis.steps.plan_source import PlanSource
from mixedprec import Planned
from sensitivity.layer_rows import has_rows
from sensitivity.moments import UNREACHED, UNSEEN, ZEROS_OR_NOT_FINITE
from sensitivity.rounding_gain import CALIBRATED, ON_OTHERS
from vggtkit.core.errors import InputError
from vggtkit.core.program import command, setting
from vggtkit.quant import get_format
from vggtkit.quant.rounding import NEAREST, ROUNDINGS, Rounding

AUTO_ROUNDING = "auto"
CALIBRATES = "descent"
"""What `AUTO_ROUNDING` chooses codes by where plans are made for what `CALIBRATED` leaves, which it begins with."""
WHAT_IS_LEFT = "left"
"""In the place of a rounding that a plan is made for: what that of the best candidate before left of each layer's
damage, on the scenes of the selection (`sensitivity.rounding_left`)."""
MADE_FOR = "made_for"
"""Of a plan's provenance: the rounding that the best of several was made for, or `WHAT_IS_LEFT`."""
UNCALIBRATED = "uncalibrated"
"""Of a plan's provenance: the layers that are rounded to the nearest all the same, and why."""
UNUSABLE = f"{UNREACHED}, or {ZEROS_OR_NOT_FINITE}"


def pick_rounding(source: PlanSource, asked: str, *, measures: bool) -> Rounding:
    """How codes will be chosen.

    Args:
        source: of the plan.
        asked: key of `ROUNDINGS`, or `AUTO_ROUNDING`: `CALIBRATES` where the profile scored what a calibrated one
            leaves, else to the nearest.
        measures: whether trials are measured, which round to the nearest; `AUTO_ROUNDING` does then too.

    Raises:
        InputError: an unknown one, or one that calibrates, without a profile.
    """
    if asked == AUTO_ROUNDING:
        return ROUNDINGS.pick(NEAREST if measures or CALIBRATED not in source.evidence.roundings else CALIBRATES)
    rounding = ROUNDINGS.pick(asked)
    if rounding.key != NEAREST and source.profile is None:
        raise InputError(
            f"{source.evidence.origin}: {setting('rounding', rounding.key)} calibrates on the scenes of a profile; "
            f"make one first with `{command('profile')}`, or round to the nearest"
        )
    return rounding


def uncalibrated(source: PlanSource, planned: Planned) -> dict[str, str]:
    """Why layers of a plan that is calibrated are rounded to the nearest, as far as the profile knows."""
    unknown = planned.search_space.evidence.uncalibrated
    layers = {layer.name: layer for layer in planned.search_space.evidence.layers}
    reasons = {}
    for name, key in planned.plan.formats.items():
        if name in unknown and not get_format(key).is_float:
            module = source.subject.model.get_submodule(name)
            reasons[name] = UNUSABLE if has_rows(layers[name], module) else UNSEEN
    return reasons


def uncalibrated_table(planned: Planned, reasons: dict[str, str]) -> Table:
    """These layers, one by one."""
    rows: list[Row] = [(name, planned.plan.formats[name], reason) for name, reason in reasons.items()]
    columns = ("layer", "format", "why")
    return Table(f"Rounded to the nearest: {len(rows)} layers that cannot be calibrated", columns, rows, words=columns)


def rounding_sentences(source: PlanSource, planned: Planned, run: Path) -> list[str]:
    """How codes will be chosen, and of which rounding the predicted damage is."""
    plan, evidence = planned.plan, source.evidence
    if plan.rounding == NEAREST:
        return []
    title, measure = ROUNDINGS.pick(plan.rounding).title, f"`{command('evaluate', '--run', run)}` measures"
    chosen = f"Codes will be chosen by {plan.rounding} ({title})"
    if evidence.rounding == NEAREST:
        return [f"{chosen}.", f"The predicted damage is that of rounding to the nearest, {measure} the other."]
    by = "it" if evidence.rounding == plan.rounding else evidence.rounding
    on_others = source.profile is None or source.profile.facts.get(ON_OTHERS, False)
    if plan.provenance.get(MADE_FOR) == WHAT_IS_LEFT:
        by, on_others = f"{plan.rounding}, as measured on the selection scenes,", True
    optimistic = "" if on_others else ": on scenes that codes are chosen by, several times less than on others"
    return [
        f"{chosen}, on pictures like those that were profiled: calibrate on such as the model will see.",
        f"The plan is made for what {by} leaves of each layer's error, and so is the predicted damage{optimistic}.",
    ]
