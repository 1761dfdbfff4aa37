"""Several runs of one model -> does a sensitivity travel? ``transfer.json`` and ``transfer.png``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.audit.transfer import SceneSide, transfer
from analysis.audit.transfer_view import transfer_sentences, transfer_tables, transfer_values
from analysis.evaluation.evaluator import Evaluator
from analysis.evaluation.results import null_if_not_finite
from analysis.report.charts.transfer_chart import draw_transfer
from analysis.steps.plan import RUNNABLE_FORMATS
from analysis.steps.run_folder import PROFILE, check_writable, held_out_scenes, subject_of_run
from analysis.steps.view import View
from mixedprec import Evidence, parse_request
from sensitivity import open_profile
from vggtkit.core.atomic import replacing_all
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Workers
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.core.seal import sealed
from vggtkit.scenes import SceneSource

RESULTS, CHART = "transfer.json", "transfer.png"


def make_transfer(
    runs: Sequence[Path],
    *,
    budget: str,
    num_scenes: int = 0,
    device: str = "auto",
    model_name: str | None = None,
    workers: Workers | None = None,
    progress: Progress = silent,
) -> View:
    """Plans of every run judged on the scenes of every other; writes two files into the folder of the first.

    Args:
        runs: folders with a ``profile.h5`` each, of one model, on scenes of several sources.
        budget: of all plans.
        num_scenes: of every source to judge on, at most; 0 for as many as were profiled.
        device: as `pick_device` takes it.
        model_name: what the user calls the runs' model.
        workers: who measures; this process by default.
        progress: told about every measurement.

    Raises:
        InputError: as `transfer`, or a run without a profile or without scenes that were not profiled.
    """
    if len(runs) < 2:
        raise InputError(f"{setting('transfer')}: give two runs or more, each profiled on scenes of its own")
    check_writable(runs[0])
    names = _short_names(runs)
    progress("loading", 0, 1)
    places = [_place(run, name, num_scenes, device, model_name) for run, name in zip(runs, names, strict=True)]
    request = parse_request(budget, formats=str(RUNNABLE_FORMATS))
    travelled = transfer(places, request, workers=workers, progress=progress)
    facts = provenance(
        model_fingerprint=places[0].evidence.facts["model_fingerprint"],
        scene_fingerprints={place.name: place.evidence.facts["scene_fingerprint"] for place in places},
    )
    values: dict[str, Any] = null_if_not_finite(transfer_values(travelled))  # type: ignore[assignment]
    paths = [runs[0] / RESULTS, runs[0] / CHART]
    with replacing_all(paths) as (results, chart):
        document = json.dumps(sealed({"schema_version": 1, "provenance": facts} | values), indent=2, allow_nan=False)
        results.write_text(document + "\n", encoding="utf-8")
        draw_transfer(travelled, chart)
    lines = [*transfer_sentences(travelled), f"written: {', '.join(map(str, paths))}"]
    view = View({"path": str(paths[0])} | values, transfer_tables(travelled), lines)
    return view.of_weights(str(places[0].evidence.facts["weights"]))


def _place(run: Path, name: str, num_scenes: int, device: str, model_name: str | None) -> SceneSide:
    profile = open_profile(run / PROFILE)
    subject = subject_of_run(run, profile, device, model_name)
    source = SceneSource.from_dict(profile.facts["scene_source"])
    scenes = held_out_scenes(run, subject, profile, source)
    return SceneSide(name, Evidence.of(profile), Evaluator(subject, scenes[: num_scenes or None]))


def _short_names(runs: Sequence[Path]) -> list[str]:
    """The folders' own names where these tell them apart, else their whole paths."""
    own = [Path(os.path.abspath(run)).name for run in runs]  # noqa: PTH100 - links stay as they are called
    return own if len(set(own)) == len(own) else [str(run) for run in runs]
