"""The weight formats, listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from analysis.steps.view import View
from quant import Format


def formats_view(known: Mapping[str, Format], uniform: Sequence[str], candidates: Sequence[str]) -> View:
    """The formats, with the bits that a weight of a large layer takes."""
    table = Table(title="Weight formats", title_justify="left")
    for name in ("key", "format", "bits per weight", "uniform scheme", "in plans"):
        table.add_column(name, justify="right" if name == "bits per weight" else "left")
    values = {}
    for key, kind in known.items():
        bits = kind.bits + (16 / kind.group_size if kind.group_size else 0)
        values[key] = {"title": kind.title, "bits_per_weight": bits, "in_plans": key in candidates}
        table.add_row(key, kind.title, f"{bits:g}", "yes" if key in uniform else "", "yes" if key in candidates else "")
    return View(
        values,
        (table,),
        ("Per-tensor and per-channel scales are not counted here; they add less than 0.02 bits.",),
    )
