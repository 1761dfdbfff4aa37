"""``profile.h5`` and held-out scenes -> size against damage: ``pareto.json`` and ``pareto.png``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from analysis.report.charts.pareto_chart import draw_pareto
from analysis.report.charts.time_chart import draw_time
from analysis.search.pareto import BASELINE, UNIFORM, pareto_table, pareto_to_json, trace_pareto
from analysis.search.time_front import NEVER, TimeFront, time_table, trace_time
from analysis.steps.kernels import completed
from analysis.steps.plan import RUNNABLE_FORMATS
from analysis.steps.plan_source import PlanSource, plan_source
from analysis.steps.run_folder import check_writable
from analysis.steps.view import View
from mixedprec import Request, solve_plan
from mixedprec.checkpoint import fp32_bytes
from mixedprec.evidence import SKETCH
from mixedprec.timing import Conditions
from vggtkit.core.atomic import replacing_all
from vggtkit.core.errors import InputError, check_number
from vggtkit.core.executors import Workers
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.core.seal import sealed

RESULTS, CHART, TIME_CHART = "pareto.json", "pareto.png", "pareto_time.png"
AXES_OFFERED = ("size,damage", "size,time,damage")


def make_pareto(
    run: Path,
    request: Request,
    *,
    model_name: str | None = None,
    score: str = SKETCH,
    budgets: int = 50,
    measure: int = 8,
    axes: str = AXES_OFFERED[0],
    device: str = "auto",
    workers: Workers | None = None,
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
        axes: one of `AXES_OFFERED`; with time also the predicted front over time, drawn in ``pareto_time.png``.
        device: for measurements.
        workers: who measures; this process by default.
        progress: called at every step.

    Raises:
        InputError: as `make_plan`, or unknown axes.
    """
    if axes not in AXES_OFFERED:
        raise InputError(f"{setting('axes', axes)}: not known; use {' or '.join(AXES_OFFERED)}")
    check_number("points", budgets, 2, 10**4)
    check_number("measure", measure, 0, budgets)
    check_writable(run)
    progress("solving", 0, 1)
    source = plan_source(run, model_name, score=score, device=device)
    if request.formats.may_widen:
        request = replace(request, formats=RUNNABLE_FORMATS)
    start = solve_plan(source.resolve(request))
    timed = _timed(run, source, request, progress) if axes == AXES_OFFERED[1] else None
    evaluator = source.evaluator(request, "evaluation") if measure and source.profile else None
    facts = provenance(
        model_fingerprint=start.plan.model_fingerprint,
        calibration_scene_fingerprint=source.evidence.facts["scene_fingerprint"],
        score=source.evidence.score,
        formats=list(start.palette),
    )
    result = trace_pareto(
        start, evaluator, budgets=budgets, measure=measure, facts=facts, fp32_bytes=fp32_bytes(source.subject),
        workers=workers, progress=progress,
    )  # fmt: skip
    values = json.loads(pareto_to_json(result)) | ({} if timed is None else timed.values())
    names = [RESULTS, CHART, *([TIME_CHART] if timed else [])]
    with replacing_all([run / name for name in names]) as files:
        files[0].write_text(json.dumps(sealed(values), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        draw_pareto(result, files[1])
        if timed is not None:
            draw_time(timed.points, result.model, timed.fp32_seconds, files[2])
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
        f"written: {', '.join(str(run / name) for name in names)}",
    ]
    tables = [pareto_table(result), *([time_table(timed.points, timed.fp32_seconds)] if timed else [])]
    return View(values | {"path": str(run / RESULTS)}, tables, lines)


def _timed(run: Path, source: PlanSource, request: Request, progress: Progress) -> TimeFront:
    """The predicted front over time, from the run's kernel table."""
    heads = source.subject.heads if request.heads is None else request.heads
    conditions = completed(run, Conditions(0, max_time=NEVER), source.subject, heads)
    resolved = source.resolve(replace(request, conditions=conditions))
    assert resolved.search_space.timing is not None
    return TimeFront(tuple(trace_time(resolved, progress=progress)), resolved.search_space.timing.fp32_seconds)
