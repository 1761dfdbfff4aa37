"""``profile.h5`` -> one layer from close by."""

from __future__ import annotations

from pathlib import Path

from analysis.inspection.layer import inspect
from analysis.inspection.report import draw_inspection, inspection_sentences, inspection_tables, inspection_values
from analysis.steps.run_folder import PROFILE, check_writable, model_of
from analysis.steps.view import View
from sensitivity import open_profile
from sensitivity.tables import COARSE


def inspect_layer(run: Path, name: str) -> View:
    """Look at one layer of the run's profile; writes ``layer-<name>.png``.

    Raises:
        InputError: no profile, not the profiled weights, or no one layer of this name.
    """
    check_writable(run)
    profile = open_profile(run / PROFILE)
    found = inspect(model_of(profile, "cpu"), profile, name, COARSE)
    path = run / f"layer-{found.layer.name}.png"
    draw_inspection(found, path)
    values = {"path": str(path), **inspection_values(found)}
    return View(values, inspection_tables(found), [*inspection_sentences(found), f"written: {path}"])
