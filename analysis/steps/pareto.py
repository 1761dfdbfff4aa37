"""``profile.h5`` and held-out scenes -> size against damage: ``pareto.json`` and ``pareto.png``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from analysis.report.pareto_chart import draw_pareto
from analysis.search.pareto import BASELINE, UNIFORM, pareto_table, to_json, trace_pareto
from analysis.steps.plan import RUNNABLE_FORMATS
from analysis.steps.plan_source import plan_source
from analysis.steps.run_folder import check_writable
from analysis.steps.view import View
from mixedprec import Request, solve_plan
from mixedprec.checkpoint import fp32_bytes
from mixedprec.evidence import SKETCH
from vggtkit.core.atomic import replacing_all
from vggtkit.core.errors import check_number
from vggtkit.core.provenance import Progress, provenance, silent

RESULTS, CHART = "pareto.json", "pareto.png"


def make_pareto(
    run: Path,
    request: Request,
    *,
    model_name: str | None = None,
    score: str = SKETCH,
    budgets: int = 50,
    measure: int = 8,
    device: str = "auto",
    progress: Progress = silent,
) -> View:
    """Size against damage, over all budgets; writes ``pareto.json`` and ``pareto.png``.

    Args:
        run: folder of the run.
        request: settings of the plans; its budget is where the baselines stand.
        model_name: a model without a profile; then nothing is measured.
        score: key of the score that damage is taken from.
        budgets: points of the predicted front.
        measure: how many of them are measured on held-out scenes; 0 predicts only.
        device: for measurements.
        progress: called at every step.

    Raises:
        InputError: as `make_plan`.
    """
    check_number("points", budgets, 2, 10**4)
    check_number("measure", measure, 0, budgets)
    check_writable(run)
    progress("solving", 0, 1)
    source = plan_source(run, model_name, score=score, device=device)
    if request.formats.may_widen:
        request = replace(request, formats=RUNNABLE_FORMATS)
    start = solve_plan(source.resolve(request))
    evaluator = source.evaluator(request, "evaluation") if measure and source.profile else None
    facts = provenance(
        model_fingerprint=start.plan.model_fingerprint,
        calibration_scene_fingerprint=source.evidence.facts["scene_fingerprint"],
        score=source.evidence.score,
        formats=list(start.palette),
    )
    result = trace_pareto(
        start,
        evaluator,
        budgets=budgets,
        measure=measure,
        facts=facts,
        fp32_bytes=fp32_bytes(source.subject),
        progress=progress,
    )
    with replacing_all([run / RESULTS, run / CHART]) as (results, chart):
        results.write_text(to_json(result), encoding="utf-8")
        draw_pareto(result, chart)
    beating = result.beating()
    others = len(result.of_kind(UNIFORM)) + len(result.of_kind(BASELINE))
    lines = [
        *source.notes,
        f"{budgets} budgets solved in {result.solve_seconds:.1f} s; baselines at {start.plan.size_bytes / 1e6:.2f} MB.",
        "NOT AHEAD everywhere: " + ", ".join(point.title for point in beating)
        if beating
        else f"No uniform scheme or baseline ({others} measured) beats a measured plan of its bytes or more."
        if evaluator
        else "Predicted only; nothing was measured.",
        f"written: {run / RESULTS}, {run / CHART}",
    ]
    values = json.loads(to_json(result)) | {"path": str(run / RESULTS)}
    return View(values, (pareto_table(result),), lines)
