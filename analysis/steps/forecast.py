"""A model, a plan and a kernel table -> what inference will take, before anything runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from analysis.steps.kernels import pictures_of_size
from analysis.steps.run_folder import DEFAULT_MODEL, KERNELS, PLAN, PROFILE, check_source_of_run
from analysis.steps.view import View
from analysis.timing.activations import peak_activation_bytes
from analysis.timing.forecast import forecast_table, forecasts, savings_sentence
from mixedprec import load_plan
from mixedprec.budget import format_bytes
from sensitivity import open_profile
from vggtkit.core.errors import InputError, check_number
from vggtkit.core.memory import resident_bytes
from vggtkit.core.program import command, setting
from vggtkit.core.provenance import Progress, silent
from vggtkit.runtime.kernel_table import load_table
from vggtkit.subject import Subject, bare_subject, is_factory

MOST_PICTURES, MOST_PIXELS = 10**4, 2**15
FIRST_PASS = 25 * 10**6
"""Bytes of code and tables that torch brings in with the first pass; measured on the bundled network."""


def make_forecast(
    run: Path, images: str, *, model_name: str | None = None, size: str | None = None, progress: Progress = silent
) -> View:
    """Peak memory and time of inference on so many pictures; runs nothing.

    Args:
        run: folder of the run, whose plan and kernel table are used where there are any.
        images: numbers of pictures, with commas.
        model_name: a model, unless it is the run's.
        size: of the pictures, ``HEIGHTxWIDTH``; by default the kernel table's, else what the model is made for.
        progress: called at every number.

    Raises:
        InputError: what cannot be read, a kernel table of another machine, or a model that needs values to be run.
    """
    views = _numbers(images)
    progress("reading the model", 0, len(views) + 1)
    process = (resident_bytes() or 0) + FIRST_PASS
    subject = _subject(run, model_name)
    plan = load_plan(run / PLAN) if (run / PLAN).is_file() else None
    if plan is not None and plan.formats.keys() != {layer.name for layer in subject.with_heads(plan.heads).layers}:
        plan = None  # of another model than the one that is named
    subject = subject if plan is None else subject.with_heads(plan.heads)
    table = load_table(run / KERNELS) if (run / KERNELS).is_file() else None
    if table is not None:
        table.check(subject.layers, subject.heads, str(run / KERNELS))
    side = subject.picture_sizes[0]
    pixels = _size(size) if size else table.size if table else (side, side)
    if table is not None and pixels != table.size:
        table = None  # times of other pictures say nothing
    held = []
    for number, count in enumerate(views):
        progress(f"{count} pictures", number + 1, len(views) + 1)
        peak = peak_activation_bytes(subject, pictures_of_size(count, pixels))
        if peak is None:
            raise InputError("this model looks at values, so its shapes cannot be had without running it: no forecast")
        held.append((count, peak))
    rows = forecasts(subject, plan, table, held)
    title = f"Inference, {subject.source}, pictures of {pixels[0]}x{pixels[1]}"
    lines = [
        f"The process and its libraries take {format_bytes(process)} beside this; nothing was run.",
        savings_sentence(rows),
    ]
    if table is None:
        lines.append(
            f"No times: `{command('kernels', '--run', run)}` measures what layers take on pictures of this size."
        )
    if plan is None:
        lines.append(f"FP32 alone: `{command('plan', '--run', run)}` makes a plan to compare with.")
    values = {
        "model": subject.source, "size": list(pixels), "process_bytes": process,
        "forecasts": [asdict(row) | {"peak_bytes": row.peak_bytes} for row in rows],
    }  # fmt: skip
    return View(values, [forecast_table(rows, title)], lines)


def _subject(run: Path, model_name: str | None) -> Subject:
    """The architecture that is named, else the run's, else the bundled network's."""
    if model_name is None and (run / PROFILE).is_file():
        profile = open_profile(run / PROFILE)
        source = str(profile.facts["model"])
        check_source_of_run(run, source, None)
        return bare_subject(source, str(profile.facts["config"])).reading(profile.layers)
    if model_name is not None and is_factory(model_name):
        raise InputError(f"{setting('model', model_name)}: only VGGTs and the run's own model are forecast")
    return bare_subject(model_name or DEFAULT_MODEL)


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise InputError(f"{setting('images', text)}: write numbers of pictures, such as 8 or 1,8,32")
    numbers = sorted({int(part) for part in parts})
    for number in numbers:
        check_number("images", number, 1, MOST_PICTURES)
    return numbers


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) for part in parts):
        raise InputError(f"{setting('size', text)}: write HEIGHTxWIDTH in pixels, such as 392x518")
    height, width = map(int, parts)
    for side in (height, width):
        check_number("size", side, 1, MOST_PIXELS)
    return height, width
