"""The weight formats, listed."""

from __future__ import annotations

from pathlib import Path

from analysis.report.document import Row, Table
from analysis.steps.run_folder import DEFAULT_MODEL, PROFILE, check_source_of_run
from analysis.steps.view import View
from mixedprec import overhead_bytes
from sensitivity import open_profile
from vggtkit.model import resolve_source
from vggtkit.quant import FORMATS, UNIFORM_SCHEMES, quantized_nbytes
from vggtkit.subject import Subject, bare_subject


def formats_view(run: Path, model_name: str | None = None) -> View:
    """The formats, with what they take for the model at hand.

    Args:
        run: whose profile names the model, where there is one.
        model_name: another model; its architecture suffices.

    Raises:
        InputError: there is no such model.
    """
    subject = _subject_at_hand(run, model_name)
    name, layers, overhead = subject.source, subject.layers, overhead_bytes(subject)
    weights = sum(layer.weights for layer in layers)
    rows, values = list[Row](), {}
    for key, kind in FORMATS.items():
        size = sum(quantized_nbytes(layer.shape, key) for layer in layers)
        uniform, scored = key in UNIFORM_SCHEMES, kind.candidate
        values[key] = {
            "title": kind.title,
            "bits_per_weight": 8 * size / weights,
            "size_bytes": overhead + size,
            "uniform": uniform,
            "in_plans": scored,
        }
        marks = ("yes" if mark else "" for mark in (uniform, scored))
        rows.append((key, kind.title, f"{8 * size / weights:.3f}", f"{(overhead + size) / 1e6:.2f}", *marks))
    lines = (
        "Bits per weight count scales, zero points and multipliers; the file also its header and what is kept in FP16.",
        "Two-level formats are INT8 per channel bit for bit, for kernels that know only that (docs/methods.md).",
    )
    columns = ("key", "format", "bits per weight", "file MB", "uniform scheme", "scored for plans")
    words = ("format", "uniform scheme", "scored for plans")
    table = Table(f"Weight formats, and the file of {name} in each", columns, rows, words=words)
    return View(values, (table,), lines)


def _subject_at_hand(run: Path, named: str | None) -> Subject:
    """The run's model, where there is one and no other is named; its architecture suffices."""
    if (run / PROFILE).is_file():
        facts = open_profile(run / PROFILE).facts
        source = str(facts["model"])
        if named is None or resolve_source(named) == source:
            check_source_of_run(run, source, named)
            return bare_subject(source, str(facts["config"]))
    return bare_subject(named or DEFAULT_MODEL)
