"""A model and pictures -> ``kernels.json``: what layers take on this machine; and what follows from it for a plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from analysis.steps.run_folder import (
    DEFAULT_MODEL,
    KERNELS,
    PROFILE,
    check_source_of_run,
    check_writable,
    scenes_for,
    subject_of_run,
)
from analysis.steps.view import View
from analysis.timing.activations import peak_activation_bytes
from analysis.timing.measure import TABLE_SECONDS, MeasuredModel, measure_kernels
from analysis.timing.shallow import shallow
from analysis.timing.show import kernel_tables, whole_seconds
from mixedprec.timing import Conditions
from sensitivity import open_profile
from vggtkit.core.errors import InputError, check_number
from vggtkit.core.program import command, setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.runtime.kernel_table import KernelTable, load_table, save_table
from vggtkit.scenes import Scene, SceneSource
from vggtkit.subject import Subject, bare_subject, is_factory, open_subject


def make_kernels(
    run: Path,
    choose_scenes: Callable[[SceneSource | None], SceneSource],
    *,
    model_name: str | None = None,
    weights: str = "pretrained",
    heads: tuple[str, ...] | None = None,
    seconds: int = TABLE_SECONDS,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> View:
    """Measure a model's layers in every execution; writes ``kernels.json``.

    Args:
        run: folder of the run; its profile says which model and pictures where nothing else is named.
        choose_scenes: where pictures come from, given those of the profile.
        model_name: as `load_vggt` takes it.
        weights: ``"pretrained"`` or ``"random"``; of a large VGGT none are needed.
        heads: to keep; None for all.
        seconds: after which no further pass begins.
        progress: told of every pass.
        say: told what was done to make the model loadable.

    Raises:
        InputError: as `open_subject` and `load_scenes`.
    """
    check_number("seconds", seconds, 1)
    check_writable(run)
    begun = time.perf_counter()
    subject, source = _model_and_pictures(run, choose_scenes, model_name, weights, say)
    if heads is not None:
        subject = subject.with_heads(heads)
    stand_in = shallow(subject)
    model = MeasuredModel(subject, {}, {}) if stand_in is None else MeasuredModel(
        stand_in.subject, stand_in.depths, stand_in.repeats
    )  # fmt: skip
    scene = scenes_for(subject, replace(source, count=1), "calibration")[0]
    table = measure_kernels(model, scene, subject.source or DEFAULT_MODEL, seconds=seconds, progress=progress)
    save_table(table, run / KERNELS)
    return _view(table, subject, run, time.perf_counter() - begun)


def _view(table: KernelTable, subject: Subject, run: Path, took: float) -> View:
    layers = [layer for layer in subject.layers if table.measured_as(layer.name) in table.rows]
    times = table.at(table.views)
    whole = whole_seconds(table, times, layers)
    machine = table.machine
    said = ", ".join(f"{how} {value:.3f} s" for how, value in whole.items())
    lines = [
        f"{machine['processor']} ({machine['instructions']}), {machine['threads']} threads, torch {machine['torch']}: "
        f"{table.kernels}",
        f"A pass over {table.views} pictures with every layer in one execution: {said}.",
        f"Measured with {', '.join(str(one.views) for one in table.passes)} pictures in {took:.0f} s"
        + (f"; {max(table.depths.values())} blocks alike were measured once." if table.depths else "."),
        f"written: {run / KERNELS}",
    ]
    values = {
        "path": str(run / KERNELS), "model": table.model, "views": table.views, "size": list(table.size),
        "machine": dict(machine), "seconds": whole, "took_seconds": took,
        "layers": {name: dict(ways) for name, ways in times.seconds.items()},
        "rest": {mode: dict(stages) for mode, stages in times.rest.items()},
    }  # fmt: skip
    return View(values, kernel_tables(table, layers), lines)


def _model_and_pictures(
    run: Path,
    choose_scenes: Callable[[SceneSource | None], SceneSource],
    model_name: str | None,
    weights: str,
    say: Callable[[str], None],
) -> tuple[Subject, SceneSource]:
    """What is named, else what the run has profiled, else the bundled network."""
    if model_name is None and (run / PROFILE).is_file():
        profile = open_profile(run / PROFILE)
        check_source_of_run(run, str(profile.facts["model"]), None)
        source = choose_scenes(SceneSource.from_dict(profile.facts["scene_source"]))
        bare = bare_subject(str(profile.facts["model"]), str(profile.facts["config"]))
        subject = bare if shallow(bare) else subject_of_run(run, profile, "cpu", str(profile.facts["model"]), say)
        return subject, source
    name = model_name or DEFAULT_MODEL
    bare_source = None if is_factory(name) else bare_subject(name)
    if bare_source is not None and shallow(bare_source):
        return bare_source, choose_scenes(None)
    return open_subject(name, weights, "cpu", say=say), choose_scenes(None)


def completed(run: Path, asked: Conditions, subject: Subject, heads: tuple[str, ...]) -> Conditions:
    """Conditions with the run's kernel table and the forecast of activations.

    Args:
        run: folder of the run.
        asked: limits as the user gave them.
        subject: the whole model; without values.
        heads: that the plan keeps.

    Raises:
        InputError: a time is asked for, and there is no table, or one of another machine or model.
    """
    table = None
    if asked.max_time is not None or (run / KERNELS).is_file():
        table = load_table(run / KERNELS)
        kept = subject.with_heads(heads)
        table.check(kept.layers, heads, str(run / KERNELS))
    if table is None:
        raise InputError(
            f"{setting('max_memory')}: how large pictures are is said by a kernel table; "
            f"make one with `{command('kernels', '--run', run)}`"
        )
    views = asked.views or table.views
    held = 0
    if asked.max_memory is not None:
        scene = pictures_of_size(views, table.size)
        peak = peak_activation_bytes(subject.with_heads(heads), scene)
        if peak is None:
            raise InputError(
                f"{setting('max_memory')}: this model cannot be run without values, so nothing is forecast"
            )
        held = peak
    return replace(asked, views=views, table=table, activation_bytes=held)


def pictures_of_size(views: int, size: tuple[int, int]) -> Scene:
    """Pictures of which only number and size matter."""
    return Scene(f"{views} pictures", torch.zeros(views, 3, *size), torch.zeros(8, 2))
