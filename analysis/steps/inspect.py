"""``profile.h5`` -> one layer from close by."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.inspection.layer import look_at
from analysis.inspection.report import inspection_sentences, inspection_tables, inspection_values
from analysis.inspection.results_file import inspection_to_values
from analysis.report.charts.inspection_charts import draw_inspection
from analysis.report.profile_tables import COARSE
from analysis.steps.run_folder import PROFILE, check_writable, subject_of_run
from analysis.steps.view import View
from sensitivity import open_profile
from vggtkit.core.atomic import replacing_all
from vggtkit.core.provenance import provenance


def inspect_layer(run: Path, name: str, model_name: str | None = None) -> View:
    """Look at one layer of the run's profile; writes ``layer-<name>.png`` and ``layer-<name>.json``.

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
    paths = [run / f"layer-{inspection.layer.name}{suffix}" for suffix in (".png", ".json")]
    facts = provenance(model_fingerprint=profile.facts["model_fingerprint"])
    with replacing_all(paths) as (chart, results):
        draw_inspection(inspection, chart)
        results.write_text(
            json.dumps(inspection_to_values(inspection, facts), allow_nan=False) + "\n", encoding="utf-8"
        )
    values = {"path": str(paths[0]), **inspection_values(inspection)}
    written = ", ".join(map(str, paths))
    return View(values, inspection_tables(inspection), [*inspection_sentences(inspection), f"written: {written}"])
