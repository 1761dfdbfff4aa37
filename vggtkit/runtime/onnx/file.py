"""A graph -> a file of ONNX that was checked: its form, known faults, every operator, and the whole against torch."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vggtkit.core.atomic import replacing_all
from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse_or_inf
from vggtkit.runtime.onnx.constants import constant_nodes
from vggtkit.runtime.onnx.faults import check_faults
from vggtkit.runtime.onnx.session import Session
from vggtkit.runtime.onnx.tensors import WRITERS, check_packages
from vggtkit.runtime.onnx.trace import Graph

if TYPE_CHECKING:
    import onnx_ir

LARGEST_IN_ONE = 2 * 10**8
"""Bytes of tensors above which they go into a file of their own.

One file holds 2 GB at most, and is put together in memory, where it stands twice; beside it tensors are written one
by one.
"""
MOST_DAMAGE = 0.1
"""NMSE of an output against torch above which a file is taken to be computed wrongly.

8-bit activations cost some 1e-4 (docs/log.md). Tracks are not judged: they may be chaotic.
"""
TRACKS = ("track", "vis", "conf")


@dataclass(frozen=True)
class WrittenGraph:
    """A file that was written.

    Attributes:
        path: of the graph.
        data: of its tensors, where they are in a file of their own.
        size_bytes: of both.
        operators: nodes by type, without those that are folded while the file is loaded.
    """

    path: Path
    data: Path | None
    size_bytes: int
    operators: Mapping[str, int]


def write(graph: Graph, path: Path, facts: Mapping[str, str] | None = None) -> WrittenGraph:
    """Write a graph; the file appears complete or not at all.

    Args:
        graph: the model that it was traced of is still packed as it was.
        path: an ``.onnx`` file.
        facts: kept in the file, as text.

    Raises:
        InputError: another name, a package is missing, ONNX Runtime would compute the graph wrongly, or the file cannot
            be written.
    """
    if path.suffix != ".onnx":
        raise InputError(f"{path}: an ONNX file ends in .onnx; name it {path}.onnx")
    check_packages(*WRITERS)
    import onnx
    import onnx_ir

    check_faults(graph.model)
    graph.model.metadata_props.update(facts or {})
    graph.model.producer_name = "vggt-mixedprec"
    tensors = sum(value.const_value.nbytes for value in graph.model.graph.initializers.values() if value.const_value)
    paths = [path, path.with_name(f"{path.name}.data")][: 1 + (tensors > LARGEST_IN_ONE)]
    with replacing_all(paths) as temporaries, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        inside = [Path(folder) / each.name for each in paths]
        onnx_ir.save(graph.model, inside[0], external_data=inside[1].name if len(inside) > 1 else None)
        try:
            onnx.checker.check_model(str(inside[0]))
        except onnx.checker.ValidationError as error:
            raise InputError(f"{path.name}: onnx refuses the file ({str(error).splitlines()[0]})") from error
        for each, temporary in zip(inside, temporaries, strict=True):
            each.replace(temporary)
    size = sum(each.stat().st_size for each in paths)
    return WrittenGraph(path, paths[1] if len(paths) > 1 else None, size, operators_of(graph.model))


def move_graph(written: WrittenGraph, path: Path) -> WrittenGraph:
    """A file under another name in another folder, its tensors still beside it.

    Raises:
        InputError: it cannot be moved there.
    """
    targets = [path] if written.data is None else [path, path.with_name(written.data.name)]
    with replacing_all(targets) as temporaries:
        for source, temporary in zip((written.path, written.data), temporaries, strict=False):
            assert source is not None
            source.replace(temporary)
    return replace(written, path=path, data=targets[1] if written.data else None)


def operators_of(model: onnx_ir.Model) -> dict[str, int]:
    """Nodes that compute something of the inputs, by type, the most frequent first."""
    counts = Counter(node.op_type for node in model.graph)
    counts.subtract(node.op_type for node in constant_nodes(model.graph))
    return {operator: count for operator, count in counts.most_common() if count}


def difference(session: Session, expected: Mapping[str, Tensor], images: Tensor, points: Tensor) -> dict[str, float]:
    """NMSE of every output of a file against torch's.

    Args:
        session: the file.
        expected: outputs of torch.
        images: ``[1, S, 3, H, W]``.
        points: ``[1, N, 2]``.

    Raises:
        InputError: an output is broken, or so far off that the file must be computed wrongly.
    """
    with torch.no_grad():
        computed = session(images=images, query_points=points)
    errors = {name: nmse_or_inf(expected[name], value) for name, value in computed.items()}
    wrong = {name: error for name, error in errors.items() if name not in TRACKS and not error <= MOST_DAMAGE}
    broken = {name: error for name, error in errors.items() if error == float("inf")}
    if bad := wrong | broken:
        name, error = next(iter(bad.items()))
        raise InputError(
            f"ONNX Runtime gives another {name} than torch (NMSE {error:.1e}, at most {MOST_DAMAGE} is allowed): 8-bit "
            "activations may not suit this network, choose another style, such as nbits or exact"
        )
    return errors
