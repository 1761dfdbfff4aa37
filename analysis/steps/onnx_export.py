"""A plan or a scheme -> an ONNX file, compared with torch on a scene."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from analysis.report.document import Table
from analysis.steps.checkpoint import PLANNED, of_run
from analysis.steps.rounding import weights_of
from analysis.steps.run_folder import check_writable, scenes_for
from analysis.steps.view import View
from mixedprec import format_bytes, packed_with, quantized_weights, uniform_assignment
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Workers
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.quant import get_format
from vggtkit.runtime.onnx.faults import check_operators
from vggtkit.runtime.onnx.file import WrittenGraph, difference, move_graph, write
from vggtkit.runtime.onnx.qdq import input_spans, qdq_operators
from vggtkit.runtime.onnx.session import Session, version
from vggtkit.runtime.onnx.styles import STYLES, operators
from vggtkit.runtime.onnx.tensors import WRITERS, check_packages
from vggtkit.runtime.onnx.trace import ANY, Graph, Shapes, trace
from vggtkit.runtime.onnx.weights import Dynamic, UnsignedDynamic
from vggtkit.scenes import Scene, SceneSource

QDQ = "qdq"
"""The style for TensorRT."""
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


class _Export(NamedTuple):
    """What came of it."""

    written: WrittenGraph
    graph: Graph
    compared: Compared
    shapes: Shapes
    style: str
    again: Mapping[str, float]


def make_onnx(
    run: Path,
    scheme: str,
    choose_scenes: Callable[[SceneSource], SceneSource] = lambda profiled: profiled,
    progress: Progress = silent,
    *,
    style: str = "auto",
    views: int = ANY,
    convert: bool = False,
    weights: str = "pretrained",
    model_name: str | None = None,
    workers: Workers | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> View:
    """Write the run's plan, or a uniform scheme, as an ONNX file, and compare it with torch on one scene.

    The file is for pictures of the size of that scene.

    Args:
        run: folder of the run.
        scheme: ``"plan"``, or a format for every layer.
        choose_scenes: where the scene comes from, given where those of the profile did; of its evaluation half.
        progress: called as the work goes on.
        style: key of `STYLES`, or ``"qdq"``.
        views: pictures that the file takes; 0: any number.
        convert: of ``"qdq"``: round once more what TensorRT does not take.
        weights: ``"random"`` to try a plan without a profile on random weights.
        model_name: what the user calls the run's model.
        workers: who rounds a plan's weights, where that is left to do; this process by default.
        say: told what was done to make the model loadable.

    Raises:
        InputError: no plan, no VGGT, a package is missing, or ONNX Runtime computes the file wrongly.
    """
    if style != QDQ:
        STYLES.pick(style)
    if scheme != PLANNED:
        get_format(scheme)
    check_packages(*WRITERS)
    check_writable(run)
    plan, subject, profile, facts = of_run(run, scheme, weights, progress, model_name, say)
    if (network := subject.vggt) is None:
        raise InputError(f"{setting('format', 'onnx')}: only a VGGT becomes an ONNX file; leave it out")
    stated = facts.get("scene_source")
    profiled = SceneSource.from_dict(stated) if isinstance(stated, Mapping) else SceneSource(views=2)
    scene = scenes_for(subject, choose_scenes(profiled), "evaluation", say)[0]
    progress(STEPS[0], 0, len(STEPS))
    formats, keep = (plan.formats, plan.keep) if plan else (uniform_assignment(subject.layers, scheme), "fp16")
    rounded = None
    if plan and profile:
        rounded = weights_of(run, plan, profile, subject, workers=workers, progress=progress, say=say)
    quantised = quantized_weights(subject, formats, keep) if rounded is None else rounded
    shapes = Shapes(scene.images.shape[-2], scene.images.shape[-1], views)
    note = provenance(weights=facts["weights"], scheme=scheme, style=style, formats=dict(formats))
    path = run / f"model-{scheme}{'-qdq' * (style == QDQ)}.onnx"
    with packed_with(subject, quantised, keep):
        progress(STEPS[1], 1, len(STEPS))
        with input_spans(network) as spans:
            expected = subject.predict(scene)
        again: dict[str, float] = {}
        if style == QDQ:
            operating, again = qdq_operators(network, spans, convert=convert)
        else:
            operating = operators(network, style, plan.executions if plan else None)
        graph = trace(network, shapes, operating, standard=style == QDQ)
        progress(STEPS[2], 2, len(STEPS))
        with tempfile.TemporaryDirectory(dir=run) as folder:
            unchecked = write(graph, Path(folder) / path.name, {"vggt-mixedprec": json.dumps(note)})
            progress(STEPS[3], 3, len(STEPS))
            compared = _compared(expected, graph, unchecked, scene)
            written = move_graph(unchecked, path)
    progress(STEPS[3], len(STEPS), len(STEPS))
    random = "random" in (weights, facts["weights"])
    made = _Export(written, graph, compared, shapes, style, again)
    return _view(made).of_weights("random" if random else str(facts["weights"]))


def _compared(expected: Mapping[str, Tensor], graph: Graph, written: WrittenGraph, scene: Scene) -> Compared:
    """Every kind of operator, and the whole file, against torch; nothing where ONNX Runtime is not installed."""
    if not version():
        return Compared(scene.name, {}, {})
    by_operator = check_operators(graph.weights)
    session = Session(written.path)
    return Compared(
        scene.name, difference(session, expected, scene.images[None], scene.query_points[None]), by_operator
    )


def _view(made: _Export) -> View:
    layers = Counter("FP32" if weight is None else weight.way for weight in made.graph.weights.values())
    lines = [
        f"written: {made.written.path}, {format_bytes(made.written.size_bytes)} ({made.written.size_bytes:,} bytes)",
        f"it takes {made.shapes.views or 'any number of'} pictures of {made.shapes.height}x{made.shapes.width} pixels",
    ]
    if made.written.data:
        lines.append(f"its weights are in {made.written.data.name}, which must stay beside it")
    if not made.compared.by_output:
        lines.append("NOT RUN: onnxruntime is not installed, so the file was not compared with torch")
    if layers[UnsignedDynamic.way]:
        lines.append(
            "this processor has no VNNI, so its 8-bit weights are unsigned: with VNNI the file is as right, "
            "but one made there is faster"
        )
    elif any(isinstance(weight, Dynamic) and weight.is_signed for weight in made.graph.weights.values()):
        lines.append(f"on x86 without VNNI sums of {Dynamic.way} may overflow: make a file for it there")
    if made.style == QDQ:
        lines.append("on x86 without VNNI sums of OpenVINO overflow: give it a file of --onnx exact there")
    if made.again:
        worst = max(made.again, key=lambda layer: made.again[layer])
        lines.append(
            f"{len(made.again)} layers were rounded once more, at worst {worst} (NMSE {made.again[worst]:.1e})"
        )
    tables = [_layer_table(layers, made.style)]
    if made.compared.by_output:
        tables.append(_difference_table(made.compared))
    values = {
        "path": str(made.written.path),
        "data": str(made.written.data) if made.written.data else None,
        "size_bytes": made.written.size_bytes,
        "views": made.shapes.views or None,
        "height": made.shapes.height,
        "width": made.shapes.width,
        "style": made.style,
        "layers": dict(layers),
        "operators": dict(made.written.operators),
        "scene": made.compared.scene,
        "nmse": dict(made.compared.by_output),
        "nmse_of_operators": dict(made.compared.by_operator),
        "converted": dict(made.again),
        "onnxruntime": version(),
    }
    return View(values, tables, lines)


def _layer_table(layers: Counter[str], style: str) -> Table:
    rows = [(way, str(count)) for way, count in layers.most_common()]
    return Table(f"Layers by the operator that computes them ({style})", ("operator", "layers"), rows)


def _difference_table(compared: Compared) -> Table:
    title = f"ONNX Runtime {version()} against torch with the same weights, scene {compared.scene}"
    rows = [(name, f"{error:.1e}") for name, error in compared.by_output.items()]
    return Table(title, ("output", "NMSE"), rows)
