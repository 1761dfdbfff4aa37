"""Documents as JSON, for machines; pictures inside of charts are left out."""

from __future__ import annotations

import json
import math
from typing import Any

from analysis.report.document import (
    Bars,
    Chart,
    Document,
    Element,
    HeatMap,
    Illustration,
    Scatter,
    Table,
    Text,
    as_cell,
)
from analysis.report.renderers.base import RENDERERS, Renderer


def render(document: Document) -> str:
    """A document as strict JSON.

    >>> from analysis.report.document import Section
    >>> json.loads(render(Document("Report", (Section("Sizes", (Text(("All fit.",)),)),))))["sections"][0]["title"]
    'Sizes'
    """
    return json.dumps(document_values(document), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def document_values(document: Document) -> dict[str, Any]:
    """A document as values that JSON can hold."""
    sections = [
        {"title": section.title, "key": section.key, "blocks": [_block(block) for block in section.blocks]}
        for section in document.sections
    ]
    return {"title": document.title, "language": document.language, "sections": sections}


def _block(block: Element) -> dict[str, Any]:
    if isinstance(block, Text):
        return {"kind": "text", "mood": block.mood, "lines": list(block.lines)}
    if isinstance(block, Table):
        cells = [[as_cell(cell) for cell in row] for row in block.rows]
        rows = [[{"text": one.text, "value": finite(one.value)} for one in row] for row in cells]
        return {"kind": "table", "title": block.title, "columns": list(block.columns), "rows": rows,
                "caption": block.caption}  # fmt: skip
    if isinstance(block, Illustration):
        return {"kind": "picture", "title": block.title, "path": block.path}
    return chart(block)


def chart(block: Chart) -> dict[str, Any]:
    """A chart's numbers."""
    common = {"title": block.title, "caption": block.caption}
    if isinstance(block, Scatter):
        points = [{**point._asdict(), "x": finite(point.x), "y": finite(point.y)} for point in block.points]
        return {"kind": "scatter", **common, "x_label": block.x_label, "y_label": block.y_label,
                "kinds": dict(block.kinds), "points": points}  # fmt: skip
    if isinstance(block, Bars):
        series = {name: list(map(finite, values)) for name, values in block.series.items()}
        return {"kind": "bars", **common, "names": list(block.names), "series": series, "unit": block.unit}
    if isinstance(block, HeatMap):
        rows = [[finite(value) for value in row] for row in block.values]
        return {
            "kind": "heat map", **common, "rows": list(block.rows), "columns": list(block.columns), "values": rows,
            "unit": block.unit, "groups": list(block.groups), "marks": list(block.marks), "mark": block.mark,
        }  # fmt: skip
    frames = [{"name": frame.name, "worst": {k: finite(v) for k, v in frame.worst.items()}} for frame in block.frames]
    return {"kind": "slider", **common, "frames": frames, "reference": block.reference, "scale": block.scale}


def finite(value: float | None) -> float | None:
    """The number, or None where JSON has none.

    >>> finite(1.5), finite(math.inf)
    (1.5, None)
    """
    return None if value is None or not math.isfinite(value) else value


RENDERERS.register("json", Renderer("json", ".json", render))
