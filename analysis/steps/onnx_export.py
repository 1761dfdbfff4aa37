"""A plan or a scheme -> an ONNX file, compared with torch on a scene."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from analysis.steps.checkpoint import PLANNED, of_run
from analysis.steps.run_folder import check_writable, scenes_for
from analysis.steps.view import View
from mixedprec import format_bytes, packed_with, quantized_weights, uniform_assignment
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.model import VGGT
from vggtkit.quant import get_format
from vggtkit.runtime.onnx.faults import check_operators
from vggtkit.runtime.onnx.file import Written, difference, move, write
from vggtkit.runtime.onnx.session import Session, version
from vggtkit.runtime.onnx.styles import STYLES
from vggtkit.runtime.onnx.trace import ANY, Graph, Shapes, trace
from vggtkit.scenes import Scene, SceneSource
from vggtkit.subject import Subject

STEPS = ("quantising", "tracing", "writing", "comparing with torch")


@dataclass(frozen=True)
class Compared:
    """How a file differs from torch on a scene.

    Attributes:
        scene: its name.
        by_output: NMSE of every output against the same packed model in torch; empty where ONNX Runtime is not there.
        by_operator: NMSE of every kind of operator, tried alone.
    """

    scene: str
    by_output: Mapping[str, float]
    by_operator: Mapping[str, float]


def make_onnx(
    run: Path,
    scheme: str,
    choose_scenes: Callable[[SceneSource], SceneSource] = lambda profiled: profiled,
    progress: Progress = silent,
    *,
    style: str = "auto",
    views: int = ANY,
    weights: str = "pretrained",
    model_name: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> View:
    """Write the run's plan, or a uniform scheme, as an ONNX file, and compare it with torch on one scene.

    The file is for pictures of the size of that scene.

    Args:
        run: folder of the run.
        scheme: ``"plan"``, or a format for every layer.
        choose_scenes: where the scene comes from, given where those of the profile did; of its evaluation half.
        progress: called as the work goes on.
        style: key of `STYLES`.
        views: pictures that the file takes; 0: any number.
        weights: ``"random"`` to try a plan without a profile on random weights.
        model_name: what the user calls the run's model.
        say: told what was done to make the model loadable.

    Raises:
        InputError: no plan, no VGGT, a package is missing, or ONNX Runtime computes the file wrongly.
    """
    STYLES.pick(style)
    if scheme != PLANNED:
        get_format(scheme)
    check_writable(run)
    plan, subject, facts = of_run(run, scheme, weights, progress, model_name, say)
    if not isinstance(subject.model, VGGT):
        raise InputError(f"{setting('format', 'onnx')}: only a VGGT becomes an ONNX file; leave it out")
    stated = facts.get("scene_source")
    profiled = SceneSource.from_dict(stated) if isinstance(stated, Mapping) else SceneSource(views=2)
    scene = scenes_for(subject, choose_scenes(profiled), "evaluation", say)[0]
    progress(STEPS[0], 0, len(STEPS))
    formats, keep = (plan.formats, plan.keep) if plan else (uniform_assignment(subject.layers, scheme), "fp16")
    quantised = quantized_weights(subject, formats, keep)
    shapes = Shapes(scene.images.shape[-2], scene.images.shape[-1], views)
    note = provenance(weights=facts["weights"], scheme=scheme, style=style, formats=dict(formats))
    path = run / f"model-{scheme}.onnx"
    with packed_with(subject, quantised, keep):
        progress(STEPS[1], 1, len(STEPS))
        graph = trace(subject.model, shapes, style)
        progress(STEPS[2], 2, len(STEPS))
        with tempfile.TemporaryDirectory(dir=run) as folder:
            unchecked = write(graph, Path(folder) / path.name, {"vggt-mixedprec": json.dumps(note)})
            progress(STEPS[3], 3, len(STEPS))
            compared = _compared(subject, graph, unchecked, scene)
            written = move(unchecked, path)
    progress(STEPS[3], len(STEPS), len(STEPS))
    random = "random" in (weights, facts["weights"])
    return _view(written, graph, compared, shapes, style).of_weights("random" if random else str(facts["weights"]))


def _compared(subject: Subject, graph: Graph, written: Written, scene: Scene) -> Compared:
    """Every kind of operator, and the whole file, against torch; nothing where ONNX Runtime is not installed."""
    if not version():
        return Compared(scene.name, {}, {})
    by_operator = check_operators(graph.weights)
    expected = subject.predict(scene)
    session = Session(written.path)
    return Compared(
        scene.name, difference(session, expected, scene.images[None], scene.query_points[None]), by_operator
    )


def _view(written: Written, graph: Graph, compared: Compared, shapes: Shapes, style: str) -> View:
    layers = Counter("FP32" if weight is None else weight.way for weight in graph.weights.values())
    lines = [
        f"written: {written.path}, {format_bytes(written.size_bytes)} ({written.size_bytes:,} bytes)",
        f"it takes {shapes.views or 'any number of'} pictures of {shapes.height}x{shapes.width} pixels",
    ]
    if written.data:
        lines.append(f"its weights are in {written.data.name}, which must stay beside it")
    if not compared.by_output:
        lines.append("NOT RUN: onnxruntime is not installed, so the file was not compared with torch")
    tables = [_layer_table(layers, style)]
    if compared.by_output:
        tables.append(_difference_table(compared))
    values = {
        "path": str(written.path),
        "data": str(written.data) if written.data else None,
        "size_bytes": written.size_bytes,
        "views": shapes.views or None,
        "height": shapes.height,
        "width": shapes.width,
        "style": style,
        "layers": dict(layers),
        "operators": dict(written.operators),
        "scene": compared.scene,
        "nmse": dict(compared.by_output),
        "nmse_of_operators": dict(compared.by_operator),
        "onnxruntime": version(),
    }
    return View(values, tables, lines)


def _layer_table(layers: Counter[str], style: str) -> Table:
    table = Table(title=f"Layers by the operator that computes them ({style})", title_justify="left")
    table.add_column("operator")
    table.add_column("layers", justify="right")
    for way, count in layers.most_common():
        table.add_row(way, str(count))
    return table


def _difference_table(compared: Compared) -> Table:
    title = f"ONNX Runtime {version()} against torch with the same weights, scene {compared.scene}"
    table = Table(title=title, title_justify="left")
    table.add_column("output")
    table.add_column("NMSE", justify="right")
    for name, error in compared.by_output.items():
        table.add_row(name, f"{error:.1e}")
    return table
