"""``profile.h5`` -> one layer from close by."""

from __future__ import annotations

from pathlib import Path

from analysis.inspection.layer import look_at
from analysis.inspection.report import inspection_sentences, inspection_tables, inspection_values
from analysis.report.charts.inspection_charts import draw_inspection
from analysis.report.profile_tables import COARSE
from analysis.steps.run_folder import PROFILE, check_writable, subject_of_run
from analysis.steps.view import View
from sensitivity import open_profile


def inspect_layer(run: Path, name: str, model_name: str | None = None) -> View:
    """Look at one layer of the run's profile; writes ``layer-<name>.png``.

    Args:
        run: folder of the run.
        name: of the layer, or the end of it.
        model_name: what the user calls the run's model; a function runs only if it is named, or was for this folder.

    Raises:
        InputError: no profile, not the profiled weights, or no one layer of this name.
    """
    check_writable(run)
    profile = open_profile(run / PROFILE)
    inspection = look_at(subject_of_run(run, profile, "cpu", model_name).model, profile, name, COARSE)
    path = run / f"layer-{inspection.layer.name}.png"
    draw_inspection(inspection, path)
    values = {"path": str(path), **inspection_values(inspection)}
    return View(values, inspection_tables(inspection), [*inspection_sentences(inspection), f"written: {path}"])
