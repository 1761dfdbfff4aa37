"""Runs of one model, or sources of scenes -> does a sensitivity travel? ``transfer.json`` and ``transfer.png``."""

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
from analysis.steps.profile import make_profile
from analysis.steps.run_folder import PROFILE, check_writable, held_out_scenes, subject_of_run
from analysis.steps.view import View
from mixedprec import Evidence, parse_request
from sensitivity import open_profile
from vggtkit.core.atomic import replacing_all
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Workers
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, Say, provenance, silent
from vggtkit.core.seal import digest_of, sealed
from vggtkit.quant.rounding import NEAREST
from vggtkit.scenes import SCENE_KINDS, SceneSource, parse_scenes

RESULTS, CHART = "transfer.json", "transfer.png"
SCENES = 8
"""Of calibration, that a source is profiled on, where nobody asks for a number."""


def make_transfer(
    named: Sequence[str | Path],
    *,
    budget: str,
    home: Path | None = None,
    num_scenes: int = 0,
    device: str = "auto",
    model_name: str | None = None,
    workers: Workers | None = None,
    progress: Progress = silent,
    say: Say = lambda _: None,
) -> View:
    """Plans of every run judged on the scenes of every other; writes two files into the folder of the first run.

    Args:
        named: folders with a ``profile.h5`` each, of one model, on scenes of several sources; or sources, as
            ``--scenes`` takes them, which are profiled first.
        budget: of all plans.
        home: where to write if no run is named.
        num_scenes: of every source to judge on, at most; 0 for as many as were profiled.
        device: as `pick_device` takes it.
        model_name: what the user calls the runs' model.
        workers: who measures; this process by default.
        progress: told about every measurement.
        say: told of profiles that are made.

    Raises:
        InputError: as `transfer`, sources alone without a model, or a run without a profile or without scenes that were
            not profiled.
    """
    if len(named) < 2:
        raise InputError(f"{setting('transfer')}: give two runs or more, each profiled on scenes of its own")
    own = [Path(name) for name in named if not is_source(name)]
    folder = own[0] if own else home or Path()
    check_writable(folder)
    runs = [
        _profiled(str(name), folder, own, model_name, num_scenes, device, workers, progress, say)
        if is_source(name)
        else Path(name)
        for name in named
    ]
    names = [str(name) if is_source(name) else short for name, short in zip(named, _short_names(runs), strict=True)]
    progress("loading", 0, 1)
    places = [_place(run, name, num_scenes, device, model_name) for run, name in zip(runs, names, strict=True)]
    request = parse_request(budget, formats=str(RUNNABLE_FORMATS))
    travelled = transfer(places, request, workers=workers, progress=progress)
    facts = provenance(
        model_fingerprint=places[0].evidence.facts["model_fingerprint"],
        scene_fingerprints={place.name: place.evidence.facts["scene_fingerprint"] for place in places},
    )
    values: dict[str, Any] = null_if_not_finite(transfer_values(travelled))  # type: ignore[assignment]
    paths = [folder / RESULTS, folder / CHART]
    with replacing_all(paths) as (results, chart):
        document = json.dumps(sealed({"schema_version": 1, "provenance": facts} | values), indent=2, allow_nan=False)
        results.write_text(document + "\n", encoding="utf-8")
        draw_transfer(travelled, chart)
    lines = [*transfer_sentences(travelled), f"written: {', '.join(map(str, paths))}"]
    view = View({"path": str(paths[0])} | values, transfer_tables(travelled), lines)
    return view.of_weights(str(places[0].evidence.facts["weights"]))


def is_source(name: str | Path) -> bool:
    """Whether a name is of scenes and not of a run's folder.

    >>> is_source("photos:holiday"), is_source("synthetic"), is_source("runs/rooms")
    (True, True, False)
    """
    kind, colon, _ = str(name).partition(":")
    return kind in SCENE_KINDS and bool(colon) == bool(SCENE_KINDS[kind].place) and not (Path(name) / PROFILE).is_file()


def _profiled(
    text: str, folder: Path, own: Sequence[Path], model_name: str | None, num_scenes: int, device: str,
    workers: Workers | None, progress: Progress, say: Say,
) -> Path:  # fmt: skip
    """The folder of a source's profile, below that of the first run; made where it is not there yet."""
    if model_name is None and not own:
        raise InputError(f"{setting('transfer')} {text}: name a run of the network too, or {setting('model')}")
    (kind, where), count = parse_scenes(text), num_scenes or SCENES
    place = folder / "transfer" / f"{kind}-{Path(where or '').name or 'rooms'}-{digest_of([text, count])[:6]}"
    if not (place / PROFILE).is_file():
        facts = open_profile(own[0] / PROFILE).facts if own else {"weights": "trained", "model": model_name}
        source = SceneSource(kind, where, count)
        make_profile(
            place, model_name or str(facts["model"]), "random" if facts["weights"] == "random" else "pretrained",
            source, probes=0, disk_budget="4GB", device=device, seed=0, workers=workers, rounding=NEAREST,
            progress=progress, say=say,
        )  # fmt: skip
    return place


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
